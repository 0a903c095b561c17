"""Windows: from which moment to which a budget counts.

A calendar window is half-open: from the first instant of its local date to the first instant of the next one's. That
is the one rule that holds where clocks are set back across midnight, where midnight does not exist, and where a whole
date was skipped. Hours and minutes are counted from the first instant of the local day. A rolling window is sixty
buckets, and every bucket that touches it counts whole: never over the limit, at most 1/60 of it unused.

All moments here are whole milliseconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

DAY = 86_400_000
BUCKETS = 60
RUN_KEPT = 8 * DAY  # how long a shared counter of a run is kept
FOR_EVER = 1 << 62
BACK_MOST = 3 * DAY  # a clock that goes back further had been wrong before

_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY, "w": 7 * DAY}
_ROLLING = re.compile(r"rolling\s+(\d+)\s*(s|m|h|d|w)[a-z]*")
ALIASES = {
    "minutely": "minute", "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year",
    "ever": "total", "all": "total", "lifetime": "total",
}  # fmt: skip
CALENDAR = ("minute", "hour", "day", "week", "month", "year")


class Span(NamedTuple):
    """Where a use is counted (`slot`), which slots count together (from `since` on), and until when they matter."""

    slot: int
    since: int
    until: int


class Window(Protocol):
    name: str

    def at(self, now: int) -> Span: ...
    def resets_at(self, span: Span, oldest: int | None) -> datetime | None:
        """When something of it is free again: the end of a calendar window, or the oldest use leaving."""


def window(per: str | timedelta, tz: str = "UTC") -> Window:
    """The window that `per` names. Raises `ValueError` for what is none."""
    if isinstance(per, timedelta):
        return Rolling(round(per.total_seconds() * 1000), f"rolling {round(per.total_seconds())}s")
    word = " ".join(str(per).lower().split())
    word = ALIASES.get(word, word)
    if word == "total":
        return Total()
    if word == "run":
        return Run()
    if word in CALENDAR:
        return Calendar(word, tz)
    if found := _ROLLING.fullmatch(word):
        return Rolling(int(found[1]) * _UNITS[found[2]], f"rolling {found[1]}{found[2]}")
    raise ValueError(f"per is run, total, {', '.join(CALENDAR)} or 'rolling 1h' (s, m, h, d, w), not {per!r}")


class Total:
    """For ever."""

    name = "total"
    _span = Span(0, 0, FOR_EVER)

    def at(self, now: int) -> Span:
        return self._span

    def resets_at(self, span: Span, oldest: int | None) -> datetime | None:
        return None


class Run:
    """One run: its key says which; the slots only say how old a counter is."""

    name = "run"

    def at(self, now: int) -> Span:
        slot = now - now % DAY
        return Span(slot, 0, slot + RUN_KEPT)

    def resets_at(self, span: Span, oldest: int | None) -> datetime | None:
        return None


class Rolling:
    """The last so many milliseconds."""

    def __init__(self, length: int, name: str) -> None:
        if length < 1000:
            raise ValueError(f"a rolling window is at least a second long, not {name!r}")
        self.name = name
        self.length = length
        self._width = max(1, length // BUCKETS)
        self._span = Span(-1, 0, 0)

    def at(self, now: int) -> Span:
        width = self._width
        slot = now - now % width
        if slot != self._span.slot or now - self.length < self._span.since:
            first = now - self.length
            self._span = Span(slot, first - first % width, slot + self.length + 2 * width)
        return self._span

    def resets_at(self, span: Span, oldest: int | None) -> datetime | None:
        return moment((span.slot if oldest is None else oldest) + self._width + self.length)


class Calendar:
    """The minute, hour, day, week (from Monday), month or year of a time zone."""

    def __init__(self, period: str, tz: str = "UTC") -> None:
        self.name = period
        self.tz = tz
        try:
            self._zone: ZoneInfo | None = None if tz == "UTC" else ZoneInfo(tz)
        except (LookupError, ValueError, OSError) as error:
            raise ValueError(f"no time zone {tz!r}: write one like 'Europe/Berlin' (needs the tzdata package where "
                             "the system has no zones)") from error  # fmt: skip
        self._span = Span(0, 0, 0)

    def at(self, now: int) -> Span:
        span = self._span
        if not span.slot <= now < span.until:
            start, end = self.interval(now)
            span = self._span = Span(start, start, end)
        return span

    def resets_at(self, span: Span, oldest: int | None) -> datetime | None:
        return moment(span.until)

    def interval(self, now: int) -> tuple[int, int]:
        """The window that holds `now`, half-open, in milliseconds."""
        seconds = now // 1000
        day = self._date(seconds)
        if self._first(day + timedelta(1)) <= seconds:  # the clock was set back across midnight
            day += timedelta(1)
        if self.name in ("minute", "hour"):
            length = 60 if self.name == "minute" else 3600
            start, end = self._first(day), self._first(day + timedelta(1))
            start += (seconds - start) // length * length
            return start * 1000, min(start + length, end) * 1000
        first, after = _period(day, self.name)
        return self._first(first) * 1000, self._first(after) * 1000

    def _date(self, seconds: int) -> date:
        return datetime.fromtimestamp(seconds, self._zone or UTC).date()

    def _first(self, day: date) -> int:
        """The first second whose local date is `day`, or later where that date was skipped."""
        if self._zone is None:
            return (day.toordinal() - 719_163) * 86_400
        midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        both = [int(midnight.replace(fold=fold).timestamp()) for fold in (0, 1)]
        before, after = min(both) - 1, max(both)
        while self._date(before) >= day:
            before -= 3600
        if self._date(before + 1) >= day:
            return before + 1
        while self._date(after) < day:
            after += 3600
        while after - before > 1:
            middle = (before + after) // 2
            if self._date(middle) >= day:
                after = middle
            else:
                before = middle
        return after


def _period(day: date, period: str) -> tuple[date, date]:
    if period == "day":
        return day, day + timedelta(1)
    if period == "week":
        monday = day - timedelta(day.weekday())
        return monday, monday + timedelta(7)
    if period == "month":
        return day.replace(day=1), (day.replace(day=1) + timedelta(32)).replace(day=1)
    return date(day.year, 1, 1), date(day.year + 1, 1, 1)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


class SteadyClock:
    """Milliseconds that do not go back, so that a clock that is set back reopens no window.

    Further back than three days means that the clock had been wrong before: then it is followed again, and the windows
    it comes back to are found as they were left.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now  # seconds since 1970
        self._seen = 0

    def __call__(self) -> int:
        now = int(self._now() * 1000)
        if now >= self._seen or now < self._seen - BACK_MOST:
            self._seen = now
        return self._seen

    def at_least(self, seen: int) -> None:
        """Another process has been further already."""
        if self._seen < seen <= self() + BACK_MOST:
            self._seen = seen
