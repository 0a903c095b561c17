"""A meter that must be in order after the test, and the configuration that attaches it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent_meter import Meter
from agent_meter.adapters.langchain import MeterCallback


@pytest.fixture
def meter() -> Iterator[Meter]:
    """Whatever a test does, nothing stays open and nothing has failed inside."""
    meter = Meter()
    yield meter
    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0


@pytest.fixture
def config(meter: Meter) -> Any:
    return {"callbacks": [MeterCallback(meter)]}
