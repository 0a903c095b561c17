"""Runaways are stopped at the bound; what only looks like one goes on."""

from __future__ import annotations

import pytest

from agent_meter import BudgetExceeded, Meter, TokenUsage
from agent_meter.runaways import CostGuard, LoopGuard, NoProgressGuard, RateGuard, runaway_guards, signature


def tool(meter, name="search", **params):
    with meter.tool(name, params):
        pass


def model(meter, tokens=1):
    with meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(tokens, 0))


def test_the_same_tool_call_over_and_over_is_a_loop():
    meter = Meter([LoopGuard(repeats=5)])
    with meter.run():
        for _ in range(4):
            tool(meter, q="x")
        with pytest.raises(
            BudgetExceeded, match="search with the same arguments, 5 times over in one run; the limit is 4"
        ):
            tool(meter, q="x")


def test_two_tools_that_take_turns_are_a_loop():
    meter = Meter([LoopGuard(repeats=3)])
    with meter.run():
        for _ in range(2):
            tool(meter, "read", page=1), tool(meter, "think", about="it")
        tool(meter, "read", page=1)
        with pytest.raises(BudgetExceeded, match="the same 2 tool calls in turn"):
            tool(meter, "think", about="it")


def test_other_arguments_other_runs_and_work_in_between_are_no_loop():
    meter = Meter([LoopGuard(repeats=3)])
    for _ in range(3):
        with meter.run():
            tool(meter, q="x"), tool(meter, q="x")
    with meter.run():
        for number in range(30):
            tool(meter, q=str(number))
        for number in range(10):
            tool(meter, "poll"), tool(meter, q=str(number))


def test_model_calls_that_lead_nowhere_new_are_stopped():
    meter = Meter([NoProgressGuard(model_calls=3)])
    with meter.run():
        for number in range(10):
            model(meter), tool(meter, q=str(number))
        for _ in range(3):
            model(meter), tool(meter, q="3")
        with pytest.raises(BudgetExceeded, match="3 model calls in a row without a tool call that is new"):
            model(meter)


def test_a_conversation_without_tools_goes_on():
    meter = Meter([NoProgressGuard(model_calls=3)])
    with meter.run():
        for _ in range(10):
            model(meter)


def test_calls_per_minute_are_bounded_within_any_sixty_seconds():
    now = [0.0]
    meter = Meter([RateGuard(per_minute=3, clock=lambda: now[0])])
    with meter.run():
        for at in (0.0, 30.0, 59.0):
            now[0] = at
            model(meter)
        with pytest.raises(BudgetExceeded, match=r"the next may go in 1\.0 s"):
            model(meter)
        now[0] = 60.0
        model(meter)


def test_a_task_that_costs_many_times_the_usual_is_stopped():
    meter = Meter([CostGuard(factor=10, floor_usd="0.001", after=20)], cost_rates={"m": 0.001})

    def spend(tokens):
        with meter.llm("m") as call:
            call.finish(TokenUsage(tokens, 0))

    for _ in range(20):
        with meter.run(agent="a"):
            spend(1_000)  # $0.001
    with meter.run(agent="a"):
        spend(10_000)
        spend(1)
        with pytest.raises(BudgetExceeded, match=r"more than 10 × \$0\.001, which is usual"):
            spend(1)
    with meter.run(agent="b"):
        spend(50_000)
        spend(1)


def test_what_a_run_did_is_forgotten_with_it_and_runs_are_bounded():
    guard = LoopGuard()
    meter = Meter([guard])
    with meter.run():
        tool(meter)
    assert not guard._runs._held
    for number in range(5_000):
        guard._runs.of(str(number))
    assert len(guard._runs._held) == 4_096


def test_arguments_are_told_apart_in_bounded_time():
    class Odd:
        def __repr__(self):
            raise RuntimeError

    assert signature({"a": 1}) != signature({"a": 2})
    assert signature({"a": "x" * 10_000 + "y"}) != signature({"a": "x" * 10_000 + "z"})
    assert signature({"a": 1, "b": 2}) == signature({"b": 2, "a": 1})
    signature({"a": Odd()})  # a broken __repr__ is not raised into the run
    assert signature({"a": list(range(10**6))}) != signature({"a": list(range(10**6 + 1))})


def test_healthy_agents_keep_all_four_on():
    meter = Meter(runaway_guards())
    for _ in range(3):
        with meter.run(agent="a"):
            for number in range(60):
                model(meter), tool(meter, q=str(number)), tool(meter, "poll", job=7)
    assert meter.health()["ok"]
