"""What a window will have used by its end: the hours that come, judged by the hours that were, and how sure that is.

Agents work when people do. A straight line through this morning says that the night is as busy; so each coming
hour is expected to be like the same hour of earlier days (of the same weekday, once three weeks are known), all
of them scaled by how busy this window has been compared with that. Where there is little history, the overall
mean stands in for what is not known, and the interval is wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import sqrt
from statistics import NormalDist

import msgspec

_HOUR = timedelta(hours=1)
_PRIOR = 1.0  # an hour's own mean is mixed with this many hours of the overall mean: few samples are pulled to it
_USUAL = 6.0  # how busy a window is, is mixed with this many usual hours: a young window says little
_WEEKDAYS_AFTER = 21 * 24  # hours of history after which a Monday is expected to be like a Monday
_FAR = 366 * 24  # hours that are looked ahead where there is no end


class Forecast(msgspec.Struct, frozen=True):
    """`expected` of something by `until`, between `low` and `high` with the asked confidence; units as they came in.

    `rate` is per hour, over what is left. `exhausted_at` is when the limit is expected to be reached: `None` without
    a limit, or when the window ends before.
    """

    used: float
    expected: float
    low: float
    high: float
    rate: float
    until: datetime | None
    limit: float | None = None
    exhausted_at: datetime | None = None
    history_hours: int = 0
    unpriced: int = 0  # calls that are in no amount of money, because nobody knows their price

    @property
    def overshoot(self) -> float:
        """By how much the expectation exceeds the limit, in per cent; 0 while it does not."""
        if not self.limit:
            return 0.0 if self.limit is None or self.expected <= 0 else float("inf")
        return max(0.0, (self.expected / self.limit - 1) * 100)


def forecast(
    hours: Mapping[datetime, float],
    *,
    used: float,
    start: datetime,
    until: datetime | None,
    now: datetime,
    limit: float | None = None,
    confidence: float = 0.9,
) -> Forecast:
    """Where a window ends up that began at `start`, has `used` so far and ends at `until` (None: never).

    `hours` maps the beginning of each hour to what was used in it; hours that are not in it used nothing, back to
    the first one that is. All times are aware. Raises `ValueError` for a window that ends before it starts.
    """
    if until is not None and until <= start:
        raise ValueError(f"the window ends at {until} and starts at {start}")
    now = max(now, start)
    past = _complete(hours, now)
    profile = _Profile(past)
    level, level_error = profile.level(hours, start, now)
    deviation = profile.deviation
    expected, variance, exhausted, remaining, usual = used, 0.0, None, 0.0, 0.0
    if limit is not None and used >= limit:
        exhausted = now
    at = now
    for _ in range(_FAR):
        if until is not None and at >= until:
            break
        if until is None and (limit is None or exhausted is not None):
            break
        following = min(_hour(at) + _HOUR, until) if until is not None else _hour(at) + _HOUR
        share = (following - at) / _HOUR
        coming = level * profile.of(at) * share
        if exhausted is None and limit is not None and coming > 0 and expected + coming >= limit:
            exhausted = at + (following - at) * ((limit - expected) / coming)
        expected += coming
        variance += deviation * deviation * share * max(level, 0.1) ** 2
        remaining += share
        usual += profile.of(at) * share
        at = following
    mean_error = deviation * max(level, 0.1) * remaining / sqrt(max(1, len(past)))
    variance += mean_error**2 + (usual * level_error) ** 2
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * sqrt(variance)
    return Forecast(
        used,
        expected,
        max(used, expected - reach),
        expected + reach,
        (expected - used) / remaining if remaining else 0.0,
        until,
        limit,
        exhausted,
        len(past),
    )


def _hour(at: datetime) -> datetime:
    at = at.astimezone(UTC)
    return at.replace(minute=0, second=0, microsecond=0)


def _complete(hours: Mapping[datetime, float], now: datetime) -> list[tuple[datetime, float]]:
    """Every hour from the first known one to the last complete one, the empty ones too."""
    known = {_hour(at): float(value) for at, value in hours.items()}
    current = _hour(now)
    begun = [at for at in known if at <= current]
    if not begun:
        return []
    at, found = max(min(begun), current - 28 * 24 * _HOUR), []
    while at < current:
        found.append((at, known.get(at, 0.0)))
        at += _HOUR
    if not found:  # the very first hour: the part of it that has passed, as if it went on like that
        share = (now - current) / _HOUR
        found.append((current, known[current] / share if share >= 1 / 60 else known[current] * 60))
    return found


class _Profile:
    """What an hour of the day (and of the week) usually uses."""

    def __init__(self, past: list[tuple[datetime, float]]) -> None:
        self._by_weekday = len(past) >= _WEEKDAYS_AFTER
        self._first = past[0][0] if past else None
        self._mean = sum(value for _, value in past) / len(past) if past else 0.0
        sums: dict[tuple[int, int], tuple[int, float]] = {}
        for at, value in past:
            count, total = sums.get(self._key(at), (0, 0.0))
            sums[self._key(at)] = (count + 1, total + value)
        self._usual = {key: (total + _PRIOR * self._mean) / (count + _PRIOR) for key, (count, total) in sums.items()}
        squares = sum((value - self.of(at)) ** 2 for at, value in past)
        # With a single hour nothing is known of how hours differ: as much as the hour itself, then.
        self.deviation = sqrt(squares / (len(past) - 1)) if len(past) > 1 else self._mean

    def _key(self, at: datetime) -> tuple[int, int]:
        return (at.weekday() if self._by_weekday else 0, at.hour)

    def of(self, at: datetime) -> float:
        return self._usual.get(self._key(at.astimezone(UTC)), self._mean)

    def level(self, hours: Mapping[datetime, float], start: datetime, now: datetime) -> tuple[float, float]:
        """How busy this window is, compared with what is usual at its hours, and the standard error of that."""
        current, actual, usual = _hour(now), 0.0, 0.0
        first = at = max(_hour(start), self._first or current, current - 28 * 24 * _HOUR)  # before, nothing is known
        known = {_hour(begin): value for begin, value in hours.items()}
        while at < current:
            actual += known.get(at, 0.0)
            usual += self.of(at)
            at += _HOUR
        share = (now - current) / _HOUR
        actual += known.get(current, 0.0)
        usual += self.of(current) * share
        weight = _USUAL * self._mean
        if usual + weight <= 0:
            return 1.0, 0.0
        elapsed = max(0.0, (now - at) / _HOUR) + max(0.0, (current - first) / _HOUR)
        return (actual + weight) / (usual + weight), self.deviation * sqrt(elapsed) / (usual + weight)
