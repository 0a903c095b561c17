"""A store that lives as long as the process: for tests, for notebooks, and for whoever reads a store's answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Any

import msgspec

from ..analytics import AgentAnalytics
from ..dimensions import check
from ..records import DENIED, EMPTY, RUN, STEP, Kind, Record, RunRecord, ToolRecord, UsageRecord
from ..tool_metrics import ToolMetrics
from ..totals import Totals
from ..tree import RunTree
from ..usage import AgentUsage
from .base import Audit, Difference, Price, Progress, Settlement
from .counting import Groups, add, check_filters, chosen, tree_of, utc


class MemoryStore:
    """Every record of this process, in memory: about 0.8 kB each. Nothing is ever written anywhere."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may put a record while this very thread reads.
        self._lock = threading.RLock()
        self._stored: list[Record] = []  # in the order in which they came; corrections are records of their own
        self._latest: dict[str, Record] = {}
        self._versions: set[tuple[str, int]] = set()
        self._settlements: dict[str, list[Settlement]] = {}
        self._pruned: list[Record] = []  # counted still, and not shown
        self._duplicates = 0

    # -------------------------------------------------------------------------------------------- writing

    def put(self, record: Record) -> None:
        if type(record) is ToolRecord:
            record = msgspec.structs.replace(record, params=EMPTY)  # never what somebody asked a tool
        settlements = self._settlements.pop(record.id, ())
        with self._lock:
            version = (record.id, versions_before(record))
            if version in self._versions:
                self._duplicates += 1
                return
            self._versions.add(version)
            self._stored.append(record)
            known = self._latest.get(record.id)
            if known is None or versions_before(known) < version[1]:
                self._latest[record.id] = record
        for settlement in settlements:
            settlement.apply(None)

    def attach(self, record_id: str, settlement: Settlement) -> None:
        self._settlements.setdefault(record_id, []).append(settlement)

    def flush(self, timeout: float | None = None) -> None:
        pass

    def close(self, timeout: float | None = 10.0) -> None:
        pass

    def health(self) -> dict[str, Any]:
        counts = dict.fromkeys(("queued", "dropped", "dead", "spilled", "failures"), 0)
        return {"stored": len(self._stored), "duplicates": self._duplicates, **counts, "last_error": None}

    # -------------------------------------------------------------------------------------------- reading

    def _current(
        self, since: datetime | None = None, until: datetime | None = None, *, pruned: bool = False
    ) -> list[Record]:
        since, until = utc(since, "since"), utc(until, "until")
        with self._lock:
            latest = [*(self._pruned if pruned else ()), *self._latest.values()]
        return [
            record
            for record in latest
            if (since is None or record.started_at >= since) and (until is None or record.started_at < until)
        ]

    def usage(self, since: datetime | None = None, until: datetime | None = None) -> AgentUsage:
        totals = Totals()
        for record in self._current(since, until, pruned=True):
            add(totals, record)
        return AgentUsage.snapshot(totals, self.history() if since is None and until is None else ())

    def usage_by(
        self,
        *dimensions: str,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, AgentUsage]:
        records = self._current(since, until, pruned=True)
        check(dimensions, self._tags())
        groups = Groups(dimensions)
        for record in records:
            groups.add(record)
        if progress is not None:
            progress(len(records), len(records))
        return groups.answer()

    def _tags(self) -> frozenset[str]:
        return frozenset(name for record in self._current() for name in record.tags)

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        records = [
            record
            for record in self._current()
            if type(record) is UsageRecord and (include_denied or record.status is not DENIED)
        ]
        return records if limit is None else records[max(0, len(records) - max(0, limit)) :]

    def records(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        kinds: Sequence[str] = (),
        newest_first: bool = False,
        **filters: str,
    ) -> Iterator[Record]:
        check_filters(filters, self._tags())
        wanted = frozenset(Kind(kind) for kind in kinds)
        found = [
            record
            for record in self._current(since, until)
            if (not wanted or record.kind in wanted) and chosen(record, filters)
        ]
        found.sort(key=lambda record: record.started_at, reverse=newest_first)
        return iter(found)

    def changes(self, after: int = 0, limit: int = 1000) -> tuple[list[Record], int]:
        with self._lock:
            found = self._stored[after : after + limit]
        return found, after + len(found)

    def end(self) -> int:
        return len(self._stored)

    def find(self, record_id: str) -> Record:
        with self._lock:
            if record_id in self._latest:
                return self._latest[record_id]
            found = [record for id, record in self._latest.items() if id.startswith(record_id)] if record_id else []
        if len(found) == 1:
            return found[0]
        raise LookupError(f"{len(found) or 'no'} records begin with {record_id!r}")

    def tools(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, ToolMetrics]:
        analytics = AgentAnalytics(parameters=False)
        for record in self._current(since, until, pruned=True):
            if type(record) is ToolRecord and not record.paused:
                analytics.record(record)
        return analytics.get_all_metrics()

    def runs(self, limit: int = 20, since: datetime | None = None, until: datetime | None = None) -> list[RunRecord]:
        found = [r for r in self._current(since, until) if type(r) is RunRecord and r.kind is RUN]
        return sorted(found, key=lambda run: run.started_at, reverse=True)[:limit]

    def tree(self, run_id: str) -> RunTree:
        current = self._current()
        inside, found = {run_id}, [record for record in current if record.run_id == run_id]
        nested = [r for r in current if type(r) is RunRecord and r.kind is RUN and r.parent_id is not None]
        while True:
            ids = {record.id for record in found if record.kind in (RUN, STEP, Kind.TOOL)}
            more = [run.id for run in nested if run.id not in inside and run.parent_id in ids]
            if not more:
                return tree_of(run_id, found)
            inside.update(more)
            found += [record for record in current if record.run_id in more]

    # --------------------------------------------------------------------------------------------- upkeep

    def prune(self, before: datetime) -> int:
        first_kept = datetime.combine(utc(before, "before").date(), time(), UTC)  # type: ignore[union-attr]
        with self._lock:
            self._pruned += [record for record in self._latest.values() if record.started_at < first_kept]
            gone = {record.id for record in self._latest.values() if record.started_at < first_kept}
            self._latest = {id: record for id, record in self._latest.items() if id not in gone}
            self._stored = [record for record in self._stored if record.id not in gone]
        return len(gone)

    def verify(self, *, repair: bool = False, price: Price | None = None, progress: Progress | None = None) -> Audit:
        audit = Audit(records=len(self._stored))
        if price is not None:
            for record in self._current():
                audit.differences += repriced(record, price, self if repair else None)
        return audit

    def now(self) -> datetime:
        return datetime.now(UTC)


def versions_before(record: Record) -> int:
    """How many versions of it came before: a correction carries the record that it corrects."""
    count = 0
    while type(record) is UsageRecord and record.corrects is not None:
        record, count = record.corrects, count + 1
    return count


def repriced(record: Record, price: Price, store: Any) -> list[Difference]:
    """What `price` says otherwise than the record; with a store, the correcting record is put there."""
    if type(record) is not UsageRecord:
        return []
    cost = price(record)
    if cost is None or (cost.list_pico, cost.billed_pico) == (record.cost.list_pico, record.cost.billed_pico):
        return []
    if store is not None:
        store.put(msgspec.structs.replace(record, cost=cost, corrects=record))
    return [Difference("price", record.id, record.cost.list_pico, cost.list_pico, store is not None)]
