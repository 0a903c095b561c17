"""Windows partition time, in every zone, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter.budgets.windows import CALENDAR, Calendar, Rolling, SteadyClock, window

ZONES = sorted(available_timezones())
# Around the changes of clocks that are hard: across midnight, midnights that do not exist, a date that was skipped.
HARD = [
    ("America/St_Johns", datetime(2006, 10, 29, 2, 31, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2024, 4, 25, 22, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Antarctica/Casey", datetime(2010, 3, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
]
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def check(period: str, zone: str, now: int) -> None:
    calendar = Calendar(period, zone)
    start, end = calendar.interval(now)

    assert start <= now < end
    assert calendar.interval(start) == (start, end)
    assert calendar.interval(end - 1) == (start, end)
    assert calendar.interval(end)[0] == end
    assert calendar.interval(start - 1)[1] == start


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), MOMENTS)
def test_calendar_windows_partition_time_in_every_zone(period: str, zone: str, at: datetime) -> None:
    check(period, zone, milliseconds(at))


@pytest.mark.parametrize(("zone", "change"), HARD)
@given(offset=st.integers(-30 * 3600, 30 * 3600), period=st.sampled_from(CALENDAR))
def test_they_do_so_around_changes_of_clocks(zone: str, change: datetime, offset: int, period: str) -> None:
    check(period, zone, milliseconds(change + timedelta(seconds=offset)))


@given(st.sampled_from(ZONES), MOMENTS)
def test_a_day_begins_with_the_first_instant_of_its_date(zone: str, at: datetime) -> None:
    start, end = Calendar("day", zone).interval(milliseconds(at))
    first, before, last = (
        datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).date() for ms in (start, start - 1000, end - 1000)
    )

    assert before < first
    assert last >= first - timedelta(1)


def test_days_have_the_length_that_they_have() -> None:
    berlin = Calendar("day", "Europe/Berlin")
    hours = []
    for day in (date(2026, 3, 28), date(2026, 3, 29), date(2026, 10, 25)):
        start, end = berlin.interval(milliseconds(datetime(day.year, day.month, day.day, 12, tzinfo=UTC)))
        hours.append((end - start) / 3_600_000)

    assert hours == [24, 23, 25]


def test_a_week_begins_on_monday_and_a_month_on_its_first() -> None:
    at = milliseconds(datetime(2026, 11, 22, 15, tzinfo=UTC))

    assert Calendar("week").interval(at)[0] == milliseconds(datetime(2026, 11, 16, tzinfo=UTC))
    assert Calendar("month", "Asia/Tokyo").interval(at)[0] == milliseconds(datetime(2026, 10, 31, 15, tzinfo=UTC))


@given(st.integers(1, 40 * 24 * 3600), st.lists(st.integers(0, 10**12), min_size=2, max_size=2))
def test_every_use_within_a_rolling_window_is_counted(seconds: int, moments: list[int]) -> None:
    rolling = Rolling(seconds * 1000, "rolling")
    earlier, later = sorted(moments)
    used_at = Rolling(seconds * 1000, "rolling").at(earlier).slot
    span = rolling.at(later)

    counted = used_at >= span.since
    if later - earlier <= seconds * 1000:
        assert counted
    if later - earlier > seconds * 1000 * 62 // 60 + 2:
        assert not counted


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30))
def test_a_rolling_window_never_goes_back(moments: list[int]) -> None:
    rolling = Rolling(60_000, "rolling 1m")
    spans = [rolling.at(at) for at in sorted(moments)]

    assert spans == sorted(spans)
    assert all(span.slot - span.since >= 59_000 for span in spans)


@pytest.mark.parametrize(
    ("per", "name"),
    [
        ("daily", "day"), ("Monthly", "month"), ("total", "total"), ("run", "run"),
        ("rolling 90 minutes", "rolling 90m"),
        ("rolling  24h", "rolling 24h"), (timedelta(minutes=5), "rolling 300s"),
    ],
)  # fmt: skip
def test_windows_have_readable_names(per: str, name: str) -> None:
    assert window(per).name == name


@pytest.mark.parametrize("per", ["fortnight", "rolling", "rolling 1y", "", "rolling 0s", timedelta(0)])
def test_what_is_no_window_says_what_is(per: str) -> None:
    with pytest.raises(ValueError, match=r"per is run, total, .*not|at least a second"):
        window(per)


def test_a_clock_that_is_set_back_reopens_no_window() -> None:
    wall = [1_000_000.0]
    now = SteadyClock(lambda: wall[0])
    seen = [now()]
    for step in (3600, -3600, -2 * 86_400, 10, 86_400 * 365, -86_400 * 365):
        wall[0] += step
        seen.append(now())

    assert seen[1:4] == [1_003_600_000, 1_003_600_000, 1_003_600_000]
    assert seen[4] == 1_003_600_000
    assert seen[5] > seen[4]
    assert seen[6] == int(wall[0] * 1000)  # a year ahead had been wrong
