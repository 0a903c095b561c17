"""Prices checked by hand against dated sources, which the data file names."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_meter.pricing import PriceBook
from agent_meter.records import Model, TokenUsage, dollars

SOURCES = tomllib.loads(Path(__file__).with_name("golden.toml").read_text(encoding="utf-8"))["source"]
ROWS = [(source["name"], row) for source in SOURCES for row in source["prices"]]
WORDS = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "output_audio",
    "output_image",
)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(discover=False)


def moment(row: dict[str, Any]) -> datetime:
    at = row.get("at", datetime(2026, 11, 21, 12, tzinfo=UTC))
    if isinstance(at, date) and not isinstance(at, datetime):
        at = datetime.combine(at, time(12), UTC)
    return at


@pytest.mark.parametrize(("source", "row"), ROWS, ids=lambda v: v["model"] if isinstance(v, dict) else "")
def test_a_price_is_what_its_source_says(book: PriceBook, source: str, row: dict[str, Any]) -> None:
    rates = book.find(Model("", row["model"]))
    price = {word: Decimal(row[word]) for word in WORDS if word in row}
    context = row.get("context", {})
    if "fee" in row:
        usage = TokenUsage(units={row["fee"]: 7})
        expected = 7 * Decimal(row["each"])
    else:
        # 1,000 tokens of each class that the source prices, and input to fill up the size that it names.
        n = dict.fromkeys(price, 1000)
        parts = sum(n.get(word, 0) for word in ("cache_read", "cache_write", "input_audio", "cache_write_1h"))
        whole = max(row.get("input_tokens", 0), parts + n.get("input", 0))
        usage = TokenUsage(
            whole, n.get("output", 0) + n.get("output_audio", 0) + n.get("output_image", 0), n.get("cache_read", 0),
            n.get("cache_write", 0) + n.get("cache_write_1h", 0), n.get("cache_write_1h", 0), 0,
            n.get("input_audio", 0), n.get("output_audio", 0), 0, n.get("output_image", 0),
        )  # fmt: skip
        n["input"] = whole - parts
        expected = sum(((Decimal(n[word]) * price[word]) for word in price), Decimal(0)) / 10**6

    cost = rates.price(usage, moment(row), context)

    assert cost.list_pico is not None, (source, row, rates)
    assert dollars(cost.list_pico) == expected, (source, row, cost)


def test_there_are_at_least_sixty_of_them() -> None:
    assert (
        len({(row["model"], row.get("at"), row.get("input_tokens"), str(row.get("context"))) for _, row in ROWS}) >= 60
    )


def test_every_source_says_what_it_is_and_when_it_was_read() -> None:
    for source in SOURCES:
        assert source["name"], source
        assert source["of"], source
        assert isinstance(source["read"], date), source
