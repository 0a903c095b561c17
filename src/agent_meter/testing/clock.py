"""A clock that moves only when it is told to."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """Wall clock and monotonic clock in one, for tests of windows, expiry and durations. Thread-safe.

    `start` is the first `now()`, an aware datetime (2026-01-01 00:00 UTC when not given); `monotonic()`
    starts at 0.0. Time is kept in whole nanoseconds, so ten steps of 0.1 s are exactly one second.
    """

    def __init__(self, start: datetime = _START) -> None:
        if start.tzinfo is None:
            raise ValueError(f"the clock needs an aware datetime, got {start!r}; add tzinfo=datetime.UTC")
        self._start = start.astimezone(UTC)
        self._elapsed = 0  # nanoseconds
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time of day, aware, in UTC; whole microseconds."""
        return self._start + timedelta(microseconds=self._elapsed // 1000)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed / 1e9

    def advance(self, seconds: float) -> None:
        """Move both clocks on. Raises `ValueError` for a step back, which no monotonic clock can take."""
        if not seconds >= 0:
            raise ValueError(f"a clock cannot go back: advance({seconds!r})")
        with self._lock:
            self._elapsed += round(seconds * 1_000_000_000)
