"""`with metering() as run:` meters what happens inside, wherever handlers would have been lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import context as hooks
from langgraph.graph import START, MessagesState, StateGraph
from tests.adapters.langchain.clients import openai

from agent_meter import Meter, default_meter
from agent_meter.adapters.langchain import MeterCallback, metering
from agent_meter.testing import LoopbackProvider, RecordingPlugin, Reply

Loopback = Callable[..., LoopbackProvider]
FULL = Reply("x", input_tokens=1000, output_tokens=100)


def test_a_run_has_a_snapshot_of_its_own(loopback: Loopback) -> None:
    model, meter = openai(loopback([FULL], loop=True)), Meter()

    model.invoke("before", {"callbacks": [MeterCallback(meter)]})
    with metering(meter, "first", user="ada") as first:
        model.invoke("hello")
        halfway = first.usage
        model.invoke("hello")
    with metering(meter) as second:
        model.invoke("hello")
    model.invoke("nobody counts this")

    assert (halfway.total_tokens, first.usage.total_tokens, second.usage.total_tokens) == (1100, 2200, 1100)
    assert meter.usage.total_tokens == 4400
    assert [record.user for record in meter.history()] == ["", "ada", "ada", ""]
    assert first.record is not None
    assert meter.health()["open_calls"] == 0


def test_nested_runs_count_inside_one_another_once(loopback: Loopback) -> None:
    model, meter = openai(loopback([FULL], loop=True)), Meter()

    with metering(meter, "outer") as outer:
        model.invoke("hello")
        with metering(meter, "inner") as inner:
            model.invoke("hello")
        model.invoke("hello")

    assert (outer.usage.total_tokens, inner.usage.total_tokens) == (3300, 1100)
    assert meter.usage.total_tokens == 3300
    assert [record.run_id for record in meter.history()] == [outer.id, inner.id, outer.id]


def test_a_handler_of_the_same_meter_inside_counts_nothing_twice(loopback: Loopback) -> None:
    model, meter = openai(loopback([FULL], loop=True)), Meter()

    with metering(meter) as run:
        model.invoke("hello", {"callbacks": [MeterCallback(meter)]})
        model.with_config(callbacks=[MeterCallback(meter)]).invoke("hello")

    assert (run.usage.requests, meter.usage.requests) == (2, 2)


def test_a_call_that_was_given_no_callbacks_is_metered_all_the_same(loopback: Loopback) -> None:
    """`callbacks=[]` in a node takes away what it would have inherited, its place in the graph included."""
    provider, meter, seen = loopback([FULL]), Meter(), RecordingPlugin()
    meter.register(seen)
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello", {"callbacks": []})]})
    graph.add_edge(START, "ask")

    with metering(meter) as run:
        graph.compile(name="asker").invoke({"messages": []})

    (record,) = meter.history()
    assert run.usage.total_tokens == 1100
    assert (record.agent, record.step) == ("asker", "1")
    assert record.parent_id == next(step.id for step in seen.run_records if step.name == "ask")


def test_without_it_such_a_call_is_not_seen(loopback: Loopback) -> None:
    """Which is what the page on LangChain says."""
    provider, meter = loopback([FULL]), Meter()
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello", {"callbacks": []})]})
    graph.add_edge(START, "ask")

    graph.compile().invoke({"messages": []}, {"callbacks": [MeterCallback(meter)]})

    assert meter.usage.requests == 0


def test_it_reaches_threads_that_copy_the_context_and_no_others(loopback: Loopback) -> None:
    model, meter = openai(loopback(lambda request: FULL)), Meter()

    with metering(meter) as run, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: copy_context().run(model.invoke, "not seen"), range(2)))
        contexts = [copy_context() for _ in range(4)]
        list(pool.map(lambda context: context.run(model.invoke, "hello"), contexts))
        model.batch(["hello", "there"])

    assert (run.usage.requests, meter.usage.requests) == (6, 6)


async def test_tasks_at_the_same_time_have_runs_of_their_own(loopback: Loopback) -> None:
    model, meter = openai(loopback(lambda request: FULL)), Meter()

    async def work(number: int) -> tuple[int, int]:
        with metering(meter, f"task {number}") as run:
            for _ in range(number):
                await model.ainvoke("hello")
            return number, run.usage.requests

    counted = await asyncio.gather(*(work(number) for number in range(1, 6)))

    assert counted == [(number, number) for number in range(1, 6)]
    assert meter.usage.requests == 15


def test_an_error_inside_ends_the_run_and_goes_on_its_way(loopback: Loopback) -> None:
    meter, seen = Meter(), RecordingPlugin()
    meter.register(seen)

    def fail(_: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with metering(meter, "failing"):
            RunnableLambda(fail).invoke("x")

    assert [(r.name, r.error_type) for r in seen.run_records][-1] == ("failing", "ZeroDivisionError")
    assert meter.health()["open_calls"] == 0


def test_ten_thousand_uses_register_no_hook() -> None:
    """A hook that is registered stays, and each one slows every later call down."""
    before = len(hooks._configure_hooks)
    meter = Meter()

    for _ in range(10_000):
        with metering(meter):
            pass

    assert len(hooks._configure_hooks) == before


def test_without_a_meter_it_is_the_one_of_the_process(loopback: Loopback) -> None:
    before = default_meter().usage.requests

    with metering() as run:
        openai(loopback([FULL])).invoke("hello")

    assert run.usage.requests == 1
    assert default_meter().usage.requests == before + 1
