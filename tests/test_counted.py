"""What is no count never raises, and never gets into a sum."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from agent_meter import Meter, TokenUsage
from agent_meter.counted import CLASSES, counted

NO_COUNTS = [None, "12", "", b"1", 1.5, math.nan, math.inf, {}, [], object(), Fraction(1, 2)]


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("name", CLASSES)
def test_what_is_no_count_is_missing_and_harms_no_sum(name: str, value: Any) -> None:
    meter = Meter()
    told = meter.record_usage(model="gpt-4o", provider="openai", **{"input_tokens": 5, "output_tokens": 7, name: value})
    with meter.llm("gpt-4o", provider="openai") as call:
        call.finish(TokenUsage(**{"input_tokens": 5, "output_tokens": 7, name: value}))
    first, second = meter.history()

    assert first.estimated
    assert second.estimated
    assert told.usage is not None
    assert name in told.usage.missing
    assert meter.usage.total_tokens == sum({"input_tokens": 10, "output_tokens": 14, name: 0}.values())
    assert meter.health()["ok"]


def test_whole_numbers_of_any_type_count() -> None:
    assert counted(TokenUsage(3.0, True)) == TokenUsage(3, 1)  # type: ignore[arg-type]


def test_counts_are_taken_as_they_are() -> None:
    usage = TokenUsage(3, 1)

    assert counted(usage) is usage


@pytest.mark.parametrize("model", [None, {}, 5, math.nan])
def test_a_model_that_is_no_name_is_unpriced(model: Any) -> None:
    assert Meter().record_usage(model=model, input_tokens=1).cost_usd is None
