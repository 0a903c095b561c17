"""`agent-meter prices show` and `list`: the JSON says what the price book says, for every model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent_meter.pricing import PriceBook, catalog
from agent_meter.records import Model
from agent_meter.views import prices as view

from .conftest import Invoke

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODELS = [
    "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "deepseek-chat", "text-embedding-3-small", "cohere/rerank-v3.5",
    "aws/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "openrouter/openai/gpt-4o", "groq/whisper-large-v3",
]  # fmt: skip


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(discover=False)


def show(invoke: Invoke, *typed: str, exit_code: int = 0) -> Any:
    result = invoke("prices", "show", *typed, "--json")
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return json.loads(result.stdout)


@pytest.mark.parametrize("model", MODELS)
def test_show_gives_the_rates_of_the_price_book_as_exact_strings(model: str, invoke: Invoke, book: PriceBook) -> None:
    document = show(invoke, model, "--at", AT.isoformat())

    rates = book.find(model)
    pick = rates.pick(AT)
    assert pick is not None
    now = document["now"]
    assert now["card_id"] == pick.card.card_id
    assert {name: Decimal(given["usd"]) for name, given in now["rates"].items()} == {
        name: price.base for name, price in pick.card.prices.items()
    }
    for name, given in now["rates"].items():
        above = [(step["input_tokens"], Decimal(step["usd"])) for step in given.get("above", ())]
        assert tuple(above) == pick.card.prices[name].tiers
    assert (document["model"], document["provider"]) == (rates.model, rates.provider)
    assert [period["card_id"] for period in document["periods"]] == [s.card.card_id for s in rates.segments]


def test_show_at_a_date_gives_the_rates_of_that_date(invoke: Invoke) -> None:
    then, now = (show(invoke, "deepseek-chat", "--at", day)["now"] for day in ("2025-10-01", "2026-11-01"))

    assert [at["rates"]["input_tokens"]["usd"] for at in (then, now)] == ["0.28", "0.14"]
    assert [at["rates"]["output_tokens"]["usd"] for at in (then, now)] == ["0.42", "0.28"]
    assert then["source"].startswith("corrections: V3.2-Exp")


def test_what_a_match_assumes_is_said(invoke: Invoke) -> None:
    document = show(invoke, "azure/gpt-4o-2029-01-01")

    assert document["asked"] == "azure/gpt-4o-2029-01-01"
    assert document["now"]["note"] == "'gpt-4o-2029-01-01' is not in the price list; priced as 'gpt-4o'"


def test_own_rates_go_before_the_list(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "prices.toml").rename(folder / "agent_meter.toml")
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")
    monkeypatch.setenv("AGENT_METER_COST_RATES", '{"hawk": 0.001}')

    assert show(invoke, "acme/lark-2")["now"]["rates"]["input_tokens"]["usd"] == "1.8"
    assert show(invoke, "house-model")["now"]["rates"]["output_tokens"]["usd"] == "0.8"
    assert show(invoke, "hawk")["now"]["rates"]["input_tokens"]["usd"] == "1"


def test_an_unknown_model_exits_with_1_and_its_json_names_the_nearest(invoke: Invoke) -> None:
    document = show(invoke, "gpt-4oo", exit_code=1)

    assert document["known"] is False
    assert document["now"] is None
    assert document["reason"] == "'gpt-4oo' is not in openai's price list"
    assert document["nearest"][0] == "openai/gpt-4o"


def test_a_model_without_rates_at_a_date_exits_with_1(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "late.toml").write_text('[prices.late]\ninput = "1"\nfrom = 2026-06-01\n', encoding="utf-8")
    monkeypatch.setenv("AGENT_METER_PRICES", "late.toml")

    result = invoke("prices", "show", "late", "--at", "2026-05-01")

    assert result.exit_code == 1
    assert result.stderr == "late has no rates on 2026-05-01.\n"
    assert "none at this date" in result.stdout
    assert "from 2026-06-01" in result.stdout
    assert show(invoke, "late", "--at", "2026-05-01", exit_code=1)["now"] is None


def test_the_listing_agrees_with_the_price_book_model_by_model(invoke: Invoke, book: PriceBook) -> None:
    result = invoke("prices", "list", "--json", "--at", AT.isoformat())

    document = json.loads(result.stdout)
    compared = 0
    for row in document["models"]:
        rates = book.find(Model(row["provider"], row["model"]))
        pick = rates.pick(AT)
        if rates.model != row["model"] or pick is None or pick.notes:
            continue  # an id that the list does not answer to, or a model without rates
        compared += 1
        for word in ("input", "output"):
            rate = pick.card.rate(f"{word}_tokens")
            assert row[word] == (None if rate is None else catalog.plain(rate)), (row, word)
    assert document["source"] == book.price_list.source
    assert len(document["models"]) == sum(len(owner.models) for owner in book.price_list.providers.values())
    assert compared > 0.9 * len(document["models"])


def test_no_card_of_the_list_is_wider_than_80_columns(book: PriceBook) -> None:
    names = [f"{owner.id}/{model.id}" for owner in book.price_list.providers.values() for model in owner.models]
    busiest = sorted(names, key=lambda name: -sum(len(s.variants) + 1 for s in book.find(name).segments))[:40]
    console = Console(width=80, markup=False, emoji=False, highlight=False)
    for name in {*busiest, *sorted(names, key=len)[-10:], *names[::60]}:
        model = catalog.show(book, name, at=AT)
        with console.capture() as captured:
            for part in view.shown(model, name):
                console.print(part)

        lines = captured.get().splitlines()
        assert max(map(len, lines)) <= 80, name
        assert len(lines) < 120, name  # nothing squeezed into a column of single letters
