"""Answers in a SQLite file, for any number of threads and processes.

A look and a change are one transaction each, in write-ahead mode: a process that is killed loses nothing that `set`
had returned from, and leaves nothing half done. Times are the system's clock, for processes share no other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreError
from . import codec
from .entries import Entry

TABLE = "agent_meter_answers_1"  # the number is that of this layout: another one gets another table
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    key TEXT PRIMARY KEY, answer TEXT NOT NULL, records TEXT NOT NULL, streamed TEXT NOT NULL,
    expires REAL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {TABLE}_used ON {TABLE} (used);
CREATE INDEX IF NOT EXISTS {TABLE}_expires ON {TABLE} (expires) WHERE expires IS NOT NULL;
"""
_NEXT = f"(SELECT coalesce(max(used), 0) + 1 FROM {TABLE})"  # noqa: S608 - no value of anybody's is in it
BUSY = 5.0  # seconds to wait for another process


class SqliteStorage:
    """`StoreError` when the file cannot be opened or is no database."""

    waits = True

    def __init__(self, path: str | os.PathLike[str], max_size: int, now: Callable[[], float]) -> None:
        self._path = Path(path)
        self._max_size = max_size
        self._now = now
        self._lock = threading.RLock()
        self._pid = 0
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        try:
            self._open()
        except OSError as error:
            raise StoreError(f"{self._path} cannot keep answers: {error}") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot keep answers: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        if self._connection is not None:
            # From before a fork. It must not be used here, and closing it would take the file from the parent.
            self._inherited.append(self._connection)
        # Answers are private: nobody else may read them.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        self._connection, self._pid = connection, os.getpid()
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error

    def get(self, key: str) -> Entry | None:
        with self._lock:
            connection = self._open()
            found = connection.execute(
                f"SELECT answer, records, streamed FROM {TABLE} WHERE key = ? AND (expires IS NULL OR expires > ?)",  # noqa: S608
                (key, self._now()),
            ).fetchone()
            if found is None:
                return None
            with contextlib.suppress(sqlite3.OperationalError):  # locked for long, or read-only: still an answer
                connection.execute(f"UPDATE {TABLE} SET used = {_NEXT} WHERE key = ?", (key,))  # noqa: S608
        answer, records, streamed = found
        return Entry(codec.loads(answer), codec.load_records(records), streamed)

    def set(self, key: str, entry: Entry, ttl: float | None) -> int:
        answer, records = codec.dumps(entry.answer), codec.dump_records(entry.records)
        with self._transaction() as connection:
            now = self._now()
            self._expire(connection, now)
            connection.execute(
                f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?, {_NEXT})",  # noqa: S608
                (key, answer, records, entry.streamed, None if ttl is None else now + ttl),
            )
            return self._make_room(connection)

    def _make_room(self, connection: sqlite3.Connection) -> int:
        if not self._max_size:
            return 0
        (size,) = connection.execute(f"SELECT count(used) FROM {TABLE}").fetchone()  # noqa: S608
        surplus: int = size - self._max_size
        if surplus <= 0:
            return 0
        oldest = f"SELECT key FROM {TABLE} ORDER BY used LIMIT ?"  # noqa: S608
        connection.execute(f"DELETE FROM {TABLE} WHERE key IN ({oldest})", (surplus,))  # noqa: S608
        return surplus

    def _expire(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute(f"DELETE FROM {TABLE} WHERE expires <= ?", (now,))  # noqa: S608

    def delete(self, key: str) -> bool:
        with self._transaction() as connection:
            self._expire(connection, self._now())
            return connection.execute(f"DELETE FROM {TABLE} WHERE key = ?", (key,)).rowcount > 0  # noqa: S608

    def clear(self) -> None:
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM {TABLE}")  # noqa: S608

    def size(self) -> int:
        with self._lock:
            row = self._open().execute(
                f"SELECT count(*) FROM {TABLE} WHERE expires IS NULL OR expires > ?",  # noqa: S608
                (self._now(),),
            )
            size: int = row.fetchone()[0]
            return size

    def close(self) -> None:
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def after_fork(self) -> None:
        self._lock = threading.RLock()
