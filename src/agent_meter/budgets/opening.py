"""Where budgets are kept: what `Meter(budget_engine=…)` means, and what it is where nobody says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import BudgetError
from .engine import Engine
from .memory import MemoryEngine


def open_engine(where: Any, store: Any, now: Callable[[], float]) -> tuple[Engine, Any]:
    """The engine, and the ledger that settlements are written with (None: they are written by themselves).

    `where` is "memory", a file (SQLite), postgresql://…, redis://… or an `Engine`; None: where the records are.
    """
    if where is None:
        return _beside(store, now)
    if not isinstance(where, (str, os.PathLike)):
        if not callable(getattr(where, "reserve", None)):
            raise BudgetError(f"budget_engine is a file, a URL, 'memory' or an Engine, not {where!r}")
        return where, None
    name = os.fspath(where)
    if name in ("memory", ":memory:"):
        return MemoryEngine(now), None
    if name.startswith(("postgresql://", "postgres://")):
        from .postgres import PostgresEngine

        return PostgresEngine(name), None
    if name.startswith(("redis://", "rediss://", "unix://")):
        from .redis import RedisEngine

        return RedisEngine(name), None
    if name.startswith("sqlite:///"):
        name = name.removeprefix("sqlite:///")
    elif "://" in name:
        raise BudgetError(f"budget_engine is a file, postgresql://…, redis://… or 'memory', not {name!r}")
    from .sqlite import SqliteEngine

    return SqliteEngine(name, now=now), None


def _beside(store: Any, now: Callable[[], float]) -> tuple[Engine, Any]:
    """In the ledger, where it can hold counters; its module tells of which kind it is, for no driver is loaded here."""
    kind = type(store).__module__.rpartition(".")[2] if hasattr(store, "transaction") else ""
    if kind == "sqlite":
        from .sqlite import SqliteEngine

        return SqliteEngine(transaction=store.transaction, now=now), store
    if kind == "postgres":
        from .postgres import PostgresEngine

        return PostgresEngine(transaction=store.transaction), store
    return MemoryEngine(now), None
