"""Which cache gave an answer: the mark of a hit is the number of its cache, which hears what the hit has saved."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ...caching import CacheReport, CacheStats
from ...records import EMPTY, Record, UsageRecord
from ...totals import Totals

_savings: weakref.WeakValueDictionary[int, Savings] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class Savings:
    """What the hits of one cache have saved."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self._lock = threading.RLock()
        self.reset()
        _savings[self.number] = self

    def reset(self) -> None:
        with self._lock:
            self._replays = Totals()

    def add(self, record: UsageRecord) -> None:
        with self._lock:
            self._replays.add(record)

    def report(self, stats: CacheStats) -> CacheReport:
        with self._lock:
            return CacheReport.of(stats, self._replays)


def heard(result: Any, mark: str, record: Record) -> None:
    """A cached answer was recorded: tell the cache that gave it, if a wrapped one did."""
    choices = result.generations[0] if getattr(result, "generations", None) else ()
    info: Mapping[str, Any] = (choices[0].generation_info if choices else None) or EMPTY
    number = info.get(mark)
    savings = _savings.get(number) if isinstance(number, int) else None
    if savings is not None and isinstance(record, UsageRecord):
        savings.add(record)
