"""What rules look at when records are kept in a store: what every process has recorded, not this one alone.

At first the sums of the store's rollups, then each record as it is stored. Both come to the same numbers, so that a
restart changes none of them.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..records import UsageRecord
from .counters import HOURS, Counters, start_of
from .variables import WINDOWS

if TYPE_CHECKING:
    from ..store import Store

_PAGE = 1_000
_TRIES = 3
_TASKS = timedelta(days=1)  # how long a task may have been quiet and still be known after a restart


class Reader:
    """Follows one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counters: Counters | None = None
        self.position = 0  # up to which of the store's records the counters are complete

    def counters(self, now: datetime) -> Counters:
        """Everything that has been stored so far. Raises `StoreError`."""
        if self._counters is None:
            self._counters, self.position = self._seeded(now)
        while True:
            records, position = self._store.changes(self.position, _PAGE)
            for record in records:
                if type(record) is UsageRecord:
                    self._counters.add(record)
            self.position = position
            if len(records) < _PAGE:
                return self._counters

    def _seeded(self, now: datetime) -> tuple[Counters, int]:
        """The sums at one position: several questions, and nobody may have written between them."""
        for tried in range(_TRIES):
            with ExitStack() as alone:
                if tried == _TRIES - 1:  # it never is quiet: then everybody waits this once
                    alone.enter_context(self._store.transaction())  # type: ignore[attr-defined]
                before = self._store.end()
                counters = seeded(self._store, now)
                if tried == _TRIES - 1 or self._store.end() == before:
                    return counters, before
        raise AssertionError("unreachable")


def seeded(store: Store, now: datetime) -> Counters:
    """The windows that `now` is in, the hours of four weeks and the tasks of the last day, as a store has them."""
    counters = Counters()
    for window in WINDOWS:
        start = start_of(window, now)
        for agent, usage in store.usage_by("agent", since=start).items():
            counters.seed(window, start, agent, *_amounts(usage))
    hours = store.usage_by("hour", since=start_of("hourly", now) - timedelta(hours=HOURS - 1))
    for label, usage in sorted(hours.items()):
        counters.seed_hour(datetime.fromisoformat(f"{label}:00:00+00:00"), *_amounts(usage))
    for (agent, task), usage in store.usage_by("agent", "task", since=start_of("daily", now - _TASKS)).items():
        if task:
            counters.seed_task(agent, task, now, *_amounts(usage))
    whole = store.usage().totals
    counters.unpriced, counters.denied = whole.unpriced_requests, whole.denied_requests
    return counters


def _amounts(usage: Any) -> tuple[int, int, int]:
    return usage.total_tokens, usage.totals.billed_pico, usage.requests
