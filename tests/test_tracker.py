"""UsageTracker: a meter by the words of the seed documents."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agent_meter import Meter, TokenUsage, UnknownModel, UsageTracker


@pytest.fixture
def tracker() -> UsageTracker:
    return UsageTracker()


def test_a_tracker_is_a_view_of_a_meter_and_keeps_nothing_itself() -> None:
    meter = Meter()
    tracker = UsageTracker(meter)
    meter.record_usage(model="gpt-4o", input_tokens=100)
    tracker.record_usage(input_tokens=100, output_tokens=50, model="gpt-4o")

    assert tracker.get_summary() == meter.usage
    assert tracker.get_history() == meter.history()
    assert (tracker.get_summary().total_tokens, meter.usage.requests) == (250, 2)
    tracker.reset()
    assert (meter.usage.total_tokens, tracker.get_history()) == (0, [])


@pytest.mark.parametrize(
    "usage",
    [
        SimpleNamespace(input_tokens=100, output_tokens=50, cache_read_tokens=64, details={"reasoning_tokens": 8}),
        SimpleNamespace(request_tokens=100, response_tokens=50, cache_read_tokens=64, reasoning_tokens=8, details=None),
        SimpleNamespace(prompt_tokens=100, completion_tokens=50, cache_read_tokens=64, reasoning_tokens=8),
        TokenUsage(100, 50, cache_read_tokens=64, reasoning_tokens=8),
    ],
)
def test_usage_objects_of_other_libraries_are_read(usage: Any, tracker: UsageTracker) -> None:
    record = tracker.record_usage(usage, "gpt-4o", "search")

    assert record.usage == TokenUsage(100, 50, cache_read_tokens=64, reasoning_tokens=8)
    assert (record.model, record.tool_name) == ("gpt-4o", "search")


def test_a_token_usage_is_recorded_with_everything_in_it(tracker: UsageTracker) -> None:
    usage = TokenUsage(1, 2, units={"web_searches": 3}, missing=("reasoning_tokens",), reported_pico=5)

    assert tracker.record_usage(usage, "gpt-4o").usage == usage


def test_what_is_no_usage_object_is_refused(tracker: UsageTracker) -> None:
    with pytest.raises(TypeError, match="not a usage object: 'text'"):
        tracker.record_usage("text")


def test_plain_numbers_and_the_old_names(tracker: UsageTracker) -> None:
    tracker.record_raw(100, 50, "gpt-4o", "search")
    tracker.record_raw(10, 5)

    assert tracker.get_total_usage().total_tokens == 165
    assert [record.model for record in tracker.get_usage_history()] == ["gpt-4o", ""]
    assert {tool: usage.total_tokens for tool, usage in tracker.get_breakdown_by_tool().items()} == {
        "search": 150,
        "_agent": 15,
    }


def test_whose_a_request_was_may_be_said(tracker: UsageTracker) -> None:
    tracker.record_usage(input_tokens=1, model="gpt-4o", provider="openai", user="ada", reasoning_tokens=0)

    assert tracker.meter.usage_by("user")["ada"].requests == 1


def test_an_estimate_is_the_list_price_by_each_requests_own_model(tracker: UsageTracker) -> None:
    assert tracker.get_cost_estimate() == 0
    tracker.record_usage(input_tokens=1000, output_tokens=500, model="gpt-4o")
    tracker.record_usage(input_tokens=1000, output_tokens=500, model="gpt-4o-mini")

    assert tracker.get_cost_estimate() == Decimal("0.0075") + Decimal("0.00045")
    assert tracker.get_cost_estimate("gpt-4o") == Decimal("0.015")


def test_an_estimate_that_cannot_be_known_is_no_number(tracker: UsageTracker) -> None:
    tracker.record_usage(input_tokens=1000, model="gpt-4o")
    tracker.record_usage(input_tokens=1000, model="zz-unpriced")

    with pytest.raises(UnknownModel, match="1 of 2 requests have no full price"):
        tracker.get_cost_estimate()
    with pytest.raises(UnknownModel, match="no price for 'zz-unpriced'"):
        tracker.get_cost_estimate("zz-unpriced")
    assert tracker.get_cost_estimate("gpt-4o") == Decimal("0.005")


def test_an_estimate_for_another_model_needs_every_request() -> None:
    tracker = UsageTracker(Meter(keep=2))
    for _ in range(3):
        tracker.record_usage(input_tokens=1000, model="gpt-4o")

    assert tracker.get_cost_estimate() == Decimal("0.0075")
    with pytest.raises(ValueError, match="the history holds 2 of 3 requests"):
        tracker.get_cost_estimate("gpt-4o-mini")


def test_rates_may_be_given_for_1000_tokens() -> None:
    tracker = UsageTracker(cost_rates={"my-model": 0.002})
    tracker.record_usage(input_tokens=1000, output_tokens=500, model="my-model")

    assert tracker.get_cost_estimate() == Decimal("0.003")
    with pytest.raises(TypeError, match="give them to Meter"):
        UsageTracker(Meter(), cost_rates={"my-model": 0.002})
