"""A shelf in PostgreSQL: one row of JSON, looked at once a second by a thread of its own, never on a caller's path."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import StoreError
from ..shelf import Document

T = TypeVar("T")
_TABLE = "CREATE TABLE IF NOT EXISTS shelf (name TEXT PRIMARY KEY, document TEXT NOT NULL, version BIGINT NOT NULL)"
_READ = "SELECT document, version FROM shelf WHERE name = 'state'"
_WRITE = (
    "INSERT INTO shelf (name, document, version) VALUES ('state', %s, 1) "
    "ON CONFLICT (name) DO UPDATE SET document = excluded.document, version = shelf.version + 1"
)


class TableShelf:
    """The shelf of everybody who uses one PostgreSQL ledger.

    What another process changed is seen within `interval` seconds; what this one changed, at once. While the server
    is away it stays as it was seen last.
    """

    def __init__(self, store: Any, *, interval: float = 1.0) -> None:
        self._store = store
        self._interval = interval
        self._version = -1
        self._document: Document = {}
        self._failed: Callable[[BaseException], object] = lambda error: None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def on_failure(self, tell: Callable[[BaseException], object]) -> None:
        """Call `tell(error)` when a look at the table fails."""
        self._failed = tell

    def read(self) -> Document:
        if self._pid != os.getpid():
            self._begin()  # no thread came along into a forked child
        if self._thread is None:
            self._start()
        return self._document

    def change(self, update: Callable[[Document], T]) -> T:
        with self._lock, self._store.transaction() as connection:  # the one who writes: see `SharedStore`
            connection.execute(_TABLE)
            found = connection.execute(_READ).fetchone()
            draft = {} if found is None else _parsed(found[0])
            result = update(draft)
            connection.execute(_WRITE, (json.dumps(draft, sort_keys=True, ensure_ascii=False),))
        self.look()
        return result

    def look(self) -> None:
        """Take over what the table says now. Raises `StoreError` when it cannot be read."""
        with self._lock, self._store._reading() as db:
            if db.rows("SELECT to_regclass('shelf')") == [(None,)]:
                return
            for text, version in db.rows(_READ):
                if version != self._version:
                    self._document = _parsed(text)
                    self._version = version

    def close(self) -> None:
        self._stopped.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self.look()
            self._thread = threading.Thread(
                target=_watch, args=(weakref.ref(self), self._interval, self._stopped), daemon=True,
                name="agent-meter-shelf",
            )  # fmt: skip
            self._thread.start()


def _parsed(text: str) -> Document:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StoreError(f"the table shelf cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise StoreError("the table shelf cannot be read: it holds no JSON object")
    return document


def _watch(shelf: weakref.ref[TableShelf], interval: float, stopped: threading.Event) -> None:
    while not stopped.wait(interval):
        held = shelf()
        if held is None:
            return
        try:
            held.look()
        except Exception as error:
            held._failed(error)
        del held
