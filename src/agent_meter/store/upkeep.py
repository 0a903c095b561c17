"""Whether the sums of a ledger are those of its records, and what is done when they are not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

from ..records import Record, ToolRecord
from ..totals import OTHER
from .base import Audit, Difference, Price, Progress
from .cells import CUBES, DAY, LIVE, MEASURES, MICROS, MONTH, TAGS, Sums, month_of
from .ledger import Database, deltas
from .memory import repriced
from .reading import pages
from .rows import micros, record_of
from .schema import KEY

_KEY = ", ".join(KEY)
_ROW = ", ".join((*KEY, "part", *MEASURES))
_COUNTS = len(KEY) + 1  # where the counts of a row begin
_DAY = 1440
_ZERO = (0,) * len(MEASURES)
_UNIT = "\0"  # before the name of a unit, where a row has the name of a tool
TOOLS = "tools"
_MANY = 1_000  # differences that are listed one by one

_Group = tuple[str, int, int]  # cube, grain, beginning
_Rows = dict[tuple[str, ...], tuple[Any, ...]]  # by keys and part


class Upkeep:
    """`verify` of a ledger in an SQL database."""

    def verify(self, *, repair: bool = False, price: Price | None = None, progress: Progress | None = None) -> Audit:
        """Count everything anew and compare, day by day; see `Store.verify`."""
        ledger: Any = self
        audit = Audit()
        if not ledger._readonly:
            ledger.flush()
            ledger.fold()
        with ledger._reading() as db:
            audit.differences += [Difference("damage", line) for line in ledger._damage(db)]
            ((audit.dead,),) = db.rows("SELECT COUNT(*) FROM dead")
            ((audit.records,),) = db.rows("SELECT COUNT(*) FROM record")
            ((audit.cells,),) = db.rows("SELECT COUNT(*) FROM cell")
            checking = _Checking(db, price, progress, audit.records)
            try:
                checking.all()
            except Exception as error:  # whatever stands in a file that something else has written to
                audit.differences.append(Difference("damage", f"{type(error).__name__}: {error}"))
            wrong, costs = checking.wrong, checking.costs
        for record in costs:
            audit.differences += repriced(record, price, ledger if repair else None)  # type: ignore[arg-type]
        right = self._rebuild([group for group, _ in wrong]) if repair else set()
        audit.differences += [Difference("rollup", *said, repaired=group in right) for group, said in wrong[:_MANY]]
        if repair and costs:
            ledger.flush()
        return audit

    def _rebuild(self, groups: Iterable[_Group]) -> set[_Group]:
        """Put the cells of these cubes and periods right, months from their days; which could be."""
        ledger: Any = self
        done = set()
        for group in sorted(dict.fromkeys(groups), key=lambda group: group[1]):
            cube, grain, at = group
            with ledger._writer.turn, ledger._writing() as db:
                folded, last = ledger._position(db)
                if last > folded:
                    ledger._fold(db, folded, last)
                ledger._tail = []
                if cube == TOOLS:
                    db.run("DELETE FROM tool_day WHERE at = ?", (at,))
                    db.run("DELETE FROM tool_bucket WHERE at = ?", (at,))
                    ledger._add_tools(db, _sums(db, at))
                    done.add(group)
                    continue
                if grain == MONTH:
                    rows = _months_from_days(db, cube, at)
                elif any(OTHER in keys for keys in _stored(db, cube, grain, at, at + 1).get(group, ())):
                    continue  # who was put under "(other)" cannot be told any more
                else:
                    rows = _computed(_sums(db, at // _DAY * _DAY)).get(group, {})
                for table in ("cell", "cell_unit"):
                    db.run(f"DELETE FROM {table} WHERE cube = ? AND grain = ? AND at = ?", group)
                cells = [(*group, *keys, *counts) for keys, counts in rows.items() if keys[3][:1] != _UNIT]
                marks = ", ".join("?" * (len(KEY) + 1 + len(MEASURES)))
                db.many(f"INSERT INTO cell ({_ROW}) VALUES ({marks})", cells)
                units = [(*group, *k[:3], k[3][1:], str(n[0])) for k, n in rows.items() if k[3][:1] == _UNIT]
                if units:
                    ledger._add_units(db, units)
                done.add(group)
        return done


class _Checking:
    """One pass over the whole ledger."""

    def __init__(self, db: Database, price: Price | None, progress: Progress | None, whole: int) -> None:
        self._db, self._price, self._progress, self._whole = db, price, progress, whole
        self._seen = 0
        self.wrong: list[tuple[_Group, tuple[str, Any, Any]]] = []
        self.costs: list[Record] = []

    def all(self) -> None:
        db = self._db
        pruned = int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'pruned')")[0][0] or 0)
        days = {day for (day,) in db.rows("SELECT DISTINCT at FROM cell WHERE cube = 'model' AND grain = ?", (DAY,))}
        ((first, last),) = db.rows("SELECT MIN(at), MAX(at) FROM record")
        if first is not None:
            days.update(range(first // MICROS // _DAY * _DAY, last // MICROS + 1, _DAY))
        floors = {
            int(name.split()[1]): int(value)
            for name, value in db.rows("SELECT name, value FROM meta WHERE name LIKE 'grain %'")
        }
        for day in sorted(days):
            if day >= pruned:
                self._check_day(day, floors)
        closed = int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'closed')")[0][0] or 0)
        found = db.rows("SELECT DISTINCT cube, at FROM cell WHERE grain IN (?, ?)", (DAY, MONTH))
        for cube, at in sorted({(cube, month_of(at)) for cube, at in found}):
            if cube not in LIVE and at >= closed:
                continue
            group = (cube, MONTH, at)
            self._compare(group, _stored(db, cube, MONTH, at, at + 1).get(group, {}), _months_from_days(db, cube, at))
        if self._progress is not None:
            self._progress(self._whole, self._whole)

    def _check_day(self, day: int, floors: dict[int, int]) -> None:
        sums = _sums(self._db, day, self._look)
        computed = _computed(sums)
        stored: dict[_Group, _Rows] = {group: {} for group in computed}
        for cube in (*CUBES, TAGS):
            for grain in cube.grains:
                if grain != MONTH:
                    stored.update(_stored(self._db, cube.name, grain, day, day + _DAY))
        for group, rows in stored.items():
            if group[2] >= floors.get(group[1], group[2]):
                self._compare(group, rows, computed.get(group, {}))
        tools: _Rows = {
            (name,): (one.ok, one.failed, one.denied, one.pico, one.chunks, one.durations.count)
            for (name, at), one in sums.tools.items()
            if at == day
        }
        known: _Rows = {
            (row[0],): tuple(int(count or 0) for count in row[1:])
            for row in self._db.rows(
                "SELECT name, ok, failed, denied, pico, chunks, (SELECT SUM(calls) FROM tool_bucket b "
                "WHERE b.name = d.name AND b.at = d.at) FROM tool_day d WHERE at = ?",
                (day,),
            )
        }
        for keys in tools.keys() | known.keys():
            if (said := known.get(keys, ())) != (right := tools.get(keys, ())):
                group = (TOOLS, DAY, day)
                self.wrong.append((group, (f"tool {keys[0]} {_period(group)}", said, right)))

    def _look(self, record: Record) -> None:
        self._seen += 1
        if self._progress is not None and self._seen % 10_000 == 0:
            self._progress(min(self._seen, self._whole), self._whole)
        if self._price is not None and repriced(record, self._price, None):
            self.costs.append(record)

    def _compare(self, group: _Group, stored: _Rows, computed: _Rows) -> None:
        if any(OTHER in keys for keys in (*stored, *computed)):
            # Who came too late to have a cell is under "(other)": the sum must be right all the same.
            stored, computed = {("(all)",): _sum(stored)}, {("(all)",): _sum(computed)}
        for keys in stored.keys() | computed.keys():
            said, right = stored.get(keys, _ZERO), computed.get(keys, _ZERO)
            if said != right:
                place = next(place for place, pair in enumerate(zip(said, right, strict=True)) if pair[0] != pair[1])
                name = keys[-1][1:] if keys[-1][:1] == _UNIT else MEASURES[place]
                where = f"{group[0]} {'/'.join(keys[:3])} {_period(group)}: {name}"
                self.wrong.append((group, (where, said[place], right[place])))


def _sums(db: Database, day: int, look: Any = None) -> Sums:
    """What the records of a day come to."""
    sums = Sums()
    folded = int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'folded')")[0][0] or 0)
    waiting = [
        (record, sign)
        for record, sign in deltas(db, folded)  # not counted yet
        if day * MICROS <= micros(record.started_at) < (day + _DAY) * MICROS
    ]
    # A histogram cannot be taken back: what waits of the tools is left out from the beginning.
    tools = {record.id for record, _ in waiting if type(record) is ToolRecord}
    for page in pages(db, day * MICROS, (day + _DAY) * MICROS, "", ()):
        for _, row in page:
            record = record_of(row)
            if record.id not in tools:
                sums.add(record)
            if look is not None:
                look(record)
    for record, sign in waiting:
        if record.id not in tools:
            sums.add(record, -sign)
    return sums


def _computed(sums: Sums) -> dict[_Group, _Rows]:
    """The cells of a day, but for its month's."""
    groups: dict[_Group, _Rows] = {}
    cells, units = sums.cells(closed=0)
    for key, counts in cells.items():
        if key[1] != MONTH and any(counts):
            groups.setdefault(key[:3], {})[key[3:]] = tuple(counts)
    for key, amount in units.items():
        if key[1] != MONTH and amount:
            groups.setdefault(key[:3], {})[(*key[3:6], _UNIT + key[6])] = _amount(amount)
    return groups


def _amount(amount: Any) -> tuple[Any, ...]:
    return (Decimal(amount), *_ZERO[1:])


def _stored(db: Database, cube: str, grain: int, low: int, high: int) -> dict[_Group, _Rows]:
    groups: dict[_Group, _Rows] = {}
    where = "WHERE cube = ? AND grain = ? AND at >= ? AND at < ?"
    for row in db.rows(f"SELECT {_ROW} FROM cell {where}", (cube, grain, low, high)):
        if any(row[_COUNTS:]):
            counts = tuple(int(count or 0) for count in row[_COUNTS:])
            groups.setdefault(tuple(row[:3]), {})[tuple(row[3:_COUNTS])] = counts
    for row in db.rows(f"SELECT {_KEY}, unit, amount FROM cell_unit {where}", (cube, grain, low, high)):
        if amount := Decimal(row[7]):
            groups.setdefault(tuple(row[:3]), {})[(*row[3:6], _UNIT + row[6])] = _amount(amount)
    return groups


def _months_from_days(db: Database, cube: str, at: int) -> _Rows:
    sums: _Rows = {}
    for rows in _stored(db, cube, DAY, at, month_of(at + 32 * _DAY)).values():
        for keys, counts in rows.items():
            known = sums.get(keys)
            sums[keys] = counts if known is None else tuple(map(sum, zip(known, counts, strict=True)))
    return {keys: counts for keys, counts in sums.items() if any(counts)}


def _sum(rows: _Rows) -> tuple[int, ...]:
    """The sum of the whole cells, parts left out."""
    whole = [counts for keys, counts in rows.items() if not keys[-1] or keys[-1][:1] == _UNIT]
    return tuple(map(sum, zip(*whole, strict=True))) if whole else _ZERO


def _period(group: _Group) -> str:
    _, grain, at = group
    day = date.fromordinal(date(1970, 1, 1).toordinal() + at // _DAY).isoformat()
    if grain == MONTH:
        return day[:7]
    return day if grain == DAY else f"{day}T{at % _DAY // 60:02d}:{at % 60:02d}"
