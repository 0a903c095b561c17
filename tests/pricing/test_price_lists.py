"""A newer price list from a file, and our corrections above any list."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import types
from genai_prices.data import providers

from agent_meter.pricing import PriceBook, PriceError, catalog, listfile
from agent_meter.pricing.pricelist import CORRECTIONS, PriceList, installed
from agent_meter.records import CostStatus, Model, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
MILLION = TokenUsage(10**6, 10**6)


def plain(value: Any) -> Any:
    """An object of genai-prices as it is written in the JSON of its list."""
    match value:
        case types.ClauseOr():
            return {"or": [plain(part) for part in value.or_]}
        case types.ClauseAnd():
            return {"and": [plain(part) for part in value.and_]}
        case types.ModelPrice():
            return {key: plain(price) for key, price in vars(value).items() if price is not None}
        case Decimal():
            return float(value)
        case list():
            return [plain(item) for item in value]
        case str() | int() | float() | bool() | None | dict():
            return value
        case _ if hasattr(value, "isoformat"):
            return value.isoformat()
        case _:
            return {key: plain(v) for key, v in vars(value).items() if v is not None and key != "extractors"}


@pytest.fixture(scope="module")
def written() -> str:
    return json.dumps(plain(providers))


@pytest.fixture
def list_file(tmp_path: Path, written: str) -> Callable[..., Path]:
    """A file with the installed list, changed by a function over its tables."""

    def make(change: Callable[[list[Any]], object] = lambda tables: None, name: str = "newer.json") -> Path:
        tables = json.loads(written)
        change(tables)
        path = tmp_path / name
        path.write_text(json.dumps(tables))
        return path

    return make


def openai(tables: list[Any], name: str) -> dict[str, Any]:
    models = next(table for table in tables if table["id"] == "openai")["models"]
    return next(model for model in models if model["id"] == name)


# --------------------------------------------------------------------------------------------- a list file


def test_the_installed_list_reads_back_from_its_own_json_without_a_change(list_file: Callable[..., Path]) -> None:
    again = listfile.read(list_file())

    assert catalog.diff(installed(), again) == ()
    assert sum(len(p.models) for p in again.providers.values()) == sum(len(p.models) for p in providers)
    for model in (Model("openai", "gpt-5.5"), Model("deepseek", "deepseek-chat"), Model("azure", "gpt-4o")):
        assert [(s.card, s.window, s.variants) for s in again.find(model).segments] == [
            (s.card, s.window, s.variants) for s in installed().find(model).segments
        ]


def test_a_book_may_stand_on_a_newer_list(
    list_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = list_file(lambda tables: openai(tables, "gpt-4o")["prices"].update(input_mtok=1))
    book = PriceBook(price_list=path, discover=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", str(path))

    rates = book.find("gpt-4o-mini")

    assert book.find("gpt-4o").input == 1
    assert PriceBook().find("gpt-4o").input == 1
    assert rates.source.startswith("newer.json sha256:")


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"id": "x"}]', '{"a": {"input_cost_per_token": 1}}'])
def test_what_is_no_price_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)

    with pytest.raises(PriceError, match=r"list\.json: "):
        PriceBook(price_list=path, discover=False)


def test_an_update_is_put_in_place_with_its_digest(list_file: Callable[..., Path], tmp_path: Path) -> None:
    source = list_file(lambda tables: openai(tables, "gpt-4o")["prices"].update(input_mtok=2))
    place = tmp_path / "sub" / "prices.json"

    done = catalog.update(source, place)

    sha = hashlib.sha256(source.read_bytes()).hexdigest()
    assert place.read_bytes() == source.read_bytes()
    assert (tmp_path / "sub" / "prices.json.sha256").read_text() == f"{sha}  prices.json\n"
    assert done.sha256 == sha
    assert [(c.model, c.unit, c.before, c.after) for c in done.changes] == [
        ("gpt-4o", "input_tokens", Decimal("2.5"), Decimal("2"))
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda tables: tables.__setitem__(slice(None), [t for t in tables if t["id"] != "openrouter"]),
            "models are gone",
        ),
        (lambda tables: openai(tables, "gpt-4o")["prices"].update(input_mtok=12.6), "gpt-4o input_tokens: 2.5 to 12.6"),
        (lambda tables: openai(tables, "gpt-4o")["prices"].update(output_mtok=0), "gpt-4o output_tokens: 10 to 0"),
    ],
)
def test_a_list_that_lost_a_fifth_or_moved_a_rate_far_is_refused_until_accepted(
    list_file: Callable[..., Path], tmp_path: Path, change: Callable[[list[Any]], object], reason: str
) -> None:
    place = tmp_path / "prices.json"
    catalog.update(list_file(), place)
    before = place.read_bytes()
    strange = list_file(change, "strange.json")

    with pytest.raises(PriceError, match=r"not taken over") as refused:
        catalog.update(strange, place)

    assert reason in str(refused.value)
    assert place.read_bytes() == before
    assert catalog.update(strange, place, accept=True).problems
    assert place.read_bytes() == strange.read_bytes()


def test_a_rate_that_moved_by_no_more_than_five_times_is_taken(list_file: Callable[..., Path], tmp_path: Path) -> None:
    source = list_file(lambda tables: openai(tables, "gpt-4o")["prices"].update(input_mtok=12.5))

    assert catalog.update(source, tmp_path / "prices.json").problems == ()


# -------------------------------------------------------------------------------------------- corrections


def usd(name: str, at: datetime = AT, usage: TokenUsage = MILLION) -> Decimal | None:
    return installed().find(Model("", name)).price(usage, at).amount


def test_every_correction_says_where_it_comes_from_and_when_it_was_read() -> None:
    tables = tomllib.loads(CORRECTIONS.read_text(encoding="utf-8"))
    entries = [
        entry for value in tables["prices"].values() for entry in (value if isinstance(value, list) else [value])
    ]

    for entry in [*entries, *tables["variant"]]:
        assert "read 20" in entry["source"], entry


def test_every_correction_can_be_found_by_the_name_that_it_corrects() -> None:
    tables = tomllib.loads(CORRECTIONS.read_text(encoding="utf-8"))

    for name in tables["prices"]:
        rates = installed().find(Model("", name.replace("*-v3.0", "english-v3.0").replace("*", "")))
        assert rates.known, name
        assert any(segment.source.startswith("corrections: ") for segment in rates.segments), name


def test_without_corrections_the_list_is_as_it_is_published() -> None:
    bare = PriceList(installed().providers, installed().source, None)

    assert bare.find(Model("deepseek", "deepseek-chat")).price(MILLION, AT).amount == Decimal("1.37")
    assert not bare.find(Model("cohere", "rerank-v3.5")).known


def test_a_correction_with_one_source_makes_an_estimate() -> None:
    cost = installed().find(Model("mistral", "mistral-large-latest")).price(MILLION, AT)

    assert (cost.status, cost.amount) == (CostStatus.ESTIMATED, 2)
    assert "when the alias moved is not stated" in cost.assumptions[0]


def test_peak_hours_are_those_of_working_days_since_they_began() -> None:
    """The list applies them to every date and to weekends (genai-prices#582)."""
    peak, name = Decimal("1.5"), "deepseek/deepseek-flash"
    friday, saturday = datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)

    hours = [usd(name, friday.replace(hour=h)) == peak for h in range(24)]

    assert [h for h in range(24) if hours[h]] == [1, 2, 3, 6, 7, 8, 9]
    assert {usd(name, saturday.replace(hour=h)) for h in range(24)} == {Decimal("0.75")}


def test_a_rerank_is_billed_by_the_search() -> None:
    cost = installed().find(Model("cohere", "rerank-v3.5")).price(TokenUsage(units={"rerank_searches": 3}), AT)

    assert (cost.status, cost.amount) == (CostStatus.PRICED, Decimal("0.006"))


def test_audio_of_gpt_4o_has_its_own_rates() -> None:
    usage = TokenUsage(10**6, 10**6, input_audio_tokens=10**6, output_audio_tokens=10**6)

    assert usd("gpt-4o-audio-preview", usage=usage) == 120
    assert usd("gpt-4o-audio-preview-2024-10-01", usage=usage) == 300
    assert usd("gpt-4o-mini-audio-preview", usage=usage) == 30


def test_half_price_batches_compose_with_regional_inference() -> None:
    rates = installed().find(Model("anthropic", "claude-sonnet-4-6"))

    both = rates.price(MILLION, AT, {"processing": "batch", "inference_geo": "us"})
    before = rates.price(MILLION, datetime(2026, 5, 1, tzinfo=UTC), {"service_tier": "batch"})

    assert both.amount == Decimal("18") / 2 * Decimal("1.1")
    assert before.amount == 9
