"""The ledger in PostgreSQL: for many hosts. Needs the extra `postgres` (psycopg 3).

Whoever writes holds an advisory lock of the schema until the commit, so that batches from many hosts come one after
another; a batch is one COPY, and grows while others write. Tables are made in the first schema of the search path.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ..errors import StoreError
from . import schema
from .cells import MEASURES
from .ledger import ADDED, INSERT, Ledger, Refused
from .reading import Reading
from .rows import NAMES
from .upkeep import Upkeep
from .writer import LIMIT, Item

try:
    import psycopg
    from psycopg import conninfo
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise StoreError("a store in PostgreSQL needs psycopg: pip install 'agent-meter[postgres]'") from error

_TYPES = {
    "text": 'TEXT COLLATE "C"',
    "int": "BIGINT",
    "real": "DOUBLE PRECISION",
    "big": "BIGINT",
    "money": "NUMERIC(40, 0)",
    "exact": "NUMERIC",
}
_CONNECTIONS = 4  # kept for readers
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('agent_meter'), hashtext(current_schema()))"
_SUMS = ", ".join(f"SUM({name})" for name in MEASURES)
_KEY = ", ".join(schema.KEY)
_RECORD = ", ".join(f'"{name}"' for name in ("seq", *NAMES))
_CELL = ", ".join((*schema.KEY, "part", *MEASURES))


class PostgresDatabase:
    """One connection."""

    def __init__(self, url: str, timeout: float, settings: Sequence[str] = ()) -> None:
        self.raw = psycopg.connect(
            url, autocommit=True, connect_timeout=max(2, int(timeout)), fallback_application_name="agent_meter"
        )
        for setting in settings:
            self.raw.execute(setting)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._execute(sql, params).fetchall()

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self._execute(sql, params).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.raw.cursor() as cursor:
            cursor.executemany(_marked(sql), rows)

    def copy(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.raw.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def _execute(self, sql: str, params: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        # Without parameters, a percent sign is a percent sign.
        return self.raw.execute(_marked(sql), params) if params else self.raw.execute(sql.encode())


class _Lost(StoreError):
    """The connection broke, and with it the transaction; nobody knows whether a commit came through."""


class PostgresStore(Upkeep, Reading, Ledger):
    """A ledger at `url` (libpq's form). `durability="full"` waits for the server's disk whatever its settings say.

    `spill` names a local file for records that there is no room for while the server is away; without one they are
    dropped, and counted, beyond `limit` of them.
    """

    def __init__(
        self,
        url: str,
        durability: str = "normal",
        *,
        readonly: bool = False,
        limit: int = LIMIT,
        timeout: float = 10.0,
        spill: str | None = None,
    ) -> None:
        if durability not in ("normal", "full"):
            raise ValueError(f"durability is 'normal' or 'full', not {durability!r}")
        self._url = url
        self.durability = durability
        self._readonly = readonly
        self._timeout = timeout
        self._begin()
        with self._driven():
            db = self._connect()
            try:
                self._prepare(db)
            finally:
                db.raw.close()
        super().__init__(limit=limit, spill=spill)

    def __repr__(self) -> str:
        return f"<PostgresStore {self._place()}>"

    def _place(self) -> str:
        """Where it is, without a password."""
        try:
            parts = conninfo.conninfo_to_dict(self._url)
        except psycopg.Error:
            return "?"
        return f"{parts.get('host') or 'local'}/{parts.get('dbname') or parts.get('user') or ''}"

    def _begin(self) -> None:
        self._db: PostgresDatabase | None = None
        self._shared: PostgresDatabase | None = None
        self._shared_lock = threading.RLock()
        self._readers: list[PostgresDatabase] = []

    def _connect(self, settings: Sequence[str] = ()) -> PostgresDatabase:
        db = PostgresDatabase(self._url, self._timeout, settings)
        if db.rows("SELECT current_schema()") == [(None,)]:
            db.raw.close()
            raise StoreError(f"{self._place()}: no schema of the search path exists")
        return db

    def _prepare(self, db: PostgresDatabase) -> None:
        version, readable_by = self._version(db)
        if version > schema.VERSION and readable_by > schema.VERSION:
            raise StoreError(
                f"{self._place()} was written by a newer agent_meter: schema {version}, this one knows {schema.VERSION}"
            )
        if version >= schema.VERSION:
            return
        if self._readonly:
            raise StoreError(f"{self._place()} is of an older agent_meter, or no ledger: open it for writing once")
        with self._transaction(db):
            while (version := self._version(db)[0]) < schema.VERSION:
                steps = schema.tables(_TYPES, "") if version == 0 else schema.MIGRATIONS[version]
                for step in steps:
                    db.run(step)
                now = schema.VERSION if version == 0 else version + 1
                for name, value in (("schema", now), ("readable_by", schema.READABLE_BY)):
                    db.run(schema.META, (name, str(value)))

    def _version(self, db: PostgresDatabase) -> tuple[int, int]:
        """The schema of the ledger, and whose library may write to it; 0 when there is none."""
        # From the catalogue, by this statement's snapshot: `to_regclass` may answer from before the lock was had.
        found = "SELECT 1 FROM pg_tables WHERE schemaname = ANY(current_schemas(false)) AND tablename IN (?, ?)"
        if not db.rows(found, ("meta", "record")):
            return 0, 0
        try:
            values = dict(db.rows("SELECT name, value FROM meta WHERE name IN ('schema', 'readable_by')"))
            return int(values["schema"]), int(values["readable_by"])
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, KeyError) as error:
            raise StoreError(f"{self._place()} has tables of something else") from error

    def _renew(self) -> None:
        # A connection must not be used, and not be closed, by the child of the process that made it.
        _abandoned.append((self._db, self._shared, self._readers))
        self._begin()
        self._tail = []

    def _disconnect(self) -> None:
        for db in (self._db, self._shared, *self._readers):
            if db is not None:
                with contextlib.suppress(psycopg.Error):
                    db.raw.close()
        self._begin()

    def now(self) -> datetime:
        """The server's clock."""
        with self._reading() as db:
            return self._clock(db)

    def _clock(self, db: Any) -> datetime:
        ((now,),) = db.rows("SELECT clock_timestamp()")
        return now.astimezone(UTC)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------ connections

    @contextlib.contextmanager
    def _driven(self, refused: type[Exception] = Refused) -> Iterator[None]:
        """What the driver raises, in our words: `Refused` for what is wrong with a row, `StoreError` for the rest."""
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise refused(f"{type(error).__name__}: {error}") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise _Lost(f"{self._place()}: {str(error).strip() or type(error).__name__}") from error
        except psycopg.Error as error:
            raise StoreError(f"{self._place()}: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, db: PostgresDatabase, before: str = "") -> Iterator[None]:
        db.raw.execute("BEGIN")
        try:
            if before:
                db.raw.execute(before.encode())
            db.raw.execute(_LOCK)
            yield
            db.raw.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                db.raw.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[PostgresDatabase]:
        if self._readonly:
            raise StoreError(f"{self._place()} was opened to be read only")
        with self._driven():
            if self._db is None or self._db.raw.closed or self._db.raw.broken:
                settings = ["SET synchronous_commit = on"] if self.durability == "full" else []
                self._db = self._connect(settings)
                for table, like in (("incoming", "record"), ("incoming_cell", "cell")):
                    self._db.run(f"CREATE TEMP TABLE {table} (LIKE {like}) ON COMMIT DELETE ROWS")
            with self._transaction(self._db):
                yield self._db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """The tables to yourself, on a connection of your own: for counters that are read and written at once.

        Commits at the end, rolls back on an exception. It does not wait for the server's disk; the next record that
        is written takes it along.
        """
        with self._driven(StoreError), self._shared_lock:
            if self._shared is None or self._shared.raw.closed or self._shared.raw.broken:
                self._shared = self._connect()
            with (
                self._writer.occupied(),
                self._transaction(self._shared, "SET LOCAL synchronous_commit = off"),
            ):
                yield self._shared.raw

    @contextlib.contextmanager
    def _reading(self) -> Iterator[PostgresDatabase]:
        with self._driven():
            db = self._reader()
            keep = False
            try:
                db.raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield db
                db.raw.execute("COMMIT")
                keep = len(self._readers) < _CONNECTIONS
            finally:
                if keep:
                    self._readers.append(db)
                else:
                    db.raw.close()

    def _reader(self) -> PostgresDatabase:
        while self._readers:
            db = self._readers.pop()
            with contextlib.suppress(psycopg.Error):
                db.raw.execute("SELECT 1")  # the server may have been restarted since
                return db
            db.raw.close()
        return self._connect()

    # --------------------------------------------------------------------------------------------- dialect

    def _store(self, items: list[Item]) -> None:
        """Once more when the connection breaks: a record whose commit came through is known by its id."""
        try:
            super()._store(items)
        except _Lost:
            super()._store(items)

    def _known(self, db: Any, ids: list[str]) -> set[tuple[str, int]]:
        return set(db.rows("SELECT id, revision FROM record WHERE id = ANY(?)", (ids,)))

    def _insert(self, db: Any, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) < 5:
            db.many(f"{INSERT} ON CONFLICT DO NOTHING", rows)
            return
        db.copy("incoming", _RECORD, rows)
        stored = db.run(
            f"INSERT INTO record ({_RECORD}) SELECT {_RECORD} FROM incoming ORDER BY seq ON CONFLICT DO NOTHING"
        )
        if stored != len(rows):
            raise StoreError(f"{self._place()}: somebody writes to the ledger without its lock")

    def _add_cells(self, db: Any, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) < 20:
            super()._add_cells(db, rows)
            return
        db.copy("incoming_cell", _CELL, rows)
        db.run(
            f"INSERT INTO cell ({_CELL}) SELECT {_CELL} FROM incoming_cell "
            f"ON CONFLICT ({_KEY}, part) DO UPDATE SET {ADDED}"
        )
        db.run("DELETE FROM incoming_cell")

    def _add_units(self, db: Any, rows: list[tuple[Any, ...]]) -> None:
        db.many(
            f"INSERT INTO cell_unit ({_KEY}, unit, amount) VALUES (?, ?, ?, ?, ?, ?, ?, ?::numeric) "
            f"ON CONFLICT ({_KEY}, unit) DO UPDATE SET amount = cell_unit.amount + excluded.amount",
            rows,
        )

    def _added(self, db: Any, columns: str, where: str, grouped: str, params: tuple[Any, ...]) -> list[Any]:
        many = columns.count(",") + 1
        return [
            (*row[:many], *map(int, row[many:]))
            for row in db.rows(f"SELECT {columns}, {_SUMS} FROM cell {where} {grouped}", params)
        ]

    def _damage(self, db: Any) -> list[str]:
        return []


_abandoned: list[Any] = []


def _marked(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
