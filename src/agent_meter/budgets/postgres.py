"""Counters and holds in PostgreSQL: for many hosts. One function holds, one settles; each is one round trip.

In the ledger's database a settlement is part of the transaction that writes the record. Whoever changes counters has
the advisory lock that the ledger's writers queue at, so that nobody waits for one who waits for him.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..errors import StoreError
from .engine import Change, Count, Entry, Refusal
from .windows import DAY, SteadyClock

try:
    import psycopg
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise StoreError("budgets in PostgreSQL need psycopg: pip install 'agent-meter[postgres]'") from error

UPKEEP = 3_600_000  # ms between two clearings
CLOCK_KEPT = 60.0  # seconds that the difference to the server's clock is taken as known
TIMEOUT = 10

_LOCK = "pg_advisory_xact_lock(hashtext('agent_meter'), hashtext(current_schema()))"
_TABLES = """
CREATE TABLE IF NOT EXISTS budget_counter (
    key TEXT COLLATE "C" NOT NULL, slot BIGINT NOT NULL, until BIGINT NOT NULL,
    used BIGINT NOT NULL DEFAULT 0 CHECK (used >= 0), reserved BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    high BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (key, slot)) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS budget_hold (
    id TEXT COLLATE "C" PRIMARY KEY, expires BIGINT NOT NULL, keys TEXT[] NOT NULL, slots BIGINT[] NOT NULL,
    sinces BIGINT[] NOT NULL, amounts BIGINT[] NOT NULL, charged BIGINT[]);
CREATE INDEX IF NOT EXISTS budget_hold_open ON budget_hold (expires) WHERE charged IS NULL;
CREATE TABLE IF NOT EXISTS budget (
    name TEXT NOT NULL, source TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (name, source));
"""
_CHANGE = """
CREATE OR REPLACE FUNCTION budget_change(the_key TEXT, the_slot BIGINT, since BIGINT,
    OUT before BIGINT, OUT after BIGINT)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT coalesce(sum(used), 0), coalesce(max(high), 0) INTO after, before
      FROM budget_counter WHERE key = the_key AND slot >= since;
    UPDATE budget_counter SET high = after WHERE key = the_key AND slot = the_slot AND high < after;
END $$
"""
_RESERVE = """
CREATE OR REPLACE FUNCTION budget_reserve(hold TEXT, the_expires BIGINT, the_keys TEXT[], the_slots BIGINT[],
    the_sinces BIGINT[], untils BIGINT[], the_amounts BIGINT[], limits BIGINT[])
RETURNS TABLE (place INT, has_used BIGINT, has_reserved BIGINT, oldest BIGINT) LANGUAGE plpgsql AS $$
DECLARE n INT := cardinality(the_keys); least DOUBLE PRECISION; part DOUBLE PRECISION; u BIGINT; r BIGINT; o BIGINT;
BEGIN
    PERFORM LOCK;
    IF EXISTS (SELECT 1 FROM budget_hold WHERE id = hold) THEN RETURN; END IF;
    FOR i IN 1..n LOOP
        IF limits[i] IS NULL THEN CONTINUE; END IF;
        SELECT coalesce(sum(used), 0), coalesce(sum(reserved), 0), min(slot) FILTER (WHERE used > 0 OR reserved > 0)
          INTO u, r, o FROM budget_counter WHERE key = the_keys[i] AND slot >= the_sinces[i];
        IF limits[i] <= 0 OR u + r + the_amounts[i] > limits[i] THEN
            part := (limits[i] - u - r)::DOUBLE PRECISION / greatest(the_amounts[i], 1);
            IF least IS NULL OR part < least THEN
                least := part; place := i - 1; has_used := u; has_reserved := r; oldest := o;
            END IF;
        END IF;
    END LOOP;
    IF least IS NOT NULL THEN RETURN NEXT; RETURN; END IF;
    FOR i IN 1..n LOOP
        INSERT INTO budget_counter (key, slot, until, reserved)
             VALUES (the_keys[i], the_slots[i], untils[i], the_amounts[i])
        ON CONFLICT (key, slot) DO UPDATE SET reserved = budget_counter.reserved + excluded.reserved;
    END LOOP;
    INSERT INTO budget_hold (id, expires, keys, slots, sinces, amounts)
         VALUES (hold, the_expires, the_keys, the_slots, the_sinces, the_amounts);
END $$
"""
_SETTLE = """
CREATE OR REPLACE FUNCTION budget_settle(hold TEXT, actual BIGINT[], final BOOLEAN)
RETURNS TABLE (before BIGINT, after BIGINT) LANGUAGE plpgsql AS $$
DECLARE h budget_hold;
BEGIN
    PERFORM LOCK;
    SELECT * INTO h FROM budget_hold WHERE id = hold;
    IF NOT FOUND OR (h.charged IS NOT NULL AND NOT final) THEN RETURN; END IF;
    FOR i IN 1..cardinality(h.keys) LOOP
        UPDATE budget_counter
           SET reserved = reserved - CASE WHEN h.charged IS NULL THEN h.amounts[i] ELSE 0 END,
               used = greatest(0, used + actual[i] - coalesce(h.charged[i], 0))
         WHERE key = h.keys[i] AND slot = h.slots[i];
        SELECT * INTO before, after FROM budget_change(h.keys[i], h.slots[i], h.sinces[i]);
        RETURN NEXT;
    END LOOP;
    IF final THEN DELETE FROM budget_hold WHERE id = hold;
    ELSE UPDATE budget_hold SET charged = actual WHERE id = hold; END IF;
END $$
"""
_ADD = """
CREATE OR REPLACE FUNCTION budget_add(the_keys TEXT[], the_slots BIGINT[], sinces BIGINT[], untils BIGINT[],
    amounts BIGINT[])
RETURNS TABLE (before BIGINT, after BIGINT) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM LOCK;
    FOR i IN 1..cardinality(the_keys) LOOP
        INSERT INTO budget_counter (key, slot, until, used)
             VALUES (the_keys[i], the_slots[i], untils[i], greatest(0, amounts[i]))
        ON CONFLICT (key, slot) DO UPDATE SET used = greatest(0, budget_counter.used + amounts[i]);
        SELECT * INTO before, after FROM budget_change(the_keys[i], the_slots[i], sinces[i]);
        RETURN NEXT;
    END LOOP;
END $$
"""
_EXPIRE = """
CREATE OR REPLACE FUNCTION budget_expire(now BIGINT) RETURNS SETOF TEXT LANGUAGE plpgsql AS $$
DECLARE h RECORD;
BEGIN
    PERFORM LOCK;
    FOR h IN SELECT id, amounts FROM budget_hold WHERE charged IS NULL AND expires <= now ORDER BY expires, id LOOP
        PERFORM budget_settle(h.id, h.amounts, FALSE);
        RETURN NEXT h.id;
    END LOOP;
END $$
"""

Transaction = Callable[[], AbstractContextManager[Any]]


class PostgresEngine:
    """The engine of one database, at a URL of libpq's form. `transaction` is a store's, where it is a ledger."""

    blocking = True

    def __init__(
        self, url: str = "", *, transaction: Transaction | None = None, now: Callable[[], float] | None = None
    ) -> None:
        self._server = None if transaction is not None else _Server(url)
        self._transaction = transaction if transaction is not None else self._server.connection  # type: ignore[union-attr]
        self._ahead, self._known_until = 0.0, 0.0
        self._cleared = 0
        with self._transaction() as db:
            db.execute("BEGIN" if self._server is not None else "SELECT 1")
            db.execute(f"SELECT {_LOCK}")
            for statement in (_TABLES, _CHANGE, _RESERVE, _SETTLE, _ADD, _EXPIRE):
                db.execute(statement.replace("LOCK", _LOCK))
            db.execute("COMMIT" if self._server is not None else "SELECT 1")
        self.now = SteadyClock(self._time if now is None else now)

    def _time(self) -> float:
        """The server's clock, by ours and what is between them."""
        if time.monotonic() > self._known_until:
            with self._transaction() as db:
                ((seconds,),) = db.execute("SELECT extract(epoch FROM clock_timestamp())::DOUBLE PRECISION").fetchall()
            self._ahead, self._known_until = seconds - time.time(), time.monotonic() + CLOCK_KEPT
        return time.time() + self._ahead

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> Refusal | None:
        keys, slots, sinces, untils, amounts, limits = map(list, zip(*entries, strict=True))
        with self._transaction() as db:
            found = db.execute(
                "SELECT place, has_used, has_reserved, oldest FROM budget_reserve("
                "%s, %s, %s, %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])",
                (hold, expires, keys, slots, sinces, untils, amounts, limits),
            ).fetchone()
        return None if found is None else Refusal(*found)

    def settle(self, hold: str, amounts: Sequence[int], *, final: bool = True) -> list[Change] | None:
        with self._transaction() as db:
            return self.apply_settle(db, hold, amounts, final)

    def apply_settle(self, db: Any, hold: str, amounts: Sequence[int], final: bool) -> list[Change] | None:
        """`settle` inside somebody's transaction on the same database."""
        found = db.execute(
            "SELECT before, after FROM budget_settle(%s, %s::bigint[], %s)", (hold, list(amounts), final)
        ).fetchall()
        return [Change(*row) for row in found] or None

    def add(self, entries: Sequence[Entry]) -> list[Change]:
        with self._transaction() as db:
            return self.apply_add(db, entries)

    def apply_add(self, db: Any, entries: Sequence[Entry]) -> list[Change]:
        """`add` inside somebody's transaction on the same database."""
        keys, slots, sinces, untils, amounts, _ = map(list, zip(*entries, strict=True))
        found = db.execute(
            "SELECT before, after FROM budget_add(%s, %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])",
            (keys, slots, sinces, untils, amounts),
        ).fetchall()
        return [Change(*row) for row in found]

    def extend(self, holds: Sequence[str], expires: int) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE budget_hold SET expires = greatest(expires, %s) WHERE id = ANY(%s) AND charged IS NULL",
                (expires, list(holds)),
            )

    def expire(self) -> list[str]:
        now = self.now()
        with self._transaction() as db:
            late = [hold for (hold,) in db.execute("SELECT budget_expire(%s)", (now,)).fetchall()]
            if now - self._cleared >= UPKEEP:
                self._cleared = now
                db.execute("DELETE FROM budget_counter WHERE until <= %s AND reserved = 0", (now,))
                db.execute("DELETE FROM budget_hold WHERE charged IS NOT NULL AND expires < %s", (now - DAY,))
        return late

    def read(self, key: str, since: int) -> Count:
        with self._transaction() as db:
            found = db.execute(
                "SELECT coalesce(sum(used), 0)::bigint, coalesce(sum(reserved), 0)::bigint, "
                "min(slot) FILTER (WHERE used > 0 OR reserved > 0) FROM budget_counter WHERE key = %s AND slot >= %s",
                (key, since),
            ).fetchall()
        return Count(*found[0])

    def keys(self, prefix: str) -> list[str]:
        with self._transaction() as db:
            found = db.execute(
                "SELECT DISTINCT key FROM budget_counter WHERE starts_with(key, %s) ORDER BY key", (prefix,)
            ).fetchall()
        return [key for (key,) in found]

    def forget(self, key: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE budget_counter SET used = 0, high = 0 WHERE key = %s", (key,))

    def drop(self, keys: Iterable[str]) -> None:
        """They are cleared when their time is up."""

    def kept(self, source: str) -> dict[str, str]:
        with self._transaction() as db:
            found = db.execute("SELECT name, document FROM budget WHERE source = %s ORDER BY name", (source,))
            return dict(found.fetchall())

    def keep(self, name: str, source: str, document: str | None) -> None:
        with self._transaction() as db:
            if document is None:
                db.execute("DELETE FROM budget WHERE name = %s AND source = %s", (name, source))
            else:
                db.execute(
                    "INSERT INTO budget (name, source, document) VALUES (%s, %s, %s) "
                    "ON CONFLICT (name, source) DO UPDATE SET document = excluded.document",
                    (name, source, document),
                )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Server:
    """One connection of our own, made anew when it breaks; each statement is a transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = threading.RLock()
        self._db: psycopg.Connection[Any] | None = None
        self._pid = os.getpid()
        self._abandoned: list[Any] = []

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        if self._pid != os.getpid():  # the child must not use, nor close, what its parent has opened
            self._abandoned.append(self._db)
            self._turn, self._db, self._pid = threading.RLock(), None, os.getpid()
        with self._turn:
            try:
                db = self._db
                if db is None or db.closed or db.broken:
                    db = self._db = psycopg.connect(
                        self._url, autocommit=True, connect_timeout=TIMEOUT, fallback_application_name="agent_meter"
                    )
                    db.execute("SET synchronous_commit = off")
                yield db
            except psycopg.Error as error:
                if self._db is not None:
                    with contextlib.suppress(psycopg.Error):
                        self._db.close()
                    self._db = None
                raise StoreError(f"PostgreSQL: {str(error).strip() or type(error).__name__}") from error

    def close(self) -> None:
        with self._turn:
            if self._db is not None and self._pid == os.getpid():
                self._db.close()
            self._db = None
