"""Rate cards: what a usage costs, to the pico-dollar, and what a card's identity is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, getcontext, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.pricing import Price, PriceError, RateCard, Rates
from agent_meter.pricing.schedule import Segment, Window
from agent_meter.records import CostStatus, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SONNET = Rates.per_million(
    "3", "15", cache_read="0.3", cache_write="3.75", cache_write_1h="6", fees={"web_searches": "0.01"}
)
TIERED = {
    "input_tokens": Price(Decimal("1.25"), ((200_000, Decimal("2.5")),)),
    "output_tokens": Price(Decimal("10"), ((200_000, Decimal("15")),)),
}


def rates_of(card: RateCard) -> Rates:
    return Rates((Segment(card),), model="m")


def pico(rates: Rates, usage: TokenUsage) -> int | None:
    return rates.price(usage, AT).list_pico


# ------------------------------------------------------------------------------------------- arithmetic


def test_each_token_is_billed_once_at_the_rate_of_its_own_class() -> None:
    usage = TokenUsage(
        input_tokens=7100,
        output_tokens=500,
        cache_read_tokens=5000,
        cache_write_tokens=2000,
        cache_write_1h_tokens=500,
        reasoning_tokens=200,
        units={"web_searches": 2},
    )

    cost = SONNET.price(usage, AT)

    by_hand = 100 * Decimal("3") + 5000 * Decimal("0.3") + 1500 * Decimal("3.75") + 500 * Decimal("6")
    assert cost.input_pico == by_hand * 10**6
    assert cost.output_pico == 500 * 15 * 10**6
    assert cost.list_pico == cost.input_pico + cost.output_pico + 2 * 10**10
    assert (cost.status, cost.billed_pico) == (CostStatus.PRICED, cost.list_pico)


@pytest.mark.parametrize(("size", "expected"), [(200_000, "0.25"), (200_001, "0.5000025")])
def test_a_tier_prices_all_tokens_of_a_call_that_crosses_it(size: int, expected: str) -> None:
    assert rates_of(RateCard(TIERED)).price(TokenUsage(size), AT).amount == Decimal(expected)


def test_a_rate_finer_than_a_pico_dollar_a_token_is_rounded_half_even_once_a_line() -> None:
    rates = Rates.per_million("0.0000005", "0.0000015")  # half a pico-dollar, one and a half

    assert [pico(rates, TokenUsage(n)) for n in (1, 2, 3, 5)] == [0, 1, 2, 2]
    assert pico(rates, TokenUsage(3, 1)) == 2 + 2


def test_seconds_pages_and_characters_are_billed_by_the_piece() -> None:
    rates = Rates.per_million(fees={"seconds": "0.0001", "pages": "0.002", "characters": "0.000015"})

    cost = rates.price(TokenUsage(units={"input_audio_seconds": Decimal("12.5"), "pages": 3, "characters": 100}), AT)

    assert cost.amount == Decimal("0.00125") + Decimal("0.006") + Decimal("0.0015")


def test_a_unit_of_ones_own_is_priced_by_the_piece() -> None:
    rates = Rates.per_million("1", "2", fees={"credits": "0.25"})

    assert rates.price(TokenUsage(0, 0, units={"credits": 3}), AT).amount == Decimal("0.75")


def test_the_process_decimal_context_changes_nothing() -> None:
    usage = TokenUsage(123_457, 6_789, 12_345, units={"web_searches": 1})
    expected = SONNET.price(usage, AT)

    with localcontext() as context:
        context.prec = 2
        narrow = Rates.per_million("3", "15", cache_read="0.3", cache_write="3.75", fees={"web_searches": "0.01"})
        got = narrow.price(usage, AT)
        blended = narrow.blended_per_1k

    assert (got.list_pico, blended) == (expected.list_pico, Decimal("0.009"))
    assert getcontext().prec == 28


def test_what_cohere_bills_goes_before_what_it_processed() -> None:
    rates = Rates.per_million("1", "2")

    cost = rates.price(TokenUsage(500, 100, units={"billed_input_tokens": 7, "billed_output_tokens": 20}), AT)

    assert cost.list_pico == (7 + 40) * 10**6


counts = st.integers(0, 300_000)


@settings(deadline=None)
@given(
    st.tuples(*[counts] * 6),
    st.sampled_from([SONNET, Rates.per_million("0.5", "1.5"), rates_of(RateCard(TIERED)), Rates.per_1k("0.002")]),
    st.integers(0, 3),
)
def test_the_quick_path_and_the_bill_agree(parts: tuple[int, ...], rates: Rates, searches: int) -> None:
    fresh, read, five, hour, text, thought = parts
    units = {"web_searches": searches} if searches and "web_searches" in rates.segments[0].card.prices else {}
    usage = TokenUsage(fresh + read + five + hour, text + thought, read, five + hour, hour, thought, units=units)

    lines = rates.lines(usage, AT)

    cost = rates.price(usage, AT)
    assert cost.list_pico == sum(line.pico for line in lines)
    assert cost.input_pico == sum(line.pico for line in lines if line.direction == "input")
    assert cost.output_pico == sum(line.pico for line in lines if line.direction == "output")


def test_a_bill_has_one_line_a_unit_whose_price_times_quantity_is_its_cost() -> None:
    lines = SONNET.lines(TokenUsage(3000, 10, 1000, units={"web_searches": 2}), AT)

    assert {(line.unit, line.quantity) for line in lines} == {
        ("input_tokens", 2000), ("cache_read_tokens", 1000), ("output_tokens", 10), ("web_searches", 2),
    }  # fmt: skip
    for line in lines:
        assert line.usd * line.quantity / line.per * 10**12 == line.pico


# -------------------------------------------------------------------------- usage that cannot be trusted


@pytest.mark.parametrize(
    ("usage", "expected", "note"),
    [
        (
            TokenUsage(300, 10, cache_read_tokens=500),
            500 * 300_000 + 150 * 10**6,
            "cache_read_tokens exceed input_tokens",
        ),
        (TokenUsage(100, 10, cache_write_tokens=50, cache_write_1h_tokens=80), None, "cache_write_1h_tokens exceed"),
        (TokenUsage(0, 10, cache_read_tokens=500), 500 * 300_000 + 150 * 10**6, "cache_read_tokens"),
        (TokenUsage(-5, 10), 150 * 10**6, "input_tokens -5 is not a count"),
        (TokenUsage(5, 10, units={"web_searches": -1}), 15 * 10**6 + 150 * 10**6, "web_searches -1"),
        (TokenUsage(5, 10, missing=("cache_read_tokens",)), 15 * 10**6 + 150 * 10**6, "cache_read_tokens not seen"),
        (TokenUsage(5, 0, missing=("output_tokens",)), 15 * 10**6, "output_tokens not seen"),
        (TokenUsage(5, 10, reasoning_tokens=20), 15 * 10**6 + 150 * 10**6, "reasoning_tokens 20 > output_tokens 10"),
    ],
)
def test_usage_that_contradicts_itself_is_estimated_and_says_what_was_assumed(
    usage: TokenUsage, expected: int | None, note: str
) -> None:
    cost = SONNET.price(usage, AT)

    assert cost.status is CostStatus.ESTIMATED
    assert any(note in assumption for assumption in cost.assumptions), cost.assumptions
    assert cost.list_pico is not None
    assert expected in (None, cost.list_pico)


odd = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(allow_nan=True), st.none(), st.booleans(), st.text(max_size=3),
    st.decimals(allow_nan=True),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(odd, min_size=10, max_size=10), st.dictionaries(st.text(max_size=5), odd, max_size=2))
def test_no_usage_whatever_raises(values: list[Any], units: dict[str, Any]) -> None:
    for rates in (SONNET, rates_of(RateCard(TIERED)), Rates.unknown("nobody knows"), Rates.free_of_charge("local")):
        cost = rates.price(TokenUsage(*values, units=units), AT)

        assert cost.list_pico is None or (type(cost.list_pico) is int and cost.list_pico >= 0), cost


def test_counts_that_are_whole_floats_are_priced_like_integers() -> None:
    cost = SONNET.price(TokenUsage(1000.0, 500.0), AT)  # type: ignore[arg-type]

    assert cost.list_pico == SONNET.price(TokenUsage(1000, 500), AT).list_pico
    assert type(cost.list_pico) is int


def test_a_class_that_is_not_billed_apart_may_be_unseen() -> None:
    cost = Rates.per_million("1", "2").price(TokenUsage(5, 10, missing=("reasoning_tokens",)), AT)

    assert cost.status is CostStatus.PRICED


def test_a_usage_of_which_nothing_was_seen_has_no_price() -> None:
    cost = SONNET.price(TokenUsage(missing=("input_tokens", "output_tokens")), AT)

    assert (cost.status, cost.list_pico) == (CostStatus.UNPRICED, None)
    assert cost.reason == "input_tokens, output_tokens not seen"


def test_a_naive_time_means_utc() -> None:
    assert SONNET.price(TokenUsage(5), datetime(2026, 1, 1)).list_pico == 15 * 10**6  # noqa: DTZ001


# ----------------------------------------------------------------------------------- never silently nothing


def test_a_unit_without_a_rate_makes_the_amount_a_lower_bound() -> None:
    cost = Rates.per_million("1", "2").price(TokenUsage(10, 0, units={"code_executions": 1}), AT)

    assert (cost.status, cost.missing, cost.list_pico) == (CostStatus.PARTIAL, ("code_executions",), 10**7)
    assert str(cost).startswith("≥ ")


def test_tokens_on_a_model_that_is_priced_otherwise_are_not_free() -> None:
    cost = Rates.per_million(fees={"seconds": "0.0001"}).price(TokenUsage(10, 10), AT)

    assert (cost.status, cost.list_pico, cost.missing) == (CostStatus.UNPRICED, None, ("input_tokens", "output_tokens"))
    assert cost.reason == "no rate for input_tokens, output_tokens"


def test_audio_at_the_text_rate_is_an_estimate_and_images_are_not() -> None:
    rates = Rates.per_million("2.5", "10")

    audio = rates.price(TokenUsage(10, 10, input_audio_tokens=5), AT)
    image = rates.price(TokenUsage(10, 10, input_image_tokens=5), AT)

    assert (audio.status, audio.assumptions) == (
        CostStatus.ESTIMATED, ("input_audio_tokens at the rate of input_tokens",)
    )  # fmt: skip
    assert image.status is CostStatus.PRICED


def test_an_hours_cache_at_the_five_minute_rate_is_an_estimate() -> None:
    cost = Rates.per_million("1", "2", cache_write="1.25").price(TokenUsage(10, 1, 0, 10, 10), AT)

    assert cost.assumptions == ("cache_write_1h_tokens at the rate of cache_write_tokens",)


def test_cached_audio_is_taken_as_text_until_no_text_is_left() -> None:
    """Gemini reports audio and cache without saying how much audio was cached; genai-prices raises there."""
    card = RateCard(
        {
            "input_tokens": Price(Decimal("0.3")), "output_tokens": Price(Decimal("2.5")),
            "cache_read_tokens": Price(Decimal("0.03")), "input_audio_tokens": Price(Decimal("1")),
            "cache_audio_read_tokens": Price(Decimal("0.1")),
        }
    )  # fmt: skip

    cost = rates_of(card).price(TokenUsage(1000, 0, 500, input_audio_tokens=800), AT)

    # 200 of text, all of it cached; 300 of the 800 of audio must have been.
    assert cost.list_pico == 200 * 30_000 + 300 * 100_000 + 500 * 10**6
    assert cost.status is CostStatus.ESTIMATED


def test_a_zero_rate_is_free_and_an_empty_card_is_not() -> None:
    zero = Rates.per_million("0", "0").price(TokenUsage(10, 10), AT)
    empty = rates_of(RateCard({})).price(TokenUsage(10, 10), AT)

    assert (zero.status, zero.list_pico) == (CostStatus.FREE, 0)
    assert (empty.status, empty.list_pico) == (CostStatus.UNPRICED, None)


def test_a_providers_own_figure_is_kept_and_is_the_price_only_if_asked() -> None:
    usage = TokenUsage(10, 10, reported_pico=777)

    kept = SONNET.price(usage, AT)
    asked = SONNET.replace(reported_first=True).price(usage, AT)
    silent = SONNET.replace(reported_first=True).price(TokenUsage(10, 10), AT)

    assert (kept.status, kept.reported_pico) == (CostStatus.PRICED, 777)
    assert kept.list_pico != 777
    assert (asked.status, asked.list_pico, asked.reported_pico) == (CostStatus.REPORTED, 777, 777)
    assert silent.list_pico == kept.list_pico


# --------------------------------------------------------------------------------------------- identity


def test_equal_rates_make_equal_cards_however_they_are_written() -> None:
    one = RateCard({"input_tokens": Price(Decimal("2.50")), "output_tokens": Price(Decimal("1E+1"))})
    two = RateCard({"output_tokens": Price(Decimal("10")), "input_tokens": Price(Decimal("2.5"))})

    assert one == two
    assert one.card_id == two.card_id
    assert len(one.card_id) == 12


def test_another_rate_tier_or_unit_makes_another_card() -> None:
    cards = [
        RateCard(TIERED),
        RateCard({**TIERED, "input_tokens": Price(Decimal("1.25"))}),
        RateCard({**TIERED, "web_searches": Price(Decimal("10"))}),
        RateCard({}, free=True),
        RateCard({}, included=True),
        RateCard({}),
    ]

    assert len({card.card_id for card in cards}) == len(cards)


def test_a_stored_card_prices_again_without_any_price_list() -> None:
    card = RateCard({**TIERED, "audio_seconds": Price(Decimal("0.04"))}, minimums={"audio_seconds": 10})
    usage = TokenUsage(250_000, 10, units={"audio_seconds": 3})

    again = RateCard.from_json(card.canonical)

    assert again == card
    assert rates_of(again).price(usage, AT) == rates_of(card).price(usage, AT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"units":{"input_tokens":{"usd":"x","per":1000000}}}'])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(PriceError, match="not a rate card"):
        RateCard.from_json(text)


def test_a_card_of_another_scale_is_refused() -> None:
    with pytest.raises(PriceError, match="priced per 1,000,000, the card says 1,000"):
        RateCard.from_json('{"units":{"input_tokens":{"usd":"1","per":1000}}}')


# ----------------------------------------------------------------------------------------------- Rates


def test_rates_are_read_per_million_and_blended_per_thousand() -> None:
    assert (SONNET.input, SONNET.output, SONNET.cache_read, SONNET.reasoning) == tuple(
        map(Decimal, ("3", "15", "0.3", "15"))
    )
    assert SONNET.blended_per_1k == Decimal("0.009")
    assert Rates.per_1k("0.002").blended_per_1k == Decimal("0.002")
    assert Rates.per_1k(0.002).price(TokenUsage(1000, 1000), AT).amount == Decimal("0.004")


@pytest.mark.parametrize("bad", ["", "x", "-1", "NaN", "inf", True, None, object()])
def test_what_is_no_amount_is_refused(bad: Any) -> None:
    with pytest.raises(PriceError):
        Rates.per_million(bad)


def test_a_floats_shortest_form_is_its_value() -> None:
    assert Rates.per_million(0.1, 0.3).output == Decimal("0.3")


def test_a_price_that_changes_is_the_one_of_the_moment_whatever_was_asked_before() -> None:
    change = datetime(2026, 1, 1, tzinfo=UTC)
    old, new = (RateCard({"input_tokens": Price(Decimal(price))}) for price in ("1", "2"))
    rates = Rates((Segment(old, Window(end=change)), Segment(new, Window(start=change))), model="m")
    moment = timedelta(microseconds=1)
    usage = TokenUsage(1_000_000, 0)

    prices = [rates.price(usage, at).list_pico for at in (change - moment, change, change - moment, change + moment)]
    naive = rates.price(usage, datetime(2025, 6, 1)).list_pico  # noqa: DTZ001 - naive means UTC

    assert prices == [prices[0], 2 * (prices[0] or 0)] * 2
    assert naive == prices[0]
