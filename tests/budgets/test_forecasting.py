"""Where budgets end up: from memory, and from a ledger that outlived the process."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from agent_meter import Budget, BudgetError, Meter
from agent_meter.budgets.forecasting import exceeding
from agent_meter.testing import FakeClock

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
BUDGETS = [
    Budget("month", usd=30, per="month"),
    Budget("each", tokens=2_000_000, per="week", agent="*"),
    Budget("ever", usd=53.5, per="total"),
    Budget("rolling", requests=100, per="rolling 2d"),
    Budget("run", usd=1, per="run"),
]


def busy(hour):
    return 8 <= hour % 24 < 18


def worked(meter, clock, hours, agent="a"):
    """Ten thousand tokens, $0.025, in each working hour."""
    for hour in range(hours):
        if busy(hour):
            meter.record_usage(model="gpt-4o", provider="openai", input_tokens=10_000, agent=agent)
        clock.advance(3600)


@pytest.fixture(params=["memory", "sqlite"])
def meter(request, tmp_path):
    """Two weeks of work, then the program starts anew where it has a store."""
    clock = FakeClock(MONDAY)
    store = {"memory": None, "sqlite": tmp_path / "meter.db"}[request.param]
    made = Meter(clock=clock, store=store, budgets=BUDGETS)
    worked(made, clock, 14 * 24)
    if store is not None:
        made.shutdown()
        made = Meter(clock=clock, store=store, budgets=BUDGETS)
    yield made
    made.shutdown()


def test_a_month_of_steady_work_is_foreseen(meter):
    found = meter.budgets.forecast("month")
    expected = Decimal("0.25") * 31  # $0.25 a day from 2 March on would be 30 days; the first of March was quiet

    assert found.used == Decimal("0.25") * 14
    assert abs(found.expected - expected) < Decimal("0.5")
    assert found.low < found.expected < found.high
    assert (found.until, found.exceeds) == (datetime(2026, 4, 1, tzinfo=UTC), False)
    assert found.unit == "usd"


def test_each_counter_of_a_budget_for_each_has_a_forecast_of_its_own(meter):
    for _ in range(5):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=500_000, agent="b")
    found = {one.scope: one for one in meter.budgets.forecast() if one.name == "each"}

    assert set(found) >= {"agent=b"}
    assert found["agent=b"].exceeds
    assert found["agent=b"].exhausted_at == meter.now()
    assert "used up already" in str(found["agent=b"])


def test_a_limit_without_a_window_says_when_it_is_reached(meter):
    found = meter.budgets.forecast("ever")

    assert found.until is None
    assert found.expected == found.used
    assert found.exhausted_at is not None
    assert abs((found.exhausted_at - meter.now()) / timedelta(days=1) - 200) < 5  # $50 at $0.25 a day


def test_a_rolling_window_is_foreseen_over_its_length(meter):
    found = meter.budgets.forecast("rolling")

    assert found.until == meter.now() + timedelta(days=2)
    assert 18 <= found.expected <= 22  # ten calls a day
    assert not found.exceeds


def test_a_ledger_on_a_server_is_asked_for_the_hours_of_every_process(postgres_url):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with Meter(store=postgres_url) as other:
        for back in range(48):
            other.record_usage(
                model="gpt-4o",
                provider="openai",
                input_tokens=1_000,
                agent="a",
                started_at=hour - timedelta(hours=back),
            )
    with Meter(store=postgres_url, budgets=[Budget("year", tokens=10**9, per="year", agent="a")]) as meter:
        found = meter.budgets.forecast("year")

        assert (found.used, found.unit) == (0, "tokens")  # the budget is newer than what was used
        assert found.history_hours == 47
        left = (found.until - datetime.now(UTC)) / timedelta(hours=1)
        assert 0.9 < found.expected / (left * 1_000) < 1.1


def test_a_run_ends_too_soon_to_be_foreseen(meter):
    assert "run" not in {one.name for one in meter.budgets.forecast()}


def test_the_whole_meter_is_foreseen_by_agent_and_measure(meter):
    week = meter.forecast("week", "requests")
    nobody = meter.forecast("month", "tokens", agent="nobody")

    assert 65 <= week.expected <= 75  # the week begins now: seventy calls are usual
    assert (nobody.used, nobody.expected) == (0, 0)


def test_exceeding_picks_those_that_will_not_last():
    clock = FakeClock(MONDAY)
    meter = Meter(clock=clock, budgets=[Budget("tight", usd="0.30", per="week"), Budget("wide", usd=30, per="week")])
    worked(meter, clock, 24)

    found = meter.budgets.forecast()

    assert [one.name for one in exceeding(found)] == ["tight"]
    assert found[0].exhausted_at.date() == date(2026, 3, 3)


def test_without_hours_the_window_so_far_is_all_that_is_known():
    """What tools use is not kept by the hour: then the interval is wide."""
    clock = FakeClock(MONDAY)
    meter = Meter(clock=clock, budgets=[Budget("search", requests=100, per="day", tool="search")])
    for _ in range(12):
        clock.advance(3600)
        meter.record_tool_call("search", True, 0.1, {})

    found = meter.budgets.forecast("search")

    assert (found.used, found.history_hours) == (12, 1)
    assert 20 <= found.expected <= 28
    assert found.high - found.low > 10


def test_unpriced_calls_make_the_amount_a_lower_bound():
    clock = FakeClock(MONDAY)
    meter = Meter(clock=clock, budgets=[Budget("month", usd=3, per="month", on_unpriced="allow")])
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1000)
    meter.record_usage(model="acme-1", provider="acme", input_tokens=1000)
    clock.advance(7200)

    found = meter.budgets.forecast("month")

    assert found.unpriced == 1
    assert "≥" in str(found)
    assert meter.forecast("month").unpriced == 1


def test_a_budget_by_model_or_tag_takes_the_hours_of_its_calls():
    clock = FakeClock(MONDAY)
    meter = Meter(
        clock=clock,
        budgets=[
            Budget("mini", tokens=10**6, per="week", model="openai/gpt-4o-mini"),
            Budget("red", tokens=10**6, per="week", team="red"),
            Budget("unseen", tokens=10**6, per="week", colour="blue"),
        ],
    )
    for hour in range(48):
        meter.record_usage(model="gpt-4o-mini", provider="openai", input_tokens=100, team="red")
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=9_000 + hour)
        clock.advance(3600)

    mini, red, unseen = meter.budgets.forecast()

    assert (mini.used, red.used, unseen.used) == (4_800, 4_800, 0)
    assert mini.expected == red.expected == 16_800  # 100 an hour, 168 hours a week
    assert unseen.expected == 0


@pytest.mark.parametrize(("per", "measure", "message"), [("fortnight", "usd", "per is"), ("day", "joules", "measure")])
def test_what_cannot_be_foreseen_is_an_error(per, measure, message):
    with pytest.raises(ValueError, match=message):
        Meter().forecast(per, measure)


def test_a_budget_that_is_not_there_is_an_error():
    with pytest.raises(BudgetError, match="no budget 'reserch'; did you mean 'research'"):
        Meter(budgets=[Budget("research", usd=1)]).budgets.forecast("reserch")
