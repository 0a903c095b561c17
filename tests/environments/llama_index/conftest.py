"""A meter that must be in order after the test, registered for its length; and the recorded traffic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.corpus import replay_server

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


@pytest.fixture(scope="session")
def recorded() -> Iterator[Any]:
    """The server of recorded traffic; LlamaIndex asks some of it in another form than it was recorded in."""
    with replay_server(match_stream=False) as server:
        yield server
