"""Counters and holds in an SQLite file: the ledger's own, or one by itself. For one machine, any number of processes.

In the ledger's file a settlement is part of the transaction that writes the record, so that what was used is the
ledger's sum and what was charged for calls without an end, after any crash.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ..errors import StoreError
from .engine import Change, Count, Entry, Refusal, tightest
from .windows import DAY, SteadyClock

try:
    import fcntl
except ImportError:  # Windows: SQLite's own waiting has to do
    fcntl = None  # type: ignore[assignment]

TABLES = (
    "CREATE TABLE IF NOT EXISTS budget_counter (key TEXT NOT NULL, slot INTEGER NOT NULL, until INTEGER NOT NULL, "
    "used INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0), reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0), "
    "high INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (key, slot)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS budget_hold (id TEXT PRIMARY KEY, expires INTEGER NOT NULL, entries BLOB NOT NULL, "
    "charged BLOB) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS budget_hold_open ON budget_hold (expires) WHERE charged IS NULL",
    "CREATE TABLE IF NOT EXISTS budget (name TEXT NOT NULL, source TEXT NOT NULL, document TEXT NOT NULL, "
    "PRIMARY KEY (name, source)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS budget_clock (one INTEGER PRIMARY KEY CHECK (one = 1), seen INTEGER NOT NULL)",
)
_HELD = "INSERT INTO budget_hold (id, expires, entries) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
_STANDS = (
    "SELECT COALESCE(SUM(used), 0), COALESCE(SUM(reserved), 0), "
    "MIN(CASE WHEN used > 0 OR reserved > 0 THEN slot END) FROM budget_counter WHERE key = ? AND slot >= ?"
)
_RESERVE = (
    "INSERT INTO budget_counter (key, slot, until, reserved) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (key, slot) DO UPDATE SET reserved = reserved + excluded.reserved"
)
_ADD = (
    "INSERT INTO budget_counter (key, slot, until, used) VALUES (?1, ?2, ?3, MAX(0, ?4)) "
    "ON CONFLICT (key, slot) DO UPDATE SET used = MAX(0, used + ?4)"
)
_SETTLE = "UPDATE budget_counter SET reserved = reserved - ?, used = MAX(0, used + ?) WHERE key = ? AND slot = ?"
_SINCE = "SELECT COALESCE(SUM(used), 0), COALESCE(MAX(high), 0) FROM budget_counter WHERE key = ? AND slot >= ?"
_HIGH = "UPDATE budget_counter SET high = ? WHERE key = ? AND slot = ? AND high < ?"
BUSY = 30.0
TICK, UPKEEP = 1000, 3_600_000  # ms between two notes of the time, and between two clearings

Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]
_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class _RefusedError(Exception):
    """Takes a refusal out of a transaction, which is rolled back."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


class SqliteEngine:
    """The engine of one file. `transaction` is a store's, where the file is a ledger."""

    blocking = True

    def __init__(
        self,
        path: str | os.PathLike[str] = "",
        *,
        transaction: Transaction | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.now = SteadyClock(now)
        self._file = None if transaction is not None else _File(os.path.abspath(path))
        self._transaction = transaction if transaction is not None else self._file.transaction  # type: ignore[union-attr]
        self._noted = self._cleared = 0
        with self._transaction() as db:
            for table in TABLES:
                db.execute(table)
            for (seen,) in db.execute("SELECT seen FROM budget_clock").fetchall():
                self.now.at_least(seen)

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> Refusal | None:
        try:
            with self._transaction() as db:
                # The first statement: who has the same hold already has nothing more to do.
                if not db.execute(_HELD, (hold, expires, _encode([entry[:5] for entry in entries]))).rowcount:
                    return None
                refusals = []
                for position, (key, _, since, _, amount, limit) in enumerate(entries):
                    if limit is not None:
                        used, reserved, oldest = db.execute(_STANDS, (key, since)).fetchone()
                        if limit <= 0 or used + reserved + amount > limit:
                            refusals.append((Refusal(position, used, reserved, oldest), entries[position]))
                if refusals:
                    raise _RefusedError(tightest(refusals))
                db.executemany(_RESERVE, [(key, slot, until, amount) for key, slot, _, until, amount, _ in entries])
                self._note(db)
        except _RefusedError as refused:
            return refused.refusal
        return None

    def settle(self, hold: str, amounts: Sequence[int], *, final: bool = True) -> list[Change] | None:
        with self._transaction() as db:
            return self.apply_settle(db, hold, amounts, final)

    def apply_settle(self, db: Any, hold: str, amounts: Sequence[int], final: bool) -> list[Change] | None:
        """`settle` inside somebody's transaction on the same file."""
        found = db.execute("SELECT entries, charged FROM budget_hold WHERE id = ?", (hold,)).fetchone()
        if found is None or (found[1] is not None and not final):
            return None
        entries = _decode(found[0])
        charged = None if found[1] is None else _decode(found[1])
        changes = []
        for index, (key, slot, since, _, held) in enumerate(entries):
            amount = amounts[index]
            if charged is None:
                db.execute(_SETTLE, (held, amount, key, slot))
            else:
                db.execute(_SETTLE, (0, amount - charged[index], key, slot))
            changes.append(self._changed(db, key, slot, since))
        if final:
            db.execute("DELETE FROM budget_hold WHERE id = ?", (hold,))
        else:
            db.execute("UPDATE budget_hold SET charged = ? WHERE id = ?", (_encode(list(amounts)), hold))
        return changes

    def add(self, entries: Sequence[Entry]) -> list[Change]:
        with self._transaction() as db:
            return self.apply_add(db, entries)

    def apply_add(self, db: Any, entries: Sequence[Entry]) -> list[Change]:
        """`add` inside somebody's transaction on the same file."""
        changes = []
        for key, slot, since, until, amount, _ in entries:
            db.execute(_ADD, (key, slot, until, amount))
            changes.append(self._changed(db, key, slot, since))
        return changes

    def _changed(self, db: Any, key: str, slot: int, since: int) -> Change:
        after, before = db.execute(_SINCE, (key, since)).fetchone()
        if after:
            db.execute(_HIGH, (after, key, slot, after))
        return Change(before, after)

    def _note(self, db: sqlite3.Connection) -> None:
        """The latest time that anybody has seen, so that a clock that was set back reopens nothing after a restart."""
        now = self.now()
        if now - self._noted >= TICK:
            self._noted = now
            db.execute(
                "INSERT INTO budget_clock (one, seen) VALUES (1, ?) "
                "ON CONFLICT (one) DO UPDATE SET seen = excluded.seen",
                (now,),
            )

    def extend(self, holds: Sequence[str], expires: int) -> None:
        with self._transaction() as db:
            db.executemany(
                "UPDATE budget_hold SET expires = MAX(expires, ?) WHERE id = ? AND charged IS NULL",
                [(expires, hold) for hold in holds],
            )

    def expire(self) -> list[str]:
        now = self.now()
        with self._transaction() as db:
            late = db.execute(
                "SELECT id, entries FROM budget_hold WHERE charged IS NULL AND expires <= ? ORDER BY expires, id",
                (now,),
            ).fetchall()
            for hold, entries in late:
                self.apply_settle(db, hold, [entry[4] for entry in _decode(entries)], False)
            if now - self._cleared >= UPKEEP:
                self._cleared = now
                db.execute("DELETE FROM budget_counter WHERE until <= ? AND reserved = 0", (now,))
                db.execute("DELETE FROM budget_hold WHERE charged IS NOT NULL AND expires < ?", (now - DAY,))
        return [hold for hold, _ in late]

    def read(self, key: str, since: int) -> Count:
        with self._transaction() as db:
            return Count(*db.execute(_STANDS, (key, since)).fetchone())

    def keys(self, prefix: str) -> list[str]:
        with self._transaction() as db:
            found = db.execute(
                "SELECT DISTINCT key FROM budget_counter WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                (prefix, len(prefix), prefix),
            )
            return [key for (key,) in found]

    def forget(self, key: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE budget_counter SET used = 0, high = 0 WHERE key = ?", (key,))

    # ------------------------------------------------------------------------------- budgets that are kept here

    def drop(self, keys: Iterable[str]) -> None:
        """They are cleared when their time is up."""

    def kept(self, source: str) -> dict[str, str]:
        with self._transaction() as db:
            found = db.execute("SELECT name, document FROM budget WHERE source = ? ORDER BY name", (source,))
            return dict(found.fetchall())

    def keep(self, name: str, source: str, document: str | None) -> None:
        with self._transaction() as db:
            if document is None:
                db.execute("DELETE FROM budget WHERE name = ? AND source = ?", (name, source))
            else:
                db.execute(
                    "INSERT INTO budget (name, source, document) VALUES (?, ?, ?) "
                    "ON CONFLICT (name, source) DO UPDATE SET document = excluded.document",
                    (name, source, document),
                )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _File:
    """A file of its own: one connection, and the lock that writers of all processes queue at."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = threading.RLock()
        self._pid = 0
        self._db: sqlite3.Connection | None = None
        self._lock = -1
        self._abandoned: list[Any] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        if self._pid and self._pid != os.getpid():
            self._forked()
        with self._turn:
            try:
                db = self._db if self._db is not None else self._open()
                if self._lock >= 0:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                try:
                    db.execute("BEGIN IMMEDIATE")
                    try:
                        yield db
                        db.execute("COMMIT")
                    except BaseException:
                        if db.in_transaction:
                            db.execute("ROLLBACK")
                        raise
                finally:
                    if self._lock >= 0:
                        fcntl.flock(self._lock, fcntl.LOCK_UN)
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error

    def _forked(self) -> None:
        """The child must not use, nor close, what its parent has opened."""
        self._abandoned.append((self._db, self._lock))
        self._turn = threading.RLock()
        self._db, self._lock, self._pid = None, -1, 0

    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        db = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        if fcntl is not None and self._lock < 0:
            self._lock = os.open(f"{self._path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        self._db, self._pid = db, os.getpid()
        return db

    def close(self) -> None:
        with self._turn:
            if self._db is not None and self._pid == os.getpid():
                self._db.close()
                if self._lock >= 0:
                    os.close(self._lock)
            self._db, self._lock = None, -1
