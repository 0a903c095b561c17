"""A ledger in an SQL database: what SQLite and PostgreSQL do alike.

Everything rests on three rules. Whoever writes has the ledger to itself (the database's lock), so that what is read
before a write still holds after it. A record is counted into the rollups exactly once: `folded` says up to which
record that was done, and moves in the transaction that does it. Whoever reads takes the rollups and the few
records behind `folded` from one snapshot, so that sums are those of the records at every moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, time, timedelta
from time import monotonic
from typing import Any, Protocol

from ..errors import StoreError
from ..records import Record
from ..totals import OTHER
from .base import Settlement
from .cells import (
    CUBES,
    DAY,
    HOUR,
    KEYS,
    MAX_CELLS,
    MEASURES,
    MICROS,
    MINUTE,
    MONTH,
    TAGS,
    Cells,
    Key,
    Sums,
    minute_of,
    month_of,
    next_month,
)
from .rows import NAMES, as_stored, dead_document, micros, record_of, row_of
from .schema import KEY, META
from .spill import Spill
from .writer import Item, Writer

FOLD = 256  # records that may wait for their place in the rollups; a batch as long is folded as it is written
KEEP_MINUTES, KEEP_HOURS = timedelta(hours=48), timedelta(days=90)
ZERO_BUCKET = -(1 << 20)  # where `tool_bucket` keeps durations below what a histogram tells apart


class Database(Protocol):
    """A connection, as the ledger uses one."""

    raw: Any  # the driver's own connection

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...
    def run(self, sql: str, params: Sequence[Any] = ()) -> int: ...
    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None: ...


_COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
_OF_R = ", ".join(f'r."{name}"' for name in NAMES)
INSERT = f"INSERT INTO record (seq, {_COLUMNS}) VALUES ({', '.join('?' * (len(NAMES) + 1))})"
CURRENT = "NOT EXISTS (SELECT 1 FROM record c WHERE c.corrects = r.id AND c.revision = r.revision + 1)"
_KEY = ", ".join(KEY)
ADDED = ", ".join(f"{name} = cell.{name} + excluded.{name}" for name in MEASURES)
_MARKS = ", ".join("?" * (len(KEY) + 1 + len(MEASURES)))
_CELL = (
    f"INSERT INTO cell ({_KEY}, part, {', '.join(MEASURES)}) VALUES ({_MARKS}) "
    f"ON CONFLICT ({_KEY}, part) DO UPDATE SET {ADDED}"
)


_DIMENSIONS = {cube.name: cube.dimensions for cube in CUBES}


class Refused(Exception):
    """The database does not take these records, whoever is to blame; it is well otherwise."""


class Ledger:
    """The writing half: see `reading` for the other one."""

    def __init__(self, *, limit: int, spill: str | None = None) -> None:
        self._settlements: dict[str, list[Settlement]] = {}
        self._stored = self._duplicates = self._dead = 0
        self._on_failure: Any = None
        self._tail: list[tuple[int, Record]] = []  # what this process has written and not folded, if nobody else has
        self._sizes: dict[tuple[str, int, int], list[int]] = {}
        self._folds = 0
        self._closed = 0  # months before this minute have cells in every cube
        self._next_upkeep = 0.0
        self._spill = None if spill is None else Spill(spill)
        self._writer = Writer(
            self._store,
            idle=self._upkeep,
            spill=None if self._spill is None else self._spill.leave,
            renew=self._renew,
            failed=self._told,
            limit=limit,
        )

    # What a database adds. `_writing` and `_reading` raise `StoreError` when it cannot be had, and `_writing` raises
    # `Refused` when it is well but does not take a row.

    def _writing(self) -> AbstractContextManager[Database]:
        raise NotImplementedError

    def _reading(self) -> AbstractContextManager[Database]:
        raise NotImplementedError

    def _known(self, db: Database, ids: list[str]) -> set[tuple[str, int]]:
        raise NotImplementedError

    def _insert(self, db: Database, rows: list[tuple[Any, ...]]) -> None:
        raise NotImplementedError

    def _add_cells(self, db: Database, rows: list[tuple[Any, ...]]) -> None:
        db.many(_CELL, rows)

    def _add_units(self, db: Database, rows: list[tuple[Any, ...]]) -> None:
        raise NotImplementedError

    def _renew(self) -> None:
        raise NotImplementedError

    def _disconnect(self) -> None:
        raise NotImplementedError

    def now(self) -> datetime:
        return datetime.now(UTC)

    def _clock(self, db: Database) -> datetime:
        return self.now()

    # ----------------------------------------------------------------------------------------- the caller's

    def put(self, record: Record) -> None:
        settlements = self._settlements.pop(record.id, None)
        self._writer.put(Item(record, () if settlements is None else tuple(settlements)))

    def attach(self, record_id: str, settlement: Settlement) -> None:
        self._settlements.setdefault(record_id, []).append(settlement)

    def flush(self, timeout: float | None = None) -> None:
        self._writer.flush(timeout)

    def close(self, timeout: float | None = 10.0) -> None:
        self._writer.close(timeout)
        with self._writer.turn:
            self._disconnect()

    def health(self) -> dict[str, Any]:
        writer = self._writer
        return {
            "stored": self._stored,
            "duplicates": self._duplicates,
            "queued": writer.queued,
            "dropped": writer.dropped,
            "dead": self._dead,
            "spilled": writer.spilled,
            "failures": writer.failures,
            "last_error": None if writer.last_error is None else str(writer.last_error),
        }

    def on_failure(self, tell: Any) -> None:
        """Call `tell(error)` for everything that goes wrong behind the caller's back."""
        self._on_failure = tell

    def _told(self, error: BaseException) -> None:
        if self._on_failure is not None:
            self._on_failure(error)

    # ------------------------------------------------------------------------------------------ the writer's

    def _store(self, items: list[Item]) -> None:
        rows: list[tuple[Item, tuple[Any, ...]]] = []
        dead: list[tuple[Item, BaseException]] = []
        for item in items:
            try:
                row = row_of(item.record)
                rows.append((item._replace(record=as_stored(item.record, row)), row))
            except Exception as error:
                dead.append((item, error))
        self._store_rows(rows, dead)

    def _store_rows(self, rows: list[tuple[Item, tuple[Any, ...]]], dead: list[tuple[Item, BaseException]]) -> None:
        """Write what can be written; what is refused is found by halves, and buried."""
        ready = _Ready.of(rows, self._closed) if len(rows) >= FOLD else None
        try:
            with self._writing() as db:
                new, tail = self._write(db, rows, ready)
                for item, error in dead:
                    self._bury(db, item, error)
        except StoreError:
            raise
        except Exception as refused:  # by the database; or it is a bug of ours, which must not stop all that follows
            if len(rows) > 1:
                half = len(rows) // 2
                self._store_rows(rows[:half], dead)
                self._store_rows(rows[half:], [])
                return
            if not rows:
                raise StoreError(f"the dead-letter table refuses: {refused}") from refused
            ((item, row),) = rows
            self._told(refused)
            if item.settlements:  # the record is not to blame; the hold that it would have settled expires
                self._store_rows([(Item(item.record), row)], dead)
            else:
                self._store_rows([], [*dead, (item, refused)])
            return
        self._tail = tail
        self._stored += new
        self._duplicates += len(rows) - new
        self._dead += len(dead)
        for item, error in dead:
            self._told(StoreError(f"{getattr(item.record, 'id', '?')!s} cannot be stored: {error}"))

    def _write(
        self, db: Database, rows: list[tuple[Item, tuple[Any, ...]]], ready: _Ready | None
    ) -> tuple[int, list[tuple[int, Record]]]:
        """Write what is not there yet; how many that were, and the records that wait for the rollups now."""
        if not rows:
            return 0, []
        folded, last = self._position(db)
        known = self._known(db, [row[0] for _, row in rows])
        tail = self._tail
        if (tail[-1][0] if tail else folded) != last or (tail and tail[0][0] != folded + 1):
            tail = []
        complete = len(tail) == last - folded
        new: list[tuple[Any, ...]] = []
        tail = list(tail)
        corrected = False
        settlements: list[Settlement] = []
        for item, row in rows:
            if (version := row[:2]) in known:
                continue
            known.add(version)
            last += 1
            new.append((last, *row))
            tail.append((last, item.record))
            corrected = corrected or row[2] is not None
            settlements += item.settlements
        if new:
            self._insert(db, new)
        if settlements:
            for settlement in settlements:
                try:
                    settlement.apply(db.raw)
                except StoreError:
                    raise
                except Exception as error:
                    raise Refused(f"a settlement failed: {type(error).__name__}: {error}") from error
        if last - folded < FOLD:
            return len(new), tail if complete else []
        plain = complete and not corrected and not db.rows("SELECT 1 FROM record WHERE corrects IS NOT NULL LIMIT 1")
        if not plain:
            self._fold(db, folded, last)
        elif ready is not None and len(tail) == len(rows):
            self._add_sums(db, ready, last)
        else:
            self._fold(db, folded, last, [record for _, record in tail])
        return len(new), []

    def _position(self, db: Database) -> tuple[int, int]:
        """Up to which record the rollups are complete, and the last one there is."""
        ((folded, last),) = db.rows(
            "SELECT (SELECT value FROM meta WHERE name = 'folded'), (SELECT MAX(seq) FROM record)"
        )
        folded = int(folded or 0)
        return folded, max(folded, last or 0)

    def _bury(self, db: Database, item: Item, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}"[:1000].replace("\0", "")
        id = str(getattr(item.record, "id", ""))[:1000].encode("utf-8", "replace").decode().replace("\0", "")
        document = dead_document(item.record).replace("\0", "").replace("\\u0000", "")
        at = micros(self._clock(db))
        db.run("INSERT INTO dead (id, at, reason, document) VALUES (?, ?, ?, ?)", (id, at, reason, document))

    # ------------------------------------------------------------------------------------------- the rollups

    def _fold(self, db: Database, folded: int, last: int, records: list[Record] | None = None) -> None:
        """Count the records behind `folded` into the cells; `records`, if they are at hand and none corrects one."""
        sums = Sums()
        if records is not None:
            for record in records:
                sums.add(record)
        else:
            for record, sign in deltas(db, folded):
                sums.add(record, sign)
        self._add_sums(db, _Ready(sums, self._closed), last)

    def _add_sums(self, db: Database, ready: _Ready, last: int) -> None:
        self._folds += 1
        self._close_months(db)
        if ready.closed != self._closed:
            ready = _Ready(ready.sums, self._closed)
        cells = self._bounded(db, ready.cells)
        self._add_cells(db, ready.rows if cells is ready.cells else _rows(cells))
        if ready.units:
            self._add_units(db, sorted((*key, str(amount)) for key, amount in ready.units.items()))
        self._add_tools(db, ready.sums)
        db.run(META, ("folded", str(last)))

    def _close_months(self, db: Database) -> None:
        """Give the months that are over cells in every cube."""
        ((known,),) = db.rows("SELECT (SELECT value FROM meta WHERE name = 'closed')")
        present = month_of(minute_of(self._clock(db)))
        closed = present if known is None else int(known)
        while closed < present:
            after = next_month(closed)
            names = ", ".join(f"'{cube.name}'" for cube in (*CUBES, TAGS) if not cube.live)
            days = f"cube IN ({names}) AND grain = {DAY} AND at >= {closed} AND at < {after}"
            db.run(
                f"INSERT INTO cell ({_KEY}, part, {', '.join(MEASURES)}) "
                f"SELECT cube, {MONTH}, {closed}, k1, k2, k3, part, {', '.join(f'SUM({n})' for n in MEASURES)} "
                f"FROM cell WHERE {days} GROUP BY cube, k1, k2, k3, part"
            )
            units = db.rows(f"SELECT cube, k1, k2, k3, unit, amount FROM cell_unit WHERE {days}")
            if units:
                self._add_units(db, [(row[0], MONTH, closed, *row[1:5], str(row[5])) for row in units])
            closed = after
        if known is None or int(known) != closed:
            db.run(META, ("closed", str(closed)))
        self._closed = closed

    def _add_tools(self, db: Database, sums: Sums) -> None:
        for (name, at), day in sorted(sums.tools.items()):
            durations = day.durations.to_dict()
            db.run(
                "INSERT INTO tool_day (name, at, ok, failed, denied, pico, chunks, streamed, seconds, low, high) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, at) DO UPDATE SET "
                "ok = tool_day.ok + excluded.ok, failed = tool_day.failed + excluded.failed, "
                "denied = tool_day.denied + excluded.denied, pico = tool_day.pico + excluded.pico, "
                "chunks = tool_day.chunks + excluded.chunks, streamed = tool_day.streamed + excluded.streamed, "
                "seconds = tool_day.seconds + excluded.seconds, "
                "low = CASE WHEN tool_day.low IS NULL OR excluded.low < tool_day.low THEN excluded.low "
                "ELSE tool_day.low END, "
                "high = CASE WHEN tool_day.high IS NULL OR excluded.high > tool_day.high THEN excluded.high "
                "ELSE tool_day.high END",
                (name, at, day.ok, day.failed, day.denied, day.pico, day.chunks, day.streamed, durations["sum"],
                 durations["min"], durations["max"]),
            )  # fmt: skip
            buckets = durations["buckets"]
            if durations["zero_count"]:
                buckets = [[ZERO_BUCKET, durations["zero_count"]], *buckets]
            db.many(
                "INSERT INTO tool_bucket (name, at, bucket, calls) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name, at, bucket) DO UPDATE SET calls = tool_bucket.calls + excluded.calls",
                [(name, at, bucket, calls) for bucket, calls in buckets],
            )

    def _bounded(self, db: Database, cells: Cells) -> Cells:
        """The cells, with newcomers under "(other)" where there are too many of a cube and a period."""
        groups: dict[tuple[str, int, int], int] = {}
        for key in cells:
            groups[key[:3]] = groups.get(key[:3], 0) + 1
        full = set()
        for group, more in groups.items():
            size = self._sizes.get(group)
            # Other processes add cells, too: what is known of a size is renewed now and then.
            if size is None or self._folds - size[1] > 100 or size[0] + more > MAX_CELLS:
                count = "SELECT COUNT(*) FROM (SELECT 1 FROM cell WHERE cube = ? AND grain = ? AND at = ? LIMIT ?) n"
                size = self._sizes[group] = [db.rows(count, (*group, MAX_CELLS))[0][0], self._folds]
            if size[0] + more > MAX_CELLS:
                full.add(group)
            size[0] += more
        if len(self._sizes) > 1000:
            self._sizes.clear()
        if not full:
            return cells
        bounded: Cells = {}
        for key, counts in cells.items():
            if key[:3] in full and not db.rows(
                "SELECT 1 FROM cell WHERE cube = ? AND grain = ? AND at = ? AND k1 = ? AND k2 = ? AND k3 = ? "
                "AND part = ?",
                key,
            ):
                key = _other(key)
            known = bounded.get(key)
            bounded[key] = counts if known is None else [one + two for one, two in zip(known, counts, strict=True)]
        return bounded

    def _upkeep(self) -> None:
        """In a quiet moment: what waits for its place in the rollups gets it; minutes of days ago are forgotten."""
        if self._spill is not None:
            self._spill.take_back(self._store)
        if self._tail or self._next_upkeep == 0.0:
            self.fold()
        if monotonic() > self._next_upkeep:
            self._next_upkeep = monotonic() + 3600
            self._forget(MINUTE, self.now() - KEEP_MINUTES)

    def fold(self) -> None:
        """Complete the rollups now."""
        with self._writer.turn, self._writing() as db:
            folded, last = self._position(db)
            if last > folded:
                self._fold(db, folded, last)
            self._tail = []

    def _forget(self, grain: int, before: datetime) -> None:
        minute = minute_of(before.astimezone(UTC)) // 1440 * 1440
        with self._writer.turn, self._writing() as db:
            db.run("DELETE FROM cell WHERE cube = 'model' AND grain = ? AND at < ?", (grain, minute))
            db.run("DELETE FROM cell_unit WHERE cube = 'model' AND grain = ? AND at < ?", (grain, minute))
            db.run(META, (f"grain {grain} from", str(minute)))

    # ---------------------------------------------------------------------------------------------- pruning

    def prune(self, before: datetime) -> int:
        from .counting import utc

        day = utc(before, "before")
        assert day is not None
        first_kept = datetime.combine(day.date(), time(), UTC)
        self._writer.flush()
        self.fold()
        gone = 0
        limit = minute_of(first_kept) * MICROS
        while True:  # a piece at a time, so that nobody waits long
            with self._writer.turn, self._writing() as db:
                deleted = db.run(
                    "DELETE FROM record WHERE seq IN (SELECT seq FROM record WHERE at < ? LIMIT 20000)", (limit,)
                )
                ((known,),) = db.rows("SELECT (SELECT value FROM meta WHERE name = 'pruned')")
                db.run(META, ("pruned", str(max(int(known or 0), minute_of(first_kept)))))
            gone += deleted
            if deleted < 20_000:
                break
        self._forget(HOUR, min(first_kept, self.now() - KEEP_HOURS))
        return gone


class _Ready:
    """Sums, counted before the ledger is locked, so that others can write meanwhile."""

    def __init__(self, sums: Sums, closed: int) -> None:
        self.sums, self.closed = sums, closed
        self.cells, self.units = sums.cells(closed)
        self.rows = _rows(self.cells)

    @classmethod
    def of(cls, rows: list[tuple[Item, tuple[Any, ...]]], closed: int) -> _Ready:
        sums = Sums()
        for item, _ in rows:
            sums.add(item.record)
        return cls(sums, closed)


def _rows(cells: Cells) -> list[tuple[Any, ...]]:
    """In one order for all writers: rows that are changed in different orders would make databases wait in circles."""
    return [(*key, *cells[key]) for key in sorted(cells)]


def _other(key: Key) -> Key:
    """The cell of those who come too late: provider and model stay, there are not many of them."""
    cube, grain, at, k1, k2, k3, part = key
    names = TAGS.dimensions if cube == TAGS.name else _DIMENSIONS[cube]
    keys = [
        OTHER if value and name not in ("provider", "model", "tag") else value
        for name, value in zip((*names, "", "")[:KEYS], (k1, k2, k3), strict=True)
    ]
    return (cube, grain, at, keys[0], keys[1], keys[2], part)


def deltas(db: Database, folded: int) -> Iterator[tuple[Record, int]]:
    """What the records behind `folded` change: each once, less what they correct of those before."""
    new = f"SELECT {_OF_R} FROM record r WHERE r.seq > ? AND {CURRENT} ORDER BY r.seq"
    old = (
        f"SELECT {_OF_R} FROM record n JOIN record r ON r.id = n.corrects AND r.revision = n.revision - 1 "
        "WHERE n.seq > ? AND n.corrects IS NOT NULL AND r.seq <= ?"
    )
    for sql, params, sign in ((new, (folded,), 1), (old, (folded, folded), -1)):
        for row in db.rows(sql, params):
            # What is damaged counts nowhere, and is what `verify` reports; it must not stop everything else.
            with contextlib.suppress(StoreError):
                yield record_of(row), sign
