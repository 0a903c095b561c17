"""What every engine must do, in forty lines: counters and holds in plain dictionaries, no lock, no cleverness."""

from __future__ import annotations

from collections.abc import Sequence

from agent_meter.budgets import Entry


class Reference:
    def __init__(self) -> None:
        self.used: dict[tuple[str, int], int] = {}
        self.high: dict[tuple[str, int], int] = {}
        self.holds: dict[str, tuple[Sequence[Entry], int, list[int] | None]] = {}

    def sums(self, key: str, since: int) -> tuple[int, int]:
        used = sum(n for (k, slot), n in self.used.items() if k == key and slot >= since)
        held = [e.amount for entries, _, charged in self.holds.values() if charged is None
                for e in entries if e.key == key and e.slot >= since]  # fmt: skip
        return used, sum(held)

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> bool:
        if hold in self.holds:
            return True
        for e in entries:
            if e.limit is not None and (e.limit <= 0 or sum(self.sums(e.key, e.since)) + e.amount > e.limit):
                return False
        self.holds[hold] = (entries, expires, None)
        return True

    def settle(self, hold: str, amounts: Sequence[int], final: bool) -> list[tuple[int, int]] | None:
        entries, expires, charged = self.holds.get(hold, ((), 0, None))
        if not entries or (charged is not None and not final):
            return None
        del self.holds[hold]
        if not final:
            self.holds[hold] = (entries, expires, list(amounts))
        old = charged or [0] * len(entries)
        return [self._move(e, n, was) for e, n, was in zip(entries, amounts, old, strict=True)]

    def _move(self, e: Entry, amount: int, charged: int) -> tuple[int, int]:
        at = (e.key, e.slot)
        self.used[at] = max(0, self.used.get(at, 0) + amount - charged)
        before = max((n for (k, slot), n in self.high.items() if k == e.key and slot >= e.since), default=0)
        after = self.sums(e.key, e.since)[0]
        self.high[at] = max(self.high.get(at, 0), after)
        return before, after

    def expire(self, now: int) -> list[str]:
        holds = sorted((expires, hold) for hold, (_, expires, charged) in self.holds.items() if charged is None)
        late = [hold for expires, hold in holds if expires <= now]
        for hold in late:
            self.settle(hold, [e.amount for e in self.holds[hold][0]], False)
        return late

    def extend(self, hold: str, expires: int) -> None:
        entries, old, charged = self.holds[hold]
        self.holds[hold] = (entries, max(old, expires), charged)
