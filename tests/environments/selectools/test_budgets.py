"""Budgets in selectools, beside its own limits: `max_total_tokens`, `max_cost_usd`, `cost_warning_threshold`.

Deviations of its own limits, seen here, and what ours do:

* They are looked at after each call: a run overshoots by a whole call. Ours refuse the call that would not fit.
* `max_cost_usd` never trips for a model without a price. Ours refuse it, or take it for what you say.
* A batch gives each of its prompts a limit of its own. Ours is one for all of them.
* They live as long as the agent, not for a run. Ours say how long: `per="run"`, `"day"`, `"total"` …
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from selectools import InMemoryCache
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter, ReplayCache
from agent_meter.adapters.selectools import MeteredProvider, MeterObserver
from agent_meter.testing import Reply, ToolCall

ASKS = Reply(tool_calls=[ToolCall("search", {"query": "pluggy"})], input_tokens=1000, output_tokens=200)


def asks_for_ever(request: Any) -> Reply:
    return ASKS


def metered(agent: Any, openai: Any, served: Any, budget: Budget, **config: Any) -> tuple[Meter, Any]:
    meter = Meter(budgets=[budget])
    return meter, agent(MeteredProvider(openai(served), meter), MeterObserver(meter), max_tokens=200, **config)


def run(agent: Any, way: str) -> None:
    async def stream() -> None:
        async for _ in agent.astream("Hi"):
            pass

    if way == "run":
        agent.run("Hi")
    else:
        asyncio.run(agent.arun("Hi") if way == "arun" else stream())


@pytest.mark.parametrize("way", ["run", "arun", "astream"])
def test_a_run_is_refused_the_call_that_would_not_fit(agent: Any, openai: Any, loopback: Any, way: str) -> None:
    served = loopback(asks_for_ever)
    meter, stopped = metered(agent, openai, served, Budget("calls", requests=3), max_iterations=20)

    with pytest.raises(BudgetExceeded):
        run(stopped, way)

    assert len(served.requests) == 3
    assert refused(meter) == 1


def test_max_total_tokens_is_passed_by_a_whole_call_and_a_budget_is_not(agent: Any, openai: Any, loopback: Any) -> None:
    served = loopback(asks_for_ever)
    agent(openai(served), max_tokens=200, max_iterations=20, max_total_tokens=1_201).run("Hi")
    theirs = len(served.truth) * 1_200

    meter, ours = metered(agent, openai, loopback(asks_for_ever), Budget("tokens", tokens=1_201), max_iterations=20)
    with pytest.raises(BudgetExceeded):
        ours.run("Hi")

    assert theirs == 2_400
    assert meter.budgets.status("tokens").used == 1_200
    assert refused(meter) == 1


def test_max_cost_usd_does_not_stop_a_model_without_a_price_and_a_budget_does(
    agent: Any, openai: Any, loopback: Any
) -> None:
    served = loopback(asks_for_ever)
    meter, stopped = metered(agent, openai, served, Budget("money", usd=1), max_iterations=3)
    stopped.config.model = "a-model-that-nobody-prices"

    with pytest.raises(BudgetExceeded, match="no price is known"):
        stopped.run("Hi")

    assert served.requests == []
    assert refused(meter) == 1


def test_a_batch_has_one_budget(agent: Any, openai: Any, loopback: Any) -> None:
    served = loopback(lambda request: Reply("done", input_tokens=1000, output_tokens=200))
    meter, stopped = metered(agent, openai, served, Budget("calls", requests=2))

    answers = stopped.batch(["Hi"] * 5)  # selectools makes a text of what a prompt of a batch raises

    assert sum("budget calls" in answer.content for answer in answers) == 3
    assert len(served.requests) == 2
    assert refused(meter) == 3


@pytest.mark.parametrize("cache", [InMemoryCache, ReplayCache])
def test_cached_answers_pass_a_used_up_budget(agent: Any, openai: Any, loopback: Any, cache: Any) -> None:
    served = loopback([Reply("done", input_tokens=1000, output_tokens=200)])
    meter, cached = metered(agent, openai, served, Budget("calls", requests=1), cache=cache())
    cached.run("Hi")
    cached.reset()

    assert cached.run("Hi").content == "done"
    assert len(served.requests) == 1
    assert refused(meter) == 0


def test_the_cost_warning_is_given_once(
    agent: Any, openai: Any, loopback: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """selectools prints it after every call from then on."""
    meter = Meter(cost_warning_threshold=Decimal("0.005"))
    warned = agent(MeteredProvider(openai(loopback(asks_for_ever)), meter), MeterObserver(meter), max_iterations=4)
    warned.run("Hi")

    warnings = [message for message in caplog.messages if "Cost Warning" in message]
    assert warnings == ["⚠️  Cost Warning: Total cost $0.009000 exceeds threshold $0.005000"]
