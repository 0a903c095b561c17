"""Whether the sums of a ledger are those of its records, and what is done when they are not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

from ..records import Record
from ..totals import OTHER
from .base import Audit, Difference, Price, Progress
from .cells import DAY, HOUR, MEASURES, MICROS, MINUTE, MONTH, Sums, month_of, rows_of
from .ledger import Database, deltas
from .memory import repriced
from .reading import pages
from .rows import micros, record_of
from .schema import KEY

_KEY = ", ".join(KEY)
_ROW = ", ".join((*KEY, "part", *MEASURES))
_DAY = 1440
_MANY = 1_000  # differences that are listed one by one

_Group = tuple[str, int, int]  # cube, grain, beginning
_Rows = dict[tuple[str, ...], tuple[int, ...]]  # by keys and part


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
            wrong, costs = _Checking(db, price, progress, audit.records).all()
        for record in costs:
            audit.differences += repriced(record, price, ledger if repair else None)  # type: ignore[arg-type]
        audit.differences += [Difference("rollup", *said, repaired=repair) for _, said in wrong[:_MANY]]
        if repair and wrong:
            self._rebuild([group for group, _ in wrong])
        if repair and costs:
            ledger.flush()
        return audit

    def _rebuild(self, groups: Iterable[_Group]) -> None:
        """Put the cells of these cubes and periods right, from the records; months from their days."""
        ledger: Any = self
        for cube, grain, at in sorted(dict.fromkeys(groups), key=lambda group: group[1]):
            with ledger._writer.turn, ledger._writing() as db:
                folded, last = ledger._position(db)
                if last > folded:
                    ledger._fold(db, folded, last)
                ledger._tail = []
                if grain == MONTH:
                    right = _months_from_days(db, cube, at)
                else:
                    right = _computed(db, at // _DAY * _DAY).get((cube, grain, at), {})
                    if OTHER in {keys[0] for keys in _stored(db, (cube, grain, at))}:
                        continue  # who was put under "(other)" cannot be told any more
                where = "WHERE cube = ? AND grain = ? AND at = ?"
                db.run(f"DELETE FROM cell {where}", (cube, grain, at))
                marks = ", ".join("?" * (8 + len(MEASURES)))
                rows = [(cube, grain, at, *keys, *counts) for keys, counts in right.items()]
                db.many(f"INSERT INTO cell ({_ROW}) VALUES ({marks})", rows)


class _Checking:
    """One pass over the whole ledger."""

    def __init__(self, db: Database, price: Price | None, progress: Progress | None, whole: int) -> None:
        self._db, self._price, self._progress, self._whole = db, price, progress, whole
        self._seen = 0
        self._wrong: list[tuple[_Group, tuple[str, Any, Any]]] = []
        self._costs: list[Record] = []

    def all(self) -> tuple[list[tuple[_Group, tuple[str, Any, Any]]], list[Record]]:
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
        closed = _closed(db)
        found = db.rows("SELECT DISTINCT cube, at FROM cell WHERE grain IN (?, ?)", (DAY, MONTH))
        for cube, at in sorted({(cube, month_of(at)) for cube, at in found}):
            if at < closed:
                group = (cube, MONTH, at)
                self._compare(group, _stored(db, group), _months_from_days(db, cube, at))
        if self._progress is not None:
            self._progress(self._whole, self._whole)
        return self._wrong, self._costs

    def _check_day(self, day: int, floors: dict[int, int]) -> None:
        computed = _computed(self._db, day, self._look)
        stored: dict[_Group, _Rows] = {group: {} for group in computed}
        for grain in (MINUTE, HOUR, DAY):
            for row in self._db.rows(
                f"SELECT {_ROW} FROM cell WHERE grain = ? AND at >= ? AND at < ?", (grain, day, day + _DAY)
            ):
                if any(row[8:]):
                    stored.setdefault(row[:3], {})[tuple(row[3:8])] = tuple(int(count) for count in row[8:])
        for group, rows in stored.items():
            if group[2] >= floors.get(group[1], group[2]):
                self._compare(group, rows, computed.get(group, {}))

    def _look(self, record: Record) -> None:
        self._seen += 1
        if self._progress is not None and self._seen % 10_000 == 0:
            self._progress(min(self._seen, self._whole), self._whole)
        if self._price is not None and repriced(record, self._price, None):
            self._costs.append(record)

    def _compare(self, group: _Group, stored: _Rows, computed: _Rows) -> None:
        if any(keys[0] == OTHER or keys[1] == OTHER for keys in stored):
            # Who came too late to have a cell is under "(other)": the sum must be right all the same.
            stored, computed = {("(all)",): _sum(stored)}, {("(all)",): _sum(computed)}
        for keys in stored.keys() | computed.keys():
            zero = (0,) * len(MEASURES)
            said, right = stored.get(keys, zero), computed.get(keys, zero)
            if said != right:
                name = next(name for name, one, two in zip(MEASURES, said, right, strict=True) if one != two)
                place = MEASURES.index(name)
                where = f"{group[0]} {'/'.join(keys)} {_period(group)}: {name}"
                self._wrong.append((group, (where, said[place], right[place])))


def _computed(db: Database, day: int, look: Any = None) -> dict[_Group, _Rows]:
    """The cells of a day, from the records of that day, but for its month's."""
    sums = Sums()
    for page in pages(db, day * MICROS, (day + _DAY) * MICROS, "", ()):
        for _, row in page:
            record = record_of(row)
            sums.add(record)
            if look is not None:
                look(record)
    folded = int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'folded')")[0][0] or 0)
    for record, sign in deltas(db, folded):  # not counted yet
        if day * MICROS <= micros(record.started_at) < (day + _DAY) * MICROS:
            sums.add(record, -sign)
    groups: dict[_Group, _Rows] = {}
    for key, totals in sums.cells(closed=0).items():
        rows = groups.setdefault(key[:3], {})
        for row in rows_of(key, totals):
            if any(row[8:]):
                rows[tuple(row[3:8])] = tuple(row[8:])
    return groups


def _closed(db: Database) -> int:
    """Months before this minute have cells of their own."""
    return int(db.rows("SELECT (SELECT value FROM meta WHERE name = 'closed')")[0][0] or 0)


def _stored(db: Database, group: _Group) -> _Rows:
    found = db.rows(f"SELECT {_ROW} FROM cell WHERE cube = ? AND grain = ? AND at = ?", group)
    return {tuple(row[3:8]): tuple(int(count) for count in row[8:]) for row in found if any(row[8:])}


def _months_from_days(db: Database, cube: str, at: int) -> _Rows:
    sums: _Rows = {}
    for row in db.rows(
        f"SELECT {_ROW} FROM cell WHERE cube = ? AND grain = ? AND at >= ? AND at < ?",
        (cube, DAY, at, month_of(at + 32 * _DAY)),
    ):
        keys = tuple(row[3:8])
        known = sums.get(keys)
        counts = tuple(int(count) for count in row[8:])
        sums[keys] = counts if known is None else tuple(map(sum, zip(known, counts, strict=True)))
    return {keys: counts for keys, counts in sums.items() if any(counts)}


def _sum(rows: _Rows) -> tuple[int, ...]:
    """The sum of the whole cells, parts left out."""
    whole = [counts for keys, counts in rows.items() if not keys[-1]]
    return tuple(map(sum, zip(*whole, strict=True))) if whole else (0,) * len(MEASURES)


def _period(group: _Group) -> str:
    _, grain, at = group
    day = date.fromordinal(date(1970, 1, 1).toordinal() + at // _DAY).isoformat()
    if grain == MONTH:
        return day[:7]
    return day if grain == DAY else f"{day}T{at % _DAY // 60:02d}:{at % 60:02d}"
