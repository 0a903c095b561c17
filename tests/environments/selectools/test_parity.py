"""selectools comes to the same totals for the same agent as the other front ends."""

from __future__ import annotations

from typing import Any

import pytest
from selectools import InMemoryCache, tool
from tests import parity

from agent_meter import Meter
from agent_meter.adapters.selectools import MeteredProvider, MeterObserver

TOOLS = [
    tool(name=function.__name__, description=parity.TOOLS[function.__name__])(function)
    for function in (parity.search, parity.divide)
]


@pytest.mark.parametrize("refusing", [False, True], ids=["observer", "observer and provider"])
def test_selectools(agent: Any, openai: Any, loopback: Any, meter: Meter, refusing: bool) -> None:
    served = loopback(parity.script())
    provider = MeteredProvider(openai(served), meter) if refusing else openai(served)
    agent(provider, MeterObserver(meter), tools=TOOLS).run(parity.QUESTION)
    asked = agent(provider, MeterObserver(meter), tools=[], cache=InMemoryCache())
    for _ in range(2):
        asked.reset()
        asked.run(parity.FREQUENT)

    parity.assert_as_expected(meter, served)
