"""The engines that every claim about engines is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_meter.budgets import MemoryEngine
from agent_meter.testing import FakeClock

ENGINES = ["memory"]
MakeEngine = Callable[..., Any]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_engine(engine_name: str, tmp_path: Path) -> Iterator[MakeEngine]:
    """Makes empty engines of one kind, and closes them after the test."""
    made: list[Any] = []

    def make(clock: FakeClock | None = None) -> Any:
        now = {} if clock is None else {"now": lambda: clock.now().timestamp()}
        made.append(MemoryEngine(**now))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
