"""What real providers answered, priced: equal to a Decimal calculation, and never silently nothing."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import TieredPrices
from tests.corpus import conversations

from agent_meter.pricing import PriceBook
from agent_meter.records import Cost, CostStatus, FrozenMap, Model, TokenUsage

BOOK = PriceBook(discover=False)
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
LISTED = {provider.id: provider for provider in providers}


def calls() -> list[tuple[str, Model, TokenUsage, dict[str, str]]]:
    """Every recorded call whose usage the provider reported without contradicting itself."""
    found = []
    for document in conversations():
        for interaction, truth in zip(document["interactions"], document["truth"], strict=True):
            names = [truth["model"] or "", truth["model_requested"] or ""]
            if truth.get("ambiguous") or (truth["input_total"] is None and truth["output_total"] is None):
                continue
            # As the meter does: the model that answered, and the one that was asked for where that is not known.
            models = [Model(interaction["provider"], name) for name in names if name]
            if not models:
                continue
            model = next((m for m in models if BOOK.find(m).known), models[0])
            extra = truth.get("extra") or {}
            tier = extra.get("service_tier") or extra.get("serviceTier")
            units = {"web_searches": extra["web_search_requests"]} if extra.get("web_search_requests") else {}
            n = [
                truth.get(field) or 0
                for field in ("input_total", "output_total", "cache_read", "cache_write", "cache_write_1h", "reasoning",
                              "audio_in", "audio_out")
            ]  # fmt: skip
            usage = TokenUsage(*n, units=FrozenMap(units))
            context = {"service_tier": tier.lower()} if tier else {}
            found.append((document["id"], model, usage, context))
    return found


CALLS = calls()


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return BOOK


def by_decimal(book: PriceBook, model: Model, usage: TokenUsage, context: dict[str, str]) -> Decimal | None:
    """US$ by long multiplication over disjoint buckets, from the price list's own entry; `None` where corrected."""
    rates = book.find(model)
    if "corrections" in rates.source and any("corrections" in segment.source for segment in rates.segments):
        return None
    entry = next((m for m in LISTED[rates.provider].models if m.id == rates.model), None)
    if entry is None:  # borrowed from another provider's list
        entry = LISTED[rates.provider].find_model(rates.model, all_providers=providers)
        context = {}
    assert entry is not None
    price = entry.get_prices(AT, context or None)

    def rate(*keys: str) -> Decimal:
        for key in keys:
            value = getattr(price, key)
            if isinstance(value, TieredPrices):
                steps = [tier.price for tier in value.tiers if usage.input_tokens > tier.start]
                return steps[-1] if steps else value.base
            if value is not None:
                return value
        return Decimal(0)

    five_minutes = usage.cache_write_tokens - usage.cache_write_1h_tokens
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens - usage.input_audio_tokens
    text = usage.output_tokens - usage.reasoning_tokens - usage.output_audio_tokens
    with localcontext(Context(prec=50)):
        return (
            fresh * rate("input_mtok")
            + usage.cache_read_tokens * rate("cache_read_mtok", "input_mtok")
            + five_minutes * rate("cache_write_mtok", "input_mtok")
            + usage.cache_write_1h_tokens * rate("cache_write_1h_mtok", "cache_write_mtok", "input_mtok")
            + usage.input_audio_tokens * rate("input_audio_mtok", "input_mtok")
            + text * rate("output_mtok")
            + usage.reasoning_tokens * rate("output_reasoning_mtok", "output_mtok")
            + usage.output_audio_tokens * rate("output_audio_mtok", "output_mtok")
            + 1000 * usage.units.get("web_searches", 0) * rate("web_searches_kcount")
            + 1000 * rate("requests_kcount")
        ) / 10**6


def cost_of(book: PriceBook, model: Model, usage: TokenUsage, context: dict[str, str]) -> Cost:
    return book.find(model).price(usage, AT, context)


def test_every_priceable_call_costs_what_decimal_arithmetic_says(book: PriceBook) -> None:
    compared = 0
    for where, model, usage, context in CALLS:
        cost = cost_of(book, model, usage, context)
        if cost.list_pico is None or cost.status is CostStatus.FREE:
            continue
        expected = by_decimal(book, model, usage, context)
        if expected is not None:
            assert cost.amount == expected, (where, model, usage, context, cost)
            compared += 1
    assert compared > 200


def test_nothing_with_tokens_costs_nothing_unless_it_is_free_or_included(book: PriceBook) -> None:
    for where, model, usage, context in CALLS:
        cost = cost_of(book, model, usage, context)
        if usage.total_tokens and cost.list_pico == 0:
            assert cost.status in (CostStatus.FREE, CostStatus.INCLUDED), (where, model, cost)


def test_what_has_no_price_says_why(book: PriceBook) -> None:
    for where, model, usage, context in CALLS:
        cost = cost_of(book, model, usage, context)
        if cost.list_pico is None:
            assert cost.reason, (where, model)


def test_most_recorded_calls_have_a_price(book: PriceBook) -> None:
    counts = Counter(cost_of(book, *call[1:]).status for call in CALLS)

    assert counts[CostStatus.UNPRICED] / len(CALLS) < 0.1, counts


def coverage(book: PriceBook) -> dict[str, Counter[Any]]:
    """Calls by provider and status, for the table in the documentation."""
    table: dict[str, Counter[Any]] = {}
    for _, model, usage, context in CALLS:
        table.setdefault(model.provider, Counter())[cost_of(book, model, usage, context).status] += 1
    return table
