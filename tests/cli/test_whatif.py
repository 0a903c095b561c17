"""`agent-meter whatif`: the sums are the price book's, to the last digit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_meter.pricing import PriceBook
from agent_meter.records import TokenUsage

from .conftest import Invoke

AT = datetime(2026, 5, 15, tzinfo=UTC)
SEED = ("gpt-4o", "claude-3-5-sonnet", "gpt-4o-mini", "claude-3-haiku")


def whatif(invoke: Invoke, *typed: str, exit_code: int = 0) -> Any:
    result = invoke("whatif", *typed, "--at", AT.isoformat(), "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def of(models: tuple[str, ...]) -> list[str]:
    return [word for model in models for word in ("--model", model)]


@pytest.mark.parametrize(
    ("share", "totals"),
    [
        # What 100,000 tasks of 4,000 tokens cost: an eighth of it output …
        ("0.125", ["1375", "1800", "82.5", "150"]),
        # … and a twelfth, which is 333 tokens. A table that was handed around mixes the two: 1,250 and 75
        # are about a twelfth, 1,800 and 150 an eighth.
        ("0.08333", ["1249.75", "1599.6", "74.985", "133.3"]),
    ],
)
def test_the_cost_of_100_000_tasks_by_share_of_output(share: str, totals: list[str], invoke: Invoke) -> None:
    document = whatif(invoke, *of(SEED), "--tasks", "100000", "--tokens", "4000", "--output-share", share)

    assert [each["total_usd"] for each in document["models"]] == totals


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=6, max_size=6),
    searches=st.integers(0, 50),
    tasks=st.integers(0, 10**6),
    batch=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_sum_is_the_price_books_own(
    counts: list[int], searches: int, tasks: int, batch: bool, invoke: Invoke, folder: Path
) -> None:
    uncached, read, write, hour, said, thought = counts
    usage = TokenUsage(uncached + read + write + hour, said + thought, read, write + hour, hour, thought)
    context = {"processing": "batch"} if batch else {}
    models = ("gpt-4o", "claude-sonnet-4-5", "deepseek-chat")

    document = whatif(
        invoke, *of(models), "--input", str(usage.input_tokens), "--output", str(usage.output_tokens),
        "--cache-read", str(read), "--cache-write", str(write + hour), "--cache-write-1h", str(hour),
        "--reasoning", str(thought), "--tasks", str(tasks), "--unit", f"web_searches={searches}",
        *(["--context", "processing=batch"] if batch else []),
    )  # fmt: skip

    book = PriceBook(discover=False)
    priced = TokenUsage(*(getattr(usage, name) for name in usage.__struct_fields__[:10]), {"web_searches": searches})  # type: ignore[call-arg]
    for model, each in zip(models, document["models"], strict=True):
        cost = book.price(model, priced, AT, context)
        assert each["status"] == cost.status
        assert (each["each"]["usd"] is None) == (cost.amount is None)
        if cost.amount is not None:
            assert Decimal(each["each"]["usd"]) == cost.amount
            assert Decimal(each["total_usd"]) == cost.amount * tasks
            assert sum(Decimal(line["usd"]) for line in each["each"]["lines"]) == cost.amount
            parts = [Decimal(each["each"][f"{part}_usd"]) for part in ("input", "output", "fees")]
            assert sum(parts) == cost.amount


def test_every_class_of_token_reaches_the_sum(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_input = {"cache-read": "1", "cache-write": "2", "input-audio": "3", "input-image": "4"}
    of_output = {"reasoning": "5", "output-audio": "6", "output-image": "7"}
    words = {**of_input, **of_output, "cache-write-1h": "8"}
    rates = "\n".join(f'{word.replace("-", "_")} = "{rate}"' for word, rate in words.items())
    (folder / "all.toml").write_text(f'[prices.all]\ninput = "10"\noutput = "20"\n{rates}\n', encoding="utf-8")
    monkeypatch.setenv("AGENT_METER_PRICES", "all.toml")

    def total(*words: str) -> str:
        options = [part for word in words for part in (f"--{word}", "1000000")]
        return str(whatif(invoke, "--model", "all", *options)["models"][0]["total_usd"])

    assert {word: total("input", word) for word in of_input} == of_input
    assert {word: total("output", word) for word in of_output} == of_output
    assert total("input", "cache-write", "cache-write-1h") == "8"
    assert total("input", "output") == "30"


def test_a_share_read_from_cache_is_priced_as_such(invoke: Invoke) -> None:
    (each,) = whatif(invoke, "--model", "gpt-4o", "--tokens", "4000", "--cached-share", "0.5")["models"]

    assert each["usage"] == {"input_tokens": 3500, "output_tokens": 500, "cache_read_tokens": 1750}
    assert each["total_usd"] == "0.0115625"  # 1,750 at 2.50, 1,750 at 1.25, 500 at 10 per million


def test_models_that_cannot_be_priced_are_named_beside_those_that_can(invoke: Invoke) -> None:
    document = whatif(invoke, *of(("gpt-4oo", "gpt-4o")), "--input", "1000", exit_code=1)

    assert [each["model"] for each in document["models"]] == ["gpt-4o"]
    assert document["unpriced"] == [
        {
            "model": "gpt-4oo",
            "reason": "'gpt-4oo' is not in openai's price list",
            "nearest": ["openai/gpt-4o", "openai/gpt-4", "openai/gpt-4.1"],
        }
    ]


def test_what_is_free_costs_nothing_and_says_why(invoke: Invoke) -> None:
    (each,) = whatif(invoke, "--model", "ollama/llama3.2", "--input", "1000")["models"]

    assert (each["status"], each["total_usd"], each["reason"]) == ("free", "0", "local: ollama")


@pytest.mark.parametrize("columns", ["80", "60", "40"])
def test_no_digit_of_an_amount_is_cut_off_however_narrow_the_terminal_is(
    columns: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["whatif", *of(SEED), "--input", "123456789123", "--output", "987654321987", "--tasks", "7"]
    full, narrow = (invoke(*typed, env={"COLUMNS": width}).output for width in ("200", columns))

    assert max(map(len, narrow.splitlines())) <= int(columns)
    assert sorted(filter(str.isdigit, narrow)) == sorted(filter(str.isdigit, full))


def test_what_is_counted_in_fractions_is_priced_exactly(invoke: Invoke) -> None:
    (each,) = whatif(invoke, "--model", "groq/whisper-large-v3", "--unit", "audio_seconds=12.5")["models"]

    assert each["usage"] == {"audio_seconds": "12.5"}
    assert each["total_usd"] == "0.000385416667"  # 12.5 of 3,600 at 0.111, to the pico-dollar
