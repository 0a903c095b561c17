"""Entries: an answer and what it used, kept so that nobody can change either, for a time and for as long as there
is room."""

from __future__ import annotations

import copy
import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from ..records import TokenUsage, UsageRecord

SYNC, ASYNC = "sync", "async"


class Entry(msgspec.Struct, frozen=True):
    """One answer. `records` are the calls that were paid for it; empty when nobody metered them."""

    answer: Any
    records: tuple[UsageRecord, ...] = ()
    streamed: str = ""  # SYNC or ASYNC: the answer is the list of what a stream of that kind gave


class Storage(Protocol):
    """Where entries are: in memory, or in a file, which may keep its caller waiting. What has expired goes first,
    then what was used least recently."""

    waits: bool

    def get(self, key: str) -> Entry | None:
        """A copy of its own for who asks."""
        ...

    def set(self, key: str, entry: Entry, ttl: float | None) -> int:
        """Keep an entry that nobody else has, `ttl` seconds long or for ever; how many others had to go for it."""
        ...

    def delete(self, key: str) -> bool: ...
    def clear(self) -> None: ...
    def size(self) -> int: ...


_IMMUTABLE = frozenset(
    (str, int, float, bool, complex, bytes, type(None), Decimal, date, datetime, TokenUsage, UsageRecord)
)


def copied(value: Any) -> Any:
    """A copy that shares nothing changeable with `value`. `TypeError` for what cannot be copied, such as a stream."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is tuple and all(type(item) in _IMMUTABLE for item in value):
        return value
    return copy.deepcopy(value)


def lifetime(ttl: float | None) -> float | None:
    """Seconds, or `None` for ever. `ValueError` for what is neither."""
    if ttl is not None and not ttl >= 0:
        raise ValueError(f"a time to live is seconds, or 0 for ever; got {ttl!r}")
    return ttl or None


class MemoryStorage:
    """Nothing outlives the process."""

    waits = False

    def __init__(self, max_size: int, monotonic: Callable[[], float]) -> None:
        self._max_size = max_size
        self._now = monotonic
        self._entries: OrderedDict[str, tuple[Entry, float | None]] = OrderedDict()
        self._ends: list[tuple[float, str]] = []  # a heap; some of them are of entries that are gone
        # Reentrant: a finalizer may ask while this very thread asks.
        self._lock = threading.RLock()

    def get(self, key: str) -> Entry | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            entry, expires = found
            if expires is not None and self._now() >= expires:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
        return Entry(copied(entry.answer), entry.records, entry.streamed)

    def set(self, key: str, entry: Entry, ttl: float | None) -> int:
        evicted = 0
        with self._lock:
            self._expire()
            expires = None if ttl is None else self._now() + ttl
            self._entries[key] = entry, expires
            self._entries.move_to_end(key)
            if expires is not None:
                heapq.heappush(self._ends, (expires, key))
            while self._max_size and len(self._entries) > self._max_size:
                self._entries.popitem(last=False)
                evicted += 1
        return evicted

    def delete(self, key: str) -> bool:
        with self._lock:
            self._expire()
            return self._entries.pop(key, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._ends.clear()

    def size(self) -> int:
        with self._lock:
            self._expire()
            return len(self._entries)

    def _expire(self) -> None:
        now, ends, entries = self._now(), self._ends, self._entries
        while ends and ends[0][0] <= now:
            expires, key = heapq.heappop(ends)
            found = entries.get(key)
            if found is not None and found[1] == expires:
                del entries[key]
        if len(ends) > 64 + 2 * len(entries):  # many were set again and again
            self._ends = [(expires, key) for key, (_, expires) in entries.items() if expires is not None]
            heapq.heapify(self._ends)

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it
