"""Budgets in mamba-agents and pydantic-ai, counted at the provider."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from mamba_agents.workflows.react import ReActWorkflow
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.toolsets import FunctionToolset
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter
from agent_meter.adapters.mamba import MeteredModel, MeteredToolset, MeterWorkflowHooks
from agent_meter.testing import Reply, ToolCall

ASKS = Reply(tool_calls=[ToolCall("search", {"query": "pluggy"})], input_tokens=400, output_tokens=100)


def asks_for_ever(request: Any) -> Reply:
    return ASKS


@pytest.mark.parametrize("way", ["run", "stream"])
def test_a_run_is_refused_the_call_that_would_not_fit(agent: Any, model: Any, loopback: Any, way: str) -> None:
    served, meter = loopback(asks_for_ever), Meter(budgets=[Budget("calls", requests=3)])
    stopped = agent(MeteredModel(model(served), meter))

    async def stream() -> None:
        async for _ in stopped.run_stream("Hi"):
            pass

    with pytest.raises(BudgetExceeded):
        stopped.run_sync("Hi") if way == "run" else asyncio.run(stream())

    assert len(served.requests) == 3
    assert refused(meter) == 1


def test_a_workflow_ends_as_failed_and_nothing_stays_held(agent: Any, model: Any, loopback: Any) -> None:
    served, meter = loopback(asks_for_ever), Meter(budgets=[Budget("money", usd="0.01", per="total")])
    flow = ReActWorkflow(agent(MeteredModel(model(served), meter)), hooks=MeterWorkflowHooks(meter))
    result = flow.run_sync("Hi")

    assert not result.success
    assert "budget money" in str(result.error)
    assert meter.budgets.status("money").used == len(served.requests) * Decimal("0.002") <= Decimal("0.01")
    assert refused(meter) >= 1


def test_a_tool_has_a_budget_of_its_own(model: Any, loopback: Any) -> None:
    bought = []

    def buy(thing: str) -> str:
        """Buy something."""
        bought.append(thing)
        return "bought"

    served = loopback([Reply(tool_calls=[ToolCall("buy", {"thing": thing})]) for thing in ("a", "b")])
    meter = Meter(budgets=[Budget("purchases", requests=1, tool="buy")])
    tools = MeteredToolset(FunctionToolset([buy]), meter)

    with pytest.raises(BudgetExceeded):
        PydanticAgent(MeteredModel(model(served), meter), toolsets=[tools]).run_sync("Hi")

    assert bought == ["a"]
    assert (meter.budgets.status("purchases").used, meter.budgets.status("purchases").reserved) == (1, 0)
