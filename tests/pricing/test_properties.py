"""What must hold for any usage of any listed model."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import ROUND_UP, Context, Decimal, setcontext

import pytest
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.pricing import Rates
from agent_meter.pricing.genai import segments_of
from agent_meter.pricing.units import FIELD_UNITS
from agent_meter.records import TOKEN_CLASSES, CostStatus, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
ALL = [Rates(segments_of(m, p), provider=p.id, model=m.id) for p in providers for m in p.models]
SOME = random.Random(4).sample([rates for rates in ALL if rates.known], 150)

counts = st.integers(0, 60_000)
listed = st.sampled_from(SOME)


def usage_of(parts: tuple[int, ...]) -> TokenUsage:
    """Parts that fit their wholes."""
    text, read, five, hour, audio_in, image_in, said, thought, audio_out = parts
    return TokenUsage(
        text + read + five + hour + audio_in + image_in, said + thought + audio_out, read, five + hour, hour, thought,
        audio_in, audio_out, image_in,
    )  # fmt: skip


usages = st.tuples(*[counts] * 9).map(usage_of)


@settings(deadline=None)
@given(listed, usages, usages)
def test_cost_is_additive_over_calls_within_a_tier(rates: Rates, one: TokenUsage, two: TokenUsage) -> None:
    card = rates.card
    assert card is not None
    both = one + two
    if card.first_tier < both.input_tokens or "requests" in card.prices or not card.plan.exact:
        return  # a larger call is dearer, a call has a fee of its own, or each call rounds once
    if card.joined and (both.cache_read_tokens and (both.input_audio_tokens or both.input_image_tokens)):
        return  # how much of the audio was cached is inferred, differently for a sum

    parts = [rates.price(usage, AT).list_pico or 0 for usage in (one, two)]

    assert (rates.price(both, AT).list_pico or 0) == sum(parts)


GROWTH = [
    ("input_tokens",),
    ("output_tokens",),
    ("input_tokens", "cache_read_tokens"),
    ("input_tokens", "cache_write_tokens"),
    ("input_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    ("input_tokens", "input_audio_tokens"),
    ("input_tokens", "input_image_tokens"),
    ("output_tokens", "reasoning_tokens"),
    ("output_tokens", "output_audio_tokens"),
]


@settings(deadline=None)
@given(listed, usages, st.sampled_from(GROWTH), st.integers(1, 10_000))
def test_cost_never_falls_when_a_count_and_what_contains_it_grow(
    rates: Rates, usage: TokenUsage, fields: tuple[str, ...], more: int
) -> None:
    grown = TokenUsage(*[getattr(usage, name) + (more if name in fields else 0) for name in TOKEN_CLASSES])

    before, after = (rates.price(u, AT).list_pico for u in (usage, grown))

    assert (after or 0) >= (before or 0)


@settings(deadline=None)
@given(listed, usages)
def test_the_process_decimal_context_decides_nothing(rates: Rates, usage: TokenUsage) -> None:
    expected = rates.price(usage, AT)
    try:
        setcontext(Context(prec=1, rounding=ROUND_UP))
        fresh = Rates(rates.segments, provider=rates.provider, model=rates.model)
        got = fresh.price(usage, AT)
        lines = fresh.lines(usage, AT)
    finally:
        setcontext(Context(prec=28))

    assert got == expected
    assert sum(line.pico for line in lines) == (expected.list_pico or 0)


@settings(deadline=None)
@given(listed, usages, st.dictionaries(st.sampled_from(["web_searches", "code_executions", "seconds"]), counts))
def test_nothing_that_was_used_costs_nothing_unless_it_is_free(
    rates: Rates, usage: TokenUsage, units: dict[str, int]
) -> None:
    cost = rates.price(TokenUsage(*[getattr(usage, name) for name in TOKEN_CLASSES], units=units), AT)

    if cost.list_pico == 0 and (usage.total_tokens or any(units.values())):
        assert cost.status in (CostStatus.FREE, CostStatus.INCLUDED), cost


@settings(deadline=None)
@given(listed, st.lists(st.integers(-1000, 60_000), min_size=10, max_size=10))
def test_a_usage_that_makes_no_sense_is_still_priced_and_marked(rates: Rates, values: list[int]) -> None:
    usage = TokenUsage(*values)

    cost = rates.price(usage, AT)

    assert cost.list_pico is None or cost.list_pico >= 0
    if usage.problems and cost.status is CostStatus.PRICED:
        pytest.fail(f"{usage.problems} went unsaid: {cost}")


def test_the_fields_of_a_usage_are_the_units_that_cards_price() -> None:
    assert len(FIELD_UNITS) == len(TOKEN_CLASSES) == 10
    assert [field for field, unit in zip(TOKEN_CLASSES, FIELD_UNITS, strict=True) if field != unit] == [
        "reasoning_tokens"
    ]
    assert Decimal(len(ALL)) > 2000
