"""A meter that must be in order after the test, registered for its length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_meter import Meter
from agent_meter.adapters.llama_index import MeterHandler


@pytest.fixture
def meter() -> Iterator[Meter]:
    """Whatever a test does, nothing stays open and nothing has failed inside."""
    meter = Meter()
    with MeterHandler(meter):
        yield meter
    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0
