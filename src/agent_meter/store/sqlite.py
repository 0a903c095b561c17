"""The ledger in one SQLite file: for one machine, any number of processes.

Write-ahead log, `BEGIN IMMEDIATE`, and beside the file a lock (`meter.db-lock`) that writers queue at, because
SQLite's own waiting is unfair. Never put the file on a network file system: its locks do not hold there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from ..errors import StoreError
from . import schema
from .cells import MEASURES
from .ledger import INSERT, Ledger, Refused
from .reading import Reading
from .upkeep import Upkeep
from .writer import LIMIT

try:
    import fcntl
except ImportError:  # Windows: SQLite's own waiting has to do
    fcntl = None  # type: ignore[assignment]

_TYPES = {"text": "TEXT", "int": "INTEGER", "real": "REAL", "big": "INTEGER", "money": "INTEGER", "exact": "TEXT"}
_BUSY = 30.0  # seconds to wait for another writer
_CONNECTIONS = 8  # kept for readers
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError)
_SUMS = ", ".join(f"SUM({name})" for name in MEASURES)


class SqliteDatabase:
    """One connection."""

    def __init__(self, path: str, *, readonly: bool = False, synchronous: str = "NORMAL", busy: float = _BUSY) -> None:
        uri = f"file:{_quoted(path)}{'?mode=ro' if readonly else ''}"
        self.raw = sqlite3.connect(uri, uri=True, timeout=busy, isolation_level=None, check_same_thread=False)
        try:
            if not readonly:
                self.raw.execute(f"PRAGMA synchronous = {synchronous}")
            self.raw.execute("PRAGMA cache_size = -16000")
            self.raw.create_function("exact_add", 2, _exact_add, deterministic=True)
        except BaseException:
            self.raw.close()
            raise

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.raw.execute(sql, params).fetchall()

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self.raw.execute(sql, params).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.raw.executemany(sql, rows)


class SQLiteStore(Upkeep, Reading, Ledger):
    """A ledger in the file `path`. `durability="normal"` survives the death of the process, `"full"` a power cut.

    `readonly=True` is for those who only ask: nothing is made, changed or migrated.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: str = "normal",
        *,
        readonly: bool = False,
        limit: int = LIMIT,
        busy: float = _BUSY,
    ) -> None:
        if durability not in ("normal", "full"):
            raise ValueError(f"durability is 'normal' or 'full', not {durability!r}")
        self.path = os.path.abspath(path)
        self.durability = durability
        self._readonly = readonly
        self._busy = busy
        self._begin()
        self._open()
        super().__init__(limit=limit, spill=None if readonly else f"{self.path}-spill")

    def __repr__(self) -> str:
        return f"<SQLiteStore {self.path}>"

    def _begin(self) -> None:
        self._db: SqliteDatabase | None = None
        self._shared: SqliteDatabase | None = None
        self._gate = _Gate(self.path)
        self._shared_gate = _Gate(self.path)
        self._shared_lock = threading.RLock()
        self._readers: list[SqliteDatabase] = []

    def _open(self) -> None:
        """Make the file what this library wants, or say why it cannot be."""
        with _told(self.path):
            if self._readonly:
                if not os.path.exists(self.path):
                    raise StoreError(f"there is no ledger {self.path}")
                db = SqliteDatabase(self.path, readonly=True)
            else:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                db = SqliteDatabase(self.path, busy=self._busy)
            try:
                self._prepare(db)
            finally:
                db.raw.close()

    def _prepare(self, db: SqliteDatabase) -> None:
        version = _version(db)
        if version > schema.VERSION and _readable_by(db) > schema.VERSION:
            raise StoreError(
                f"{self.path} was written by a newer agent_meter (schema {version}, this one knows {schema.VERSION})"
            )
        if version >= schema.VERSION:
            return
        if self._readonly:
            raise StoreError(f"{self.path} is of an older agent_meter, or no ledger: open it for writing once")
        with self._gate:
            db.raw.execute("PRAGMA journal_mode = WAL")
            db.raw.execute("PRAGMA journal_size_limit = 67108864")
            while (version := _version(db)) < schema.VERSION:  # another process may have been faster
                if version == 0 and db.rows("SELECT 1 FROM sqlite_master WHERE name IN ('record', 'meta')"):
                    raise StoreError(f"{self.path} is a database of something else")
                with _transaction(db):
                    if _version(db) != version:
                        continue
                    steps = schema.tables(_TYPES, "STRICT") if version == 0 else schema.MIGRATIONS[version]
                    for step in steps:
                        db.raw.execute(step)
                    now = schema.VERSION if version == 0 else version + 1
                    db.raw.execute(f"PRAGMA user_version = {now}")
                    values = {"schema": str(now), "readable_by": str(schema.READABLE_BY)}
                    db.many(schema.META, list(values.items()))

    def _renew(self) -> None:
        # A connection must not be used, and not be closed, by the child of the process that made it.
        _abandoned.append((self._db, self._shared, self._readers))
        self._gate.forget()
        self._shared_gate.forget()
        self._begin()
        self._tail = []

    def _disconnect(self) -> None:
        for db in (self._db, self._shared, *self._readers):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.raw.close()
        self._db = self._shared = None
        self._readers = []
        self._gate.forget()
        self._shared_gate.forget()

    # ------------------------------------------------------------------------------------------ connections

    @contextlib.contextmanager
    def _writing(self) -> Iterator[SqliteDatabase]:
        if self._readonly:
            raise StoreError(f"{self.path} was opened to be read only")
        with _told(self.path):
            if self._db is None:
                synchronous = "FULL" if self.durability == "full" else "NORMAL"
                self._db = SqliteDatabase(self.path, synchronous=synchronous, busy=self._busy)
            with self._gate, _transaction(self._db):
                yield self._db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The file to yourself, on a connection of your own: for counters that are read and written at once.

        Commits at the end, rolls back on an exception. It does not wait for the disk: what is in the log survives
        the process, and the next record that is written with `durability="full"` takes it along to the disk.
        """
        with _told(self.path, StoreError), self._shared_lock:
            if self._shared is None:
                self._shared = SqliteDatabase(self.path, busy=self._busy)
                self._shared.raw.execute("PRAGMA wal_autocheckpoint = 0")  # that is the writer thread's work
            with self._writer.occupied(), self._shared_gate, _transaction(self._shared):
                yield self._shared.raw

    @contextlib.contextmanager
    def _reading(self) -> Iterator[SqliteDatabase]:
        with _told(self.path):
            try:
                db = self._readers.pop()
            except IndexError:
                db = SqliteDatabase(self.path, readonly=True)
            keep = False
            try:
                db.raw.execute("BEGIN")
                yield db
                keep = True
            finally:
                if keep and len(self._readers) < _CONNECTIONS:
                    db.raw.execute("COMMIT")
                    self._readers.append(db)
                else:
                    db.raw.close()

    # --------------------------------------------------------------------------------------------- dialect

    def _known(self, db: Any, ids: list[str]) -> set[tuple[str, int]]:
        if len(ids) == 1:
            found = db.rows("SELECT id, revision FROM record WHERE id = ?", ids)
        else:
            found = []
            for start in range(0, len(ids), 500):
                some = ids[start : start + 500]
                found += db.rows(f"SELECT id, revision FROM record WHERE id IN ({', '.join('?' * len(some))})", some)
        return set(found)

    def _insert(self, db: Any, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) == 1:
            db.raw.execute(INSERT, rows[0])
        else:
            db.raw.executemany(INSERT, rows)

    def _add_units(self, db: Any, rows: list[tuple[Any, ...]]) -> None:
        key = ", ".join(schema.KEY)
        db.many(
            f"INSERT INTO cell_unit ({key}, unit, amount) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            f"ON CONFLICT ({key}, unit) DO UPDATE SET amount = exact_add(cell_unit.amount, excluded.amount)",
            rows,
        )

    def _added(self, db: Any, columns: str, where: str, grouped: str, params: tuple[Any, ...]) -> list[Any]:
        try:
            return list(db.rows(f"SELECT {columns}, {_SUMS} FROM cell {where} {grouped}", params))
        except sqlite3.OperationalError as error:
            if "integer overflow" not in str(error):
                raise
        # More than 64 bits hold (9.2 million dollars): the numbers one by one, added here.
        sums: dict[Any, list[int]] = {}
        many = columns.count(",") + 1
        for row in db.rows(f"SELECT {columns}, {', '.join(MEASURES)} FROM cell {where}", params):
            known = sums.setdefault(row[:many], [0] * len(MEASURES))
            sums[row[:many]] = [one + two for one, two in zip(known, row[many:], strict=True)]
        return [(*key, *counts) for key, counts in sums.items()]

    def _damage(self, db: Any) -> list[str]:
        return [line for (line,) in db.rows("PRAGMA quick_check(20)") if line != "ok"]


class _Gate:
    """Where the writers of all processes queue, one at a time. Each has a file handle of its own."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-lock"
        self._file = -1

    def __enter__(self) -> None:
        if fcntl is None:
            return
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def forget(self) -> None:
        """Close the handle. In a forked child this leaves the parent's lock alone, which must not outlive it here."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1


_abandoned: list[Any] = []


@contextlib.contextmanager
def _transaction(db: SqliteDatabase) -> Iterator[None]:
    db.raw.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.raw.execute("COMMIT")
    except BaseException:
        if db.raw.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.raw.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _told(path: str, refused: type[Exception] = Refused) -> Iterator[None]:
    """What the driver raises, in our words: `Refused` for what is wrong with a row, `StoreError` for the rest."""
    try:
        yield
    except _REFUSALS as error:
        raise refused(f"{type(error).__name__}: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: {error}") from error


def _version(db: SqliteDatabase) -> int:
    return int(db.rows("PRAGMA user_version")[0][0])


def _readable_by(db: SqliteDatabase) -> int:
    try:
        ((value,),) = db.rows("SELECT value FROM meta WHERE name = 'readable_by'")
        return int(value)
    except (sqlite3.Error, ValueError):
        return 1 << 30


def _exact_add(one: str, other: str) -> str:
    return str(Decimal(one) + Decimal(other))


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
