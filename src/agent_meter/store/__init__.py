"""The ledger: where every record is kept, and who answers for the past."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._lazy import front_door
from .base import Audit, Difference, Price, Progress, Settlement, SharedStore, Store
from .memory import MemoryStore

if TYPE_CHECKING:
    from .postgres import PostgresStore
    from .sqlite import SQLiteStore

__all__ = [
    "Audit",
    "Difference",
    "MemoryStore",
    "PostgresStore",
    "Price",
    "Progress",
    "SQLiteStore",
    "Settlement",
    "SharedStore",
    "Store",
    "open_store",
]

_LAZY = {"PostgresStore": ".postgres", "SQLiteStore": ".sqlite"}  # a driver is imported by those who use it


def open_store(where: str | os.PathLike[str] | Store, durability: str = "normal", *, readonly: bool = False) -> Store:
    """The store that a text means: "memory", a file (SQLite, also as sqlite:///path), or postgresql://…

    `durability` is "normal" (what is flushed survives the death of the process) or "full" (and a power cut).
    `StoreError` says why it cannot be opened.
    """
    if not isinstance(where, (str, os.PathLike)):
        if not isinstance(where, Store):
            raise TypeError(f"a store is a path, a URL or a Store, not {type(where).__name__}")
        return where
    name = os.fspath(where)
    if name in ("memory", ":memory:"):
        return MemoryStore()
    if name.startswith(("postgresql://", "postgres://")):
        from .postgres import PostgresStore

        return PostgresStore(name, durability, readonly=readonly)
    from .sqlite import SQLiteStore

    if name.startswith("sqlite:///"):
        name = name.removeprefix("sqlite:///")
    elif "://" in name:
        raise ValueError(f"a store is a file, sqlite:///path, postgresql://… or 'memory', not {name!r}")
    return SQLiteStore(name, durability, readonly=readonly)


__getattr__, __dir__ = front_door(globals(), _LAZY)
