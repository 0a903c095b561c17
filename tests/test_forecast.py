"""A forecast knows the hours of the day, says how sure it is, and names the hour at which a limit is reached."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter.forecast import forecast

MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def office(days: int, busy: float, *, today_until: int, seed: int = 1, weekends: bool = True) -> dict[datetime, float]:
    """`busy` an hour from 9 to 17, nothing at night, for `days` days before, and today until an hour."""
    dice = random.Random(seed)
    hours = {}
    for back in range(-days, 1):
        day = MIDNIGHT + back * DAY
        if not weekends and day.weekday() >= 5:
            continue
        for hour in range(9, 17):
            if back < 0 or hour < today_until:
                hours[day + hour * HOUR] = busy * dice.uniform(0.8, 1.2)
    return hours


def test_a_steady_burn_is_a_straight_line():
    hours = {MIDNIGHT + n * HOUR: 100.0 for n in range(-48, 12)}
    told = forecast(hours, used=1200, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 12 * HOUR)
    assert told.expected == pytest.approx(2400)
    assert told.low == told.high == pytest.approx(2400)
    assert told.rate == pytest.approx(100)


def test_at_noon_of_an_office_day_the_night_is_not_expected_to_be_busy():
    hours = office(14, 100, today_until=12)
    used = sum(value for at, value in hours.items() if at >= MIDNIGHT)
    told = forecast(hours, used=used, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 12 * HOUR)
    straight = used * 2
    assert told.expected == pytest.approx(800, rel=0.25)
    assert abs(told.expected - 800) < abs(straight - 800)


def test_weekends_are_told_from_weekdays_after_three_weeks():
    saturday = datetime(2026, 3, 14, tzinfo=UTC)
    hours = {
        saturday - back * DAY + hour * HOUR: 100.0
        for back in range(1, 29)
        for hour in range(24)
        if (saturday - back * DAY).weekday() < 5
    }
    told = forecast(hours, used=0, start=saturday, until=saturday + DAY, now=saturday + HOUR)
    assert told.expected < 0.5 * 24 * 100 * 5 / 7


def test_the_hour_in_which_a_limit_is_reached():
    hours = {MIDNIGHT + n * HOUR: 100.0 for n in range(-48, 12)}
    told = forecast(hours, used=1200, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 12 * HOUR, limit=1950)
    assert told.exhausted_at is not None
    assert abs(told.exhausted_at - (MIDNIGHT + 19.5 * HOUR)) < timedelta(minutes=1)
    assert told.overshoot == pytest.approx((2400 / 1950 - 1) * 100)


def test_a_limit_that_the_window_outlives_is_not_reached():
    hours = {MIDNIGHT + n * HOUR: 100.0 for n in range(-48, 12)}
    told = forecast(hours, used=1200, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 12 * HOUR, limit=2500)
    assert told.exhausted_at is None
    assert told.overshoot == 0


def test_a_budget_without_an_end_has_a_day_on_which_it_is_gone():
    hours = {MIDNIGHT + n * HOUR: 1.0 for n in range(-240, 0)}
    told = forecast(hours, used=240, start=MIDNIGHT - 10 * DAY, until=None, now=MIDNIGHT, limit=300)
    assert told.exhausted_at is not None
    assert abs(told.exhausted_at - (MIDNIGHT + 60 * HOUR)) < 2 * HOUR


def test_little_history_is_a_wide_interval_and_much_history_a_narrow_one():
    def width(days: int) -> float:
        hours = office(days, 100, today_until=12)
        used = sum(value for at, value in hours.items() if at >= MIDNIGHT)
        told = forecast(hours, used=used, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 12 * HOUR)
        return told.high - told.low

    assert width(1) > 1.5 * width(20)


def test_the_interval_holds_what_it_promises():
    """Over 200 office months, the day's real end lies in the 90 % interval about as often as it says."""
    inside = 0
    for seed in range(200):
        full = office(21, 100, today_until=24, seed=seed)
        actual = sum(value for at, value in full.items() if at >= MIDNIGHT)
        now = MIDNIGHT + 12 * HOUR
        hours = {at: value for at, value in full.items() if at < now}
        used = sum(value for at, value in hours.items() if at >= MIDNIGHT)
        told = forecast(hours, used=used, start=MIDNIGHT, until=MIDNIGHT + DAY, now=now)
        inside += told.low <= actual <= told.high
    assert inside >= 170


def test_the_first_minutes_say_something_and_not_nonsense():
    told = forecast(
        {MIDNIGHT: 10.0}, used=10, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + 6 * timedelta(minutes=1)
    )
    assert 10 <= told.low <= told.expected <= told.high
    assert told.expected == pytest.approx(10 + 100 * 23.9, rel=0.01)


def test_nothing_used_is_nothing_expected():
    told = forecast({}, used=0, start=MIDNIGHT, until=MIDNIGHT + DAY, now=MIDNIGHT + HOUR, limit=10)
    assert (told.expected, told.low, told.high, told.exhausted_at) == (0, 0, 0, None)


def test_a_limit_that_is_gone_is_gone_now():
    now = MIDNIGHT + HOUR
    told = forecast({MIDNIGHT: 9.0}, used=9, start=MIDNIGHT, until=MIDNIGHT + DAY, now=now, limit=9)
    assert told.exhausted_at == now


def test_a_window_that_ends_before_it_starts_is_an_error():
    with pytest.raises(ValueError, match="ends at"):
        forecast({}, used=0, start=MIDNIGHT, until=MIDNIGHT, now=MIDNIGHT)


@given(
    st.dictionaries(st.integers(-300, 20), st.floats(0, 1e9), max_size=60),
    st.floats(0, 23.99),
    st.one_of(st.none(), st.floats(0, 1e10)),
)
def test_the_interval_is_around_the_expectation_and_never_below_what_is_used(offsets, hour, limit):
    hours = {MIDNIGHT + n * HOUR: value for n, value in offsets.items()}
    now = MIDNIGHT + hour * HOUR
    used = sum(value for at, value in hours.items() if MIDNIGHT <= at <= now)
    told = forecast(hours, used=used, start=MIDNIGHT, until=MIDNIGHT + DAY, now=now, limit=limit)
    assert used <= told.low <= told.expected <= told.high
    if told.exhausted_at is not None:
        assert now <= told.exhausted_at <= MIDNIGHT + DAY


def test_a_window_that_began_before_anything_was_known_is_not_taken_for_a_quiet_one():
    """The meter was put in on the 11th day of a month: the ten days before it say nothing."""
    begun, now = MIDNIGHT + 10 * DAY, MIDNIGHT + 15 * DAY
    hours = {begun + n * HOUR: 10.0 for n in range(5 * 24)}

    told = forecast(hours, used=1200, start=MIDNIGHT, until=MIDNIGHT + 30 * DAY, now=now)

    assert told.expected == pytest.approx(1200 + 15 * 24 * 10)
