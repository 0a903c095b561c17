"""A tool says what it cost, in LangChain's own way: `dispatch_custom_event("agent_meter.tool_cost", {"usd": …})`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import agent_meter
from agent_meter import Meter
from agent_meter.adapters.langchain import MeterCallback, metering


@tool
def search(query: str) -> str:
    """Look something up, for a cent."""
    dispatch_custom_event("agent_meter.tool_cost", {"usd": "0.01"})
    return query


def cost(meter: Meter, name: str = "search") -> Decimal:
    metrics = meter.analytics.get_metrics(name)
    assert metrics is not None
    return metrics.total_cost


async def test_what_an_asynchronous_tool_says_is_added_up() -> None:
    meter = Meter(strict=True)

    @tool
    async def fetch(url: str) -> str:
        """Fetch a page."""
        await adispatch_custom_event("agent_meter.tool_cost", {"usd": "0.01"})
        await adispatch_custom_event("agent_meter.tool_cost", {"usd": Decimal("0.005")})
        return url

    await fetch.ainvoke({"url": "x"}, {"callbacks": [MeterCallback(meter)]})

    assert cost(meter, "fetch") == Decimal("0.015")


def test_however_often_the_meter_is_attached_it_is_added_once() -> None:
    meter = Meter(strict=True)
    callback = MeterCallback(meter)

    with agent_meter.install(meter), metering(meter):
        search.with_config(callbacks=[callback]).invoke({"query": "x"}, {"callbacks": [callback, MeterCallback(meter)]})

    assert cost(meter) == Decimal("0.01")


@pytest.mark.parametrize("data", [{"usd": "a cent"}, {"eur": "0.01"}, {"usd": "-1"}, None])
def test_an_amount_that_is_none_costs_nothing_and_is_told_in_health(data: Any) -> None:
    meter = Meter()

    @tool
    def search(query: str) -> str:
        """Look something up."""
        dispatch_custom_event("agent_meter.tool_cost", data)
        return query

    assert search.invoke({"query": "x"}, {"callbacks": [MeterCallback(meter)]}) == "x"
    assert cost(meter) == 0
    assert meter.health()["failures"] == {"langchain": {"on_custom_event": 1}}


def test_outside_of_a_tool_there_is_nothing_to_add_it_to() -> None:
    meter = Meter(strict=True)

    def pay(x: str) -> str:
        dispatch_custom_event("agent_meter.tool_cost", {"usd": "0.01"})
        return x

    assert RunnableLambda(pay).invoke("x", {"callbacks": [MeterCallback(meter)]}) == "x"
    assert meter.analytics.get_all_metrics() == {}
