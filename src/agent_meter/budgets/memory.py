"""Counters and holds in this process: one lock, a microsecond or two an operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from .engine import Change, Count, Entry, Refusal, tightest
from .windows import DAY, SteadyClock

SWEEP_AT = 4096  # rows
_change = tuple.__new__  # half of what the constructor of a named tuple costs
_NO_SLOTS: dict[int, _Row] = {}


class _Row(msgspec.Struct):
    """One slot of a counter. `high` is the most that its window had seen used while it was the newest."""

    until: int
    used: int = 0
    reserved: int = 0
    high: int = 0


class _Hold(msgspec.Struct):
    entries: Sequence[Entry]
    rows: list[_Row]
    expires: int
    charged: Sequence[int] | None = None  # settled, but not for good


class MemoryEngine:
    """The engine of one process; its counters end with it."""

    blocking = False

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = SteadyClock(now)
        # A finalizer may close a stream, and so settle a hold, while this very thread is in here.
        self._lock = threading.RLock()
        self._keys: dict[str, dict[int, _Row]] = {}
        self._holds: dict[str, _Hold] = {}
        self._rows = 0
        self._sweep_at = SWEEP_AT

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> Refusal | None:
        with self._lock:
            if hold in self._holds:
                return None
            if len(entries) == 1:  # the usual case, written out for the path
                key, slot, _, _, amount, limit = entries[0]
                only = self._keys.get(key, _NO_SLOTS)
                if len(only) == 1 and limit and (known := only.get(slot)) is not None:
                    held = known.reserved + amount
                    if known.used + held <= limit:
                        known.reserved = held
                        self._holds[hold] = _Hold(entries, [known], expires)
                        return None
            rows: list[_Row] = []
            refusals: list[tuple[Refusal, Entry]] = []
            for entry in entries:
                key, slot, since, until, amount, limit = entry
                slots = self._keys.get(key)
                row = None if slots is None else slots.get(slot)
                if row is None:
                    row = self._row(key, slot, until)
                    slots = self._keys[key]
                rows.append(row)
                if limit is not None:
                    assert slots is not None
                    if len(slots) == 1:
                        taken = row.used + row.reserved
                    else:
                        taken = sum(row.used + row.reserved for at, row in slots.items() if at >= since)
                    if taken + amount > limit or limit <= 0:
                        refusals.append((Refusal(len(rows) - 1, *self.read(key, since)), entry))
            if refusals:
                return tightest(refusals)
            for row, entry in zip(rows, entries, strict=True):
                row.reserved += entry[4]
            self._holds[hold] = _Hold(entries, rows, expires)
            return None

    def settle(self, hold: str, amounts: Sequence[int], *, final: bool = True) -> list[Change] | None:
        with self._lock:
            held = self._holds.get(hold)
            if held is None or (held.charged is not None and not final):
                return None
            changes: list[Change] = []
            charged = held.charged
            for row, entry, amount in zip(held.rows, held.entries, amounts, strict=True):
                if charged is None:
                    row.reserved -= entry[4]
                    row.used += amount
                else:
                    row.used = max(0, row.used + amount - charged[len(changes)])
                changes.append(self._changed(entry, row))
            if final:
                del self._holds[hold]
            else:
                held.charged = tuple(amounts)
            return changes

    def add(self, entries: Sequence[Entry]) -> list[Change]:
        with self._lock:
            changes = []
            for entry in entries:
                row = self._row(entry.key, entry.slot, entry.until)
                row.used = max(0, row.used + entry.amount)
                changes.append(self._changed(entry, row))
            return changes

    def _changed(self, entry: Entry, row: _Row) -> Change:
        slots = self._keys.get(entry[0], _NO_SLOTS)
        if len(slots) <= 1:
            before, after = row.high, row.used
        else:
            seen = [row for at, row in list(slots.items()) if at >= entry.since]
            before, after = max((row.high for row in seen), default=0), sum(row.used for row in seen)
        if after > row.high:
            row.high = after
        return _change(Change, (before, after))

    def _row(self, key: str, slot: int, until: int) -> _Row:
        slots = self._keys.setdefault(key, {})
        row = slots.get(slot)
        if row is None:
            self._rows += 1
            if self._rows > self._sweep_at:
                self._sweep()
                slots = self._keys.setdefault(key, slots)
            row = slots[slot] = _Row(until)
        return row

    def _sweep(self) -> None:
        """Forget what no window counts any more, and holds that nobody will correct."""
        now = self.now()
        for id, hold in list(self._holds.items()):
            if hold.charged is not None and hold.expires < now - DAY:
                del self._holds[id]
        self._rows = 1
        for key, slots in list(self._keys.items()):
            for slot, row in list(slots.items()):
                if row.until <= now and not row.reserved:
                    del slots[slot]
            self._rows += len(slots)
            if not slots:
                del self._keys[key]
        self._sweep_at = max(SWEEP_AT, 2 * self._rows)

    def extend(self, holds: Sequence[str], expires: int) -> None:
        with self._lock:
            for id in holds:
                if (hold := self._holds.get(id)) is not None and hold.charged is None:
                    hold.expires = max(hold.expires, expires)

    def expire(self) -> list[str]:
        now = self.now()
        with self._lock:
            open_holds = [(hold.expires, id) for id, hold in self._holds.items() if hold.charged is None]
            late = [id for expires, id in sorted(open_holds) if expires <= now]
            for id in late:
                self.settle(id, [entry.amount for entry in self._holds[id].entries], final=False)
            return late

    def read(self, key: str, since: int) -> Count:
        with self._lock:
            seen = [(slot, row) for slot, row in (self._keys.get(key) or {}).items() if slot >= since]
            oldest = min((slot for slot, row in seen if row.used or row.reserved), default=None)
            return Count(sum(row.used for _, row in seen), sum(row.reserved for _, row in seen), oldest)

    def keys(self, prefix: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self._keys if key.startswith(prefix))

    def forget(self, key: str) -> None:
        with self._lock:
            for row in (self._keys.get(key) or {}).values():
                row.used = row.high = 0

    def drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                slots = self._keys.get(key)
                if slots is not None and not any(row.reserved for row in slots.values()):
                    del self._keys[key]
                    self._rows -= len(slots)

    def kept(self, source: str) -> dict[str, str]:
        return {}

    def keep(self, name: str, source: str, document: str | None) -> None:
        """Nobody else could find it here."""

    def close(self) -> None:
        """Nothing is open."""
