"""Entries: an answer and what it used, kept so that nobody can change either, for a time and for as long as there
is room."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from ..records import TokenUsage, UsageRecord


class Entry(msgspec.Struct, frozen=True):
    """One answer. `records` are the calls that were paid for it; empty when nobody metered them."""

    answer: Any
    records: tuple[UsageRecord, ...] = ()
    streamed: bool = False  # the answer is a list of what a stream gave


class Storage(Protocol):
    """Where entries are: in memory, or in a file."""

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


class MemoryStorage:
    """Least recently used goes first. Nothing outlives the process."""

    def __init__(self, max_size: int, monotonic: Callable[[], float]) -> None:
        self._max_size = max_size
        self._now = monotonic
        self._entries: OrderedDict[str, tuple[Entry, float | None]] = OrderedDict()
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
            now = self._now()
            self._entries[key] = entry, None if ttl is None else now + ttl
            self._entries.move_to_end(key)
            while self._max_size and len(self._entries) > self._max_size:
                _, (_, expires) = self._entries.popitem(last=False)
                evicted += expires is None or now < expires  # what had expired made room by itself
        return evicted

    def delete(self, key: str) -> bool:
        with self._lock:
            found = self._entries.pop(key, None)
            return found is not None and (found[1] is None or self._now() < found[1])

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def size(self) -> int:
        with self._lock:
            now = self._now()
            gone = [key for key, (_, expires) in self._entries.items() if expires is not None and now >= expires]
            for key in gone:
                del self._entries[key]
            return len(self._entries)

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it
