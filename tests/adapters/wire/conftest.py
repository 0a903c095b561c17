"""A meter that must be in order after the test, and nothing left of any tap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_meter import Call, Denial, Meter, hookimpl
from agent_meter.adapters.wire import switching, taps
from agent_meter.attribution import announced


class Gate:
    """Denies every model call while it is shut."""

    def __init__(self) -> None:
        self.shut = True
        self.asked: list[Call] = []

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        self.asked.append(call)
        return Denial("shut", by="gate") if self.shut else None


@pytest.fixture
def meter() -> Iterator[Meter]:
    announced.set(None)
    meter = Meter()
    yield meter
    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0
    meter.shutdown()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(autouse=True)
def _nothing_is_left_on() -> Iterator[None]:
    before = (switching.process.wanted, switching.clients.wanted, list(taps.installed))
    taps.refusing.clear()
    yield
    assert (switching.clients.wanted, taps.installed) == before[1:]
