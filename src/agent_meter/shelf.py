"""A few small facts that processes share: who is paused, what has been stopped, which rules have fired.

Not records: those are the store's. A shelf is one small JSON document. Reading it costs one look at the file's
state (`os.stat`, about 2 µs) as long as nobody changed it, so a guard can ask before every call.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import StoreError
from .files import write_text

if TYPE_CHECKING:
    from .store import Store

T = TypeVar("T")
Document = dict[str, Any]


class Shelf(Protocol):
    """What a guard and a command line need of it."""

    def read(self) -> Document:
        """What is on it now. Do not change it: use `change`."""

    def change(self, update: Callable[[Document], T]) -> T:
        """Let `update` change a copy, and put that in its place, atomically among threads and processes."""


def shelf_of(store: Store | None) -> Shelf:
    """The shelf that everybody who uses a store finds: `meter.db-state.json` beside the file `meter.db`, a table in
    PostgreSQL; one of this process's own where there is nothing to share."""
    path = getattr(store, "path", None)
    if isinstance(path, (str, os.PathLike)) and hasattr(store, "transaction"):
        return FileShelf(f"{os.fspath(path)}-state.json")
    if store is not None and type(store).__module__.endswith(".postgres"):
        from .store.table_shelf import TableShelf

        return TableShelf(store)
    return MemoryShelf()


class MemoryShelf:
    """For one process, gone with it."""

    def __init__(self) -> None:
        self._document: Document = {}
        self._lock = threading.RLock()

    def read(self) -> Document:
        return self._document

    def change(self, update: Callable[[Document], T]) -> T:
        with self._lock:
            draft = json.loads(json.dumps(self._document))
            result = update(draft)
            self._document = draft
            return result


class FileShelf:
    """One JSON file. A file that cannot be read is an error that names it, never an empty shelf."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._name = os.fspath(self.path)  # a look at a plain name costs half
        self._lock = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._document: Document = {}

    def read(self) -> Document:
        if self._state() != self._seen:
            with self._lock:
                self._load()
        return self._document

    def change(self, update: Callable[[Document], T]) -> T:
        with self._lock, self._alone():
            self._load()
            draft = json.loads(json.dumps(self._document))
            result = update(draft)
            write_text(self.path, json.dumps(draft, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            self._load()
            return result

    def _state(self) -> tuple[int, int, int] | None:
        try:
            state = os.stat(self._name)
        except FileNotFoundError:
            return None
        return (state.st_ino, state.st_mtime_ns, state.st_size)

    def _load(self) -> None:
        seen = self._state()
        if seen is None:
            self._seen, self._document = None, {}
            return
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            document = {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise StoreError(f"{self.path} cannot be read: it holds no JSON object")
        self._seen, self._document = seen, document

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The only process that changes the file. Where there is no `flock` (Windows), the last change wins."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
