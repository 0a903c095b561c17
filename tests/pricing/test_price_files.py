"""Prices from files and from the environment: what they may say, what goes before what, what is refused."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from agent_meter.pricing import PriceBook, PriceError
from agent_meter.records import Model, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
THOUSAND = TokenUsage(1000, 1000)
MILLION = TokenUsage(10**6, 10**6)


def usd(
    book: PriceBook, model: Model | str, usage: TokenUsage = MILLION, at: datetime = AT, **context: str
) -> Decimal | None:
    return book.find(model).price(usage, at, context).amount


FILE = """
[prices."openai/gpt-4o"]
input = "2.25"
cache_read = 1.125
output = "9"
from = 2026-01-01

[prices."azure:my-gpt4o"]
like = "azure/gpt-4o"
multiply = "0.85"

[prices."my-custom-model"]
per_1k = "0.001"

[[prices.dated]]
input = "1"

[[prices.dated]]
input = "2"
from = 2026-01-01

[[pattern]]
glob = "bedrock/arn:*:application-inference-profile/*"
like = "aws/us.anthropic.claude-sonnet-4-5-20250929-v1:0"

[[pattern]]
regex = '^local-.*'
free = true

[[pattern]]
glob = "acme/*"
input = "1"
output = "1"

[[pattern]]
glob = "acme/large-*"
input = "5"
output = "5"

[fees]
rerank_searches = "0.002"

[fees.openai]
code_executions = "0.03"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(FILE)
    return path


def test_a_price_file_names_models_patterns_and_fees(file: Path) -> None:
    book = PriceBook(file, discover=False)

    assert usd(book, "gpt-4o") == Decimal("11.25")
    assert usd(book, "gpt-4o", at=datetime(2025, 12, 31, tzinfo=UTC)) == Decimal("12.5")
    assert usd(book, Model("azure", "my-gpt4o")) == Decimal("10.625")
    assert usd(book, "my-custom-model", THOUSAND) == Decimal("0.002")
    assert usd(book, "dated", TokenUsage(10**6), datetime(2025, 1, 1, tzinfo=UTC)) == 1
    assert usd(book, "dated", TokenUsage(10**6)) == 2
    profile = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    assert usd(book, Model("bedrock", profile)) == Decimal("19.8")
    assert book.find("local-llama").free
    assert usd(book, Model("openai", "gpt-4o"), TokenUsage(0, 0, units={"code_executions": 2})) == Decimal("0.06")
    assert usd(book, Model("anthropic", "claude-3-haiku"), TokenUsage(0, 0, units={"rerank_searches": 1})) == Decimal(
        "0.002"
    )


def test_of_several_globs_the_one_with_most_letters_counts(file: Path) -> None:
    book = PriceBook(file, discover=False)

    assert [usd(book, Model("acme", name)) for name in ("small-1", "large-1")] == [2, 10]


def test_code_goes_before_files_and_files_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agent_meter.toml").write_text(
        '[prices.a]\nper_1k = "2"\n[prices.b]\nper_1k = "2"\n[prices.c]\nper_1k = "2"\n'
    )
    monkeypatch.setenv("AGENT_METER_COST_RATES", '{"a": 1, "b": 1, "c": 1, "d": 0.5}')
    book = PriceBook({"a": "4", "b": "4"}, cost_rates={"c": 3})
    book.set("a", "5")

    rates = [book.find(name).blended_per_1k for name in "abcd"]

    assert rates == [5, 4, 3, Decimal("0.5")]


def test_the_documents_environment_form_is_a_blended_rate_per_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_COST_RATES", '{"my-model": 0.001}')

    assert PriceBook().find("my-model").price(TokenUsage(600, 400), AT).amount == Decimal("0.001")


def test_a_named_file_replaces_the_one_that_lies_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent_meter.toml").write_text('[prices.m]\nper_1k = "1"\n')
    (tmp_path / "one.toml").write_text('[prices.m]\nper_1k = "2"\n')
    (tmp_path / "two.toml").write_text('[prices.m]\nper_1k = "3"\n[prices.n]\nper_1k = "3"\n')
    monkeypatch.setenv("AGENT_METER_PRICES", os.pathsep.join(str(tmp_path / name) for name in ("one.toml", "two.toml")))

    book = PriceBook()

    assert [book.find(name).blended_per_1k for name in "mn"] == [2, 3]


def test_a_shared_file_may_hold_other_settings_but_not_nearly_ours(tmp_path: Path) -> None:
    shared = tmp_path / "agent_meter.toml"
    shared.write_text('[budgets.team]\nusd = 5\n[prices.m]\nper_1k = "1"\n')
    assert PriceBook().find("m").known

    shared.write_text('[price.m]\nper_1k = "1"\n')
    with pytest.raises(PriceError, match="did you mean 'prices'"):
        PriceBook()


def test_a_changed_file_is_read_again_on_request_and_a_broken_one_changes_nothing(file: Path) -> None:
    book = PriceBook(file, discover=False)
    version = book.version

    file.write_text('[prices."my-custom-model"]\nper_1k = "7"\n')
    book.reload()
    changed = (book.find("my-custom-model").blended_per_1k, book.version)
    file.write_text("[prices")

    with pytest.raises(PriceError):
        book.reload()
    assert changed == (7, version + 1)
    assert book.find("my-custom-model").blended_per_1k == 7


@pytest.mark.parametrize(
    ("good", "bad", "line", "message"),
    [
        ("cache_read", "cache_raed", "cache_raed = 1.125", "did you mean 'cache_read'?"),
        ('"9"', '"nine"', 'output = "nine"', "not an amount: 'nine'"),
        ("per_1k", "per_lk", 'per_lk = "0.001"', "did you mean 'per_1k'?"),
        ("free = true", "fre = true", "fre = true", "did you mean 'free'?"),
        ('"0.85"', '"-1"', 'multiply = "-1"', "not an amount: '-1'"),
        ("[fees]", "[fee]", "[fee]", "did you mean 'fees'?"),
        ('"0.002"', '"x"', 'rerank_searches = "x"', "not an amount: 'x'"),
        ('"0.03"', '"x"', 'code_executions = "x"', "not an amount: 'x'"),
        ("regex =", "regx =", "[[pattern]]", "either glob or regex"),
        ('input = "2"\n', 'input = "2"\nper_1k = 3\n', "[[prices.dated]]", "contradict each other"),
        ("from = 2026-01-01\n\n[p", 'from = "soon"\n\n[p', 'from = "soon"', "not a date"),
    ],
)
def test_a_bad_file_is_refused_with_the_line_and_the_nearest_right_key(
    tmp_path: Path, good: str, bad: str, line: str, message: str
) -> None:
    text = FILE.replace(good, bad, 1)
    path = tmp_path / "bad.toml"
    path.write_text(text)

    with pytest.raises(PriceError) as refused:
        PriceBook(path, discover=False)

    said = str(refused.value)
    number = int(said.split("line ", 1)[1].split(":", 1)[0])
    assert str(path) in said
    assert message in said
    assert text.splitlines()[number - 1] == line


def test_what_is_no_file_no_toml_and_no_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[prices")

    with pytest.raises(PriceError, match="no price file at"):
        PriceBook(tmp_path / "missing.toml")
    with pytest.raises(PriceError, match=r"broken.toml: Expected"):
        PriceBook(broken)
    with pytest.raises(PriceError, match="not a regular expression"):
        PriceBook({"pattern": [{"regex": "(", "free": True}]})
    for text, message in (("{", "not JSON"), ("[1]", "an object such as"), ('{"m": -1}', "not an amount")):
        monkeypatch.setenv("AGENT_METER_COST_RATES", text)
        with pytest.raises(PriceError, match=message):
            PriceBook()
