"""What a ledger in an SQL database can be asked. Each answer comes from one snapshot and makes no writer wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..dimensions import KNOWN, PERIODS, check, period_of
from ..records import DENIED, Kind, Record, RunRecord, UsageRecord, dollars
from ..sketches import LogHistogram
from ..tool_metrics import ToolMetrics
from ..totals import Totals
from ..tree import RunTree
from ..usage import AgentUsage
from .base import Progress
from .cells import CUBES, DAY, MICROS, TAGS, Plan, Sums, ToolDay, add_unit, fill, hour_of, month_of, next_month, plan
from .counting import CHOICES, Groups, check_filters, chosen, tree_of, utc
from .ledger import CURRENT, ZERO_BUCKET, Database, deltas
from .rows import NAMES as COLUMN_NAMES
from .rows import micros, record_of

PAGE = 2_000
_OF_R = ", ".join(f'r."{name}"' for name in COLUMN_NAMES)
_CALLS = "r.kind IN ('llm', 'embedding', 'rerank')"
_DAY = 1440


class Reading:
    """The reading half of a ledger."""

    def _added(self, db: Database, columns: str, where: str, grouped: str, params: tuple[Any, ...]) -> list[Any]:
        """Rows of `columns`, and of the sums of all measures, as integers."""
        raise NotImplementedError

    def _reading(self) -> AbstractContextManager[Database]:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ usage

    def usage(self, since: datetime | None = None, until: datetime | None = None) -> AgentUsage:
        groups = self._groups((), since, until, None)
        return AgentUsage.snapshot(groups.group(()))

    def usage_by(
        self,
        *dimensions: str,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, AgentUsage]:
        if not dimensions or any(name not in KNOWN for name in dimensions):
            check(dimensions, self._tags())
        return self._groups(dimensions, since, until, progress).answer()

    def _tags(self) -> frozenset[str]:
        with self._reading() as db:
            names = {name for (name,) in db.rows("SELECT DISTINCT k1 FROM cell WHERE cube = 'tag'")}
            for record, _ in deltas(db, _folded(db)):
                names.update(record.tags)
        return frozenset(names)

    def _groups(
        self, dimensions: tuple[str, ...], since: datetime | None, until: datetime | None, progress: Progress | None
    ) -> Groups:
        groups = Groups(dimensions)
        low, high = _range(since, until)
        with self._reading() as db:
            folded = _folded(db)
            low, high = _whole_days(db, low, high)
            planned = self._plan(db, dimensions, low, high)
            if planned.cube is TAGS:
                self._tag_cells(db, planned, groups)
            elif planned.cube is not None:
                self._cells(db, planned, groups)
            for start, stop in planned.scans:
                self._count(db, start, stop, groups, progress)
            for record, sign in deltas(db, folded):
                at = micros(record.started_at)
                if not _inside(at, ((low, high),)) or _inside(at, planned.scans) or type(record) is RunRecord:
                    continue
                one = Groups(dimensions)
                one.add(record)
                groups.merge(one, sign)
        return groups

    def _plan(self, db: Database, dimensions: tuple[str, ...], low: int | None, high: int | None) -> Plan:
        ((first, last),) = db.rows("SELECT MIN(at), MAX(at) FROM cell WHERE cube = 'model' AND grain = ?", (DAY,))
        if first is None:
            return plan(dimensions, low, high, 0, 0)
        closed = int(db.rows("SELECT value FROM meta WHERE name = 'closed'")[0][0])
        floors = {
            int(name.split()[1]): int(value)
            for name, value in db.rows("SELECT name, value FROM meta WHERE name LIKE 'grain %'")
        }
        return plan(dimensions, low, high, month_of(first), next_month(last), closed, floors)

    def _cells(self, db: Database, planned: Plan, groups: Groups) -> None:
        cube = planned.cube
        assert cube is not None
        keys = {name: f"k{place + 1}" for place, name in enumerate(cube.dimensions)}
        self._read(db, planned, groups.plain, keys, "", (), lambda values: groups.group(values))

    def _tag_cells(self, db: Database, planned: Plan, groups: Groups) -> None:
        """The records that have the tag, and under "" what is left of all of them."""
        (tag,) = (name for name in groups.plain if name not in PERIODS)
        place = groups.plain.index(tag)
        self._read(db, planned, groups.plain, {tag: "k2"}, " AND k1 = ?", (tag,), lambda values: groups.group(values))
        rest: dict[tuple[str, ...], Totals] = {}
        groups.untidy = True
        for values, totals in groups:
            key = (*values[:place], "", *values[place + 1 :])
            rest.setdefault(key, Totals()).merge(totals, -1)
        whole = tuple(name for name in groups.plain if name != tag)

        def unsaid(values: tuple[str, ...]) -> Totals:
            return rest.setdefault((*values[:place], "", *values[place:]), Totals())

        self._read(db, planned._replace(cube=CUBES[0]), whole, {}, "", (), unsaid)
        for values, totals in rest.items():
            groups.group(values).merge(totals)

    def _read(
        self,
        db: Database,
        planned: Plan,
        names: tuple[str, ...],
        keys: dict[str, str],
        extra: str,
        params: tuple[Any, ...],
        group: Callable[[tuple[str, ...]], Totals],
    ) -> None:
        periods = any(name in PERIODS for name in names)
        columns = list(dict.fromkeys(keys[name] for name in names if name not in PERIODS))
        if periods:
            columns.append("at")
        listed = "".join(f"{column}, " for column in columns)
        grouped = f"GROUP BY {listed}part"
        assert planned.cube is not None
        for grain, start, stop in planned.cells:
            where = f"WHERE cube = ? AND grain = ? AND at >= ? AND at < ?{extra}"
            bound = (planned.cube.name, grain, start, stop, *params)

            def values(row: Sequence[Any]) -> tuple[str, ...]:
                found = dict(zip(columns, row, strict=False))
                return tuple(
                    period_of(hour_of(found["at"]), name) if name in PERIODS else found[keys[name]] for name in names
                )

            many = len(columns)
            for row in self._added(db, f"{listed}part", where, grouped, bound):
                fill(group(values(row)), row[many], row[many + 1 :])
            for row in db.rows(f"SELECT {listed}unit, amount FROM cell_unit {where}", bound):
                add_unit(group(values(row)), row[many], Decimal(row[many + 1]))

    def _count(
        self, db: Database, start: int | None, stop: int | None, groups: Groups, progress: Progress | None
    ) -> None:
        whole = 0
        if progress is not None:
            ((whole,),) = db.rows(f"SELECT COUNT(*) FROM record r WHERE {_between('r', start, stop)}")
            progress(0, whole)
        seen = 0
        for page in pages(db, start, stop, " AND r.kind NOT IN ('run', 'step')", ()):
            for _, row in page:
                groups.add(record_of(row))
            seen += len(page)
            if progress is not None:
                progress(min(seen, whole), whole)
        if progress is not None:
            progress(whole, whole)

    # ---------------------------------------------------------------------------------------------- records

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        if limit is not None and limit <= 0:
            return []
        asked = "" if include_denied else f" AND r.status <> '{DENIED.value}'"
        sql = f"SELECT {_OF_R} FROM record r WHERE {_CALLS}{asked} AND {CURRENT} ORDER BY r.seq DESC"
        with self._reading() as db:
            rows = db.rows(f"{sql} LIMIT ?", (limit,)) if limit is not None else db.rows(sql)
        found: list[Any] = [record_of(row) for row in reversed(rows)]
        return found

    def records(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        kinds: Sequence[str] = (),
        newest_first: bool = False,
        **filters: str,
    ) -> Iterator[Record]:
        if any(name not in KNOWN and name not in CHOICES for name in filters):
            check_filters(filters, self._tags())
        low, high = _range(since, until)
        extra, params = "", []
        if kinds:
            extra += f" AND r.kind IN ({', '.join('?' * len(kinds))})"
            params += [Kind(kind).value for kind in kinds]
        late = {}
        for name, value in filters.items():
            if name in CHOICES:
                extra += f' AND r."{name}" = ?'
                params.append(value)
            else:
                late[name] = value
                extra += (
                    " AND (r.tools IS NOT NULL OR r.kind = 'tool')" if name == "tool" else " AND r.tags IS NOT NULL"
                )
        return self._stream(low, high, extra, tuple(params), newest_first, late)

    def _stream(
        self, low: int | None, high: int | None, extra: str, params: tuple[Any, ...], newest: bool, late: dict[str, str]
    ) -> Iterator[Record]:
        after = None
        while True:
            with self._reading() as db:  # anew for each page: a slow reader must not keep the log from being cleared
                page = next(pages(db, low, high, extra, params, newest, after), None)
            if not page:
                return
            for _, row in page:
                record = record_of(row)
                if not late or chosen(record, late):
                    yield record
            if len(page) < PAGE:
                return
            seq, row = page[-1]
            after = (row[4], seq)

    def changes(self, after: int = 0, limit: int = 1000) -> tuple[list[Record], int]:
        with self._reading() as db:
            rows = db.rows(
                f"SELECT r.seq, {_OF_R} FROM record r WHERE r.seq > ? ORDER BY r.seq LIMIT ?", (after, limit)
            )
        return [record_of(row[1:]) for row in rows], rows[-1][0] if rows else after

    def end(self) -> int:
        with self._reading() as db:
            ((last,),) = db.rows("SELECT MAX(seq) FROM record")
            return max(_folded(db), last or 0)

    def find(self, record_id: str) -> Record:
        select = f"SELECT {_OF_R} FROM record r WHERE"
        with self._reading() as db:
            rows = db.rows(f"{select} r.id = ? ORDER BY r.revision DESC LIMIT 1", (record_id,))
            if not rows and record_id:
                above = record_id + "\U0010ffff"
                found = db.rows("SELECT DISTINCT id FROM record WHERE id >= ? AND id < ? LIMIT 3", (record_id, above))
                if len(found) == 1:
                    rows = db.rows(f"{select} r.id = ? ORDER BY r.revision DESC LIMIT 1", found[0])
                elif found:
                    raise LookupError(f"several records begin with {record_id!r}: say more of it")
        if not rows:
            raise LookupError(f"no record {record_id!r} in the store")
        return record_of(rows[0])

    # --------------------------------------------------------------------------------------- tools and runs

    def tools(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, ToolMetrics]:
        low, high = _range(since, until)
        days: dict[str, ToolDay] = {}
        with self._reading() as db:
            folded = _folded(db)
            low, high = _whole_days(db, low, high)
            # Whole days from their sums; what sticks out at both ends from the records.
            start = None if low is None else -(-low // (_DAY * MICROS)) * _DAY
            stop = None if high is None else high // (_DAY * MICROS) * _DAY
            scans: list[tuple[int | None, int | None]] = []
            if start is not None and stop is not None and start >= stop:
                scans.append((low, high))
            else:
                self._tool_days(db, start, stop, days)
                if low is not None and start is not None and low < start * MICROS:
                    scans.append((low, start * MICROS))
                if high is not None and stop is not None and high > stop * MICROS:
                    scans.append((stop * MICROS, high))
            sums = Sums()
            for begin, end in scans:
                for page in pages(db, begin, end, " AND r.kind = 'tool'", ()):
                    for _, row in page:
                        sums.add(record_of(row))
            for record, sign in deltas(db, folded):
                at = micros(record.started_at)
                if sign == 1 and _inside(at, ((low, high),)) and not _inside(at, scans):
                    sums.add(record)
            for (name, _), day in sums.tools.items():
                _merge_day(days.setdefault(name, ToolDay()), day)
            errors = {name: self._last_errors(db, name) for name, day in days.items() if day.failed}
        metrics = [
            ToolMetrics(
                name,
                day.ok + day.failed,
                day.ok,
                day.failed,
                day.durations.sum,
                dollars(day.pico),
                total_chunks=day.chunks,
                streaming_calls=day.streamed,
                denied_calls=day.denied,
                last_errors=errors.get(name, ()),
                durations=day.durations,
            )
            for name, day in days.items()
        ]
        metrics.sort(key=lambda one: (-one.total_calls, one.name))
        return {one.name: one for one in metrics}

    def _tool_days(self, db: Database, start: int | None, stop: int | None, days: dict[str, ToolDay]) -> None:
        where = _between("d", start, stop)
        buckets: dict[str, list[list[int]]] = {}
        for name, bucket, calls in db.rows(
            f"SELECT name, bucket, SUM(calls) FROM tool_bucket d WHERE {where} GROUP BY name, bucket"
        ):
            buckets.setdefault(name, []).append([int(bucket), int(calls)])
        for name, ok, failed, denied, pico, chunks, streamed, seconds, low, high in db.rows(
            "SELECT name, SUM(ok), SUM(failed), SUM(denied), SUM(pico), SUM(chunks), SUM(streamed), SUM(seconds), "
            f"MIN(low), MAX(high) FROM tool_day d WHERE {where} GROUP BY name"
        ):
            zero = sum(calls for bucket, calls in buckets.get(name, ()) if bucket == ZERO_BUCKET)
            durations = LogHistogram.from_dict(
                {
                    "scale": 5,
                    "sum": seconds,
                    "min": low,
                    "max": high,
                    "zero_count": zero,
                    "buckets": [pair for pair in buckets.get(name, ()) if pair[0] != ZERO_BUCKET],
                }
            )
            counts = (int(ok), int(failed), int(denied), int(pico), int(chunks), int(streamed))
            days[name] = ToolDay(*counts, durations)

    def _last_errors(self, db: Database, name: str) -> tuple[str, ...]:
        rows = db.rows(
            "SELECT error_type FROM record WHERE kind = 'tool' AND error_type IS NOT NULL AND name = ? "
            "ORDER BY seq DESC LIMIT 5",
            (name,),
        )
        return tuple(error for (error,) in reversed(rows))

    def runs(self, limit: int = 20, since: datetime | None = None, until: datetime | None = None) -> list[RunRecord]:
        low, high = _range(since, until)
        with self._reading() as db:
            rows = db.rows(
                f"SELECT {_OF_R} FROM record r WHERE {_between('r', low, high)} AND r.kind = 'run' "
                "ORDER BY r.at DESC, r.seq DESC LIMIT ?",
                (limit,),
            )
        found: list[Any] = [record_of(row) for row in rows]
        return found

    def tree(self, run_id: str) -> RunTree:
        inside: set[str] = set()
        found: list[Record] = []
        with self._reading() as db:
            waiting = [run_id]
            while waiting:
                run = waiting.pop()
                if run in inside:
                    continue
                inside.add(run)
                rows = db.rows(f"SELECT {_OF_R} FROM record r WHERE r.run_id = ? AND {CURRENT} ORDER BY r.seq", (run,))
                for row in rows:
                    record = record_of(row)
                    found.append(record)
                    if record.kind in (Kind.RUN, Kind.STEP, Kind.TOOL):
                        waiting += [
                            id
                            for (id,) in db.rows(
                                "SELECT id FROM record WHERE kind = 'run' AND parent_id IS NOT NULL AND parent_id = ?",
                                (record.id,),
                            )
                        ]
        return tree_of(run_id, found)


def _merge_day(into: ToolDay, day: ToolDay) -> None:
    into.ok += day.ok
    into.failed += day.failed
    into.denied += day.denied
    into.pico += day.pico
    into.chunks += day.chunks
    into.streamed += day.streamed
    into.durations.merge(day.durations)


def _folded(db: Database) -> int:
    return int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'folded')")[0][0] or 0)


def _range(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    since, until = utc(since, "since"), utc(until, "until")
    return None if since is None else micros(since), None if until is None else micros(until)


def _whole_days(db: Database, low: int | None, high: int | None) -> tuple[int | None, int | None]:
    """Of days whose records were pruned only the sums of whole days are known."""
    pruned = int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'pruned')")[0][0] or 0) * MICROS
    if low is not None and low < pruned:
        low = low // (_DAY * MICROS) * _DAY * MICROS
    if high is not None and high < pruned:
        high = -(-high // (_DAY * MICROS)) * _DAY * MICROS
    return low, high


def _inside(at: int, ranges: Sequence[tuple[int | None, int | None]]) -> bool:
    return any((low is None or at >= low) and (high is None or at < high) for low, high in ranges)


def _between(table: str, low: int | None, high: int | None) -> str:
    parts = ["1 = 1"]
    if low is not None:
        parts.append(f"{table}.at >= {low:d}")
    if high is not None:
        parts.append(f"{table}.at < {high:d}")
    return " AND ".join(parts)


def pages(
    db: Database,
    low: int | None,
    high: int | None,
    extra: str,
    params: tuple[Any, ...],
    newest: bool = False,
    after: tuple[int, int] | None = None,
) -> Iterator[list[tuple[int, tuple[Any, ...]]]]:
    """Rows in the order of time, each in its last version, `PAGE` of them at a time."""
    way, beyond = ("DESC", "<") if newest else ("ASC", ">")
    while True:
        where = f"{_between('r', low, high)}{extra} AND {CURRENT}"
        bound = params
        if after is not None:
            where += f" AND r.at {beyond}= ? AND (r.at {beyond} ? OR r.seq {beyond} ?)"
            bound = (*params, after[0], after[0], after[1])
        sql = f"SELECT r.seq, {_OF_R} FROM record r WHERE {where} ORDER BY r.at {way}, r.seq {way} LIMIT {PAGE}"
        page = [(row[0], tuple(row[1:])) for row in db.rows(sql, bound)]
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = (page[-1][1][4], page[-1][0])
