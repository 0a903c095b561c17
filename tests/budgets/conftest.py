"""The engines that every claim about engines is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_meter.budgets import MemoryEngine
from agent_meter.budgets.sqlite import SqliteEngine
from agent_meter.store.sqlite import SQLiteStore
from agent_meter.testing import FakeClock

ENGINES = ["memory", "sqlite", "ledger"]
MakeEngine = Callable[..., Any]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_engine(engine_name: str, tmp_path: Path) -> Iterator[MakeEngine]:
    """Makes engines of one kind, and closes them after the test; those of one `name` share their store."""
    made: list[Any] = []

    def make(clock: FakeClock | None = None, name: str = "") -> Any:
        name = name or f"{len(made)}"
        now: dict[str, Any] = {} if clock is None else {"now": lambda: clock.now().timestamp()}
        if engine_name == "memory":
            made.append(MemoryEngine(**now))
        elif engine_name == "sqlite":
            made.append(SqliteEngine(tmp_path / f"{name}.db", **now))
        else:
            store = SQLiteStore(tmp_path / f"ledger-{name}.db")
            made.append(store)
            made.append(SqliteEngine(transaction=store.transaction, **now))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
