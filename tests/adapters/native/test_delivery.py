"""Events that are `async def`: where they run, who waits for them, and what happens when they fail."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from typing import Any

import pytest
from tests.adapters.native.listener import USAGE

from agent_meter import AgentObserver, Meter


class AsyncListener(AgentObserver):
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.threads: set[int] = set()

    async def on_llm_start(self, run_id: str, messages: Any, model: str, system_prompt: str) -> None:
        self.heard.append(("start", model))

    async def on_usage(self, run_id: str, usage: Any) -> None:
        self.threads.add(threading.get_ident())
        await asyncio.sleep(0.01)
        self.heard.append(("usage", usage.total_tokens))

    async def on_tool_end(self, *args: Any) -> None:
        raise RuntimeError("out of paper")

    def on_tool_start(self, run_id: str, call_id: str, tool_name: str, tool_args: Any) -> None:
        self.heard.append(("tool", tool_name))


def test_in_synchronous_code_async_events_run_in_a_thread_of_their_own() -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)
    for number in range(20):
        with meter.llm(f"m{number}") as call:
            call.finish(USAGE)

    observer.drain()

    assert observer.heard.count(("usage", 45)) == 20
    assert [model for event, model in observer.heard if event == "start"] == [f"m{number}" for number in range(20)]
    assert threading.get_ident() not in observer.threads
    assert len(observer.threads) == 1


async def test_under_an_event_loop_async_events_are_its_tasks() -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)
    with meter.llm("gpt-4o") as call:
        call.finish(USAGE)
    assert observer.heard == []

    await observer.adrain()

    assert observer.heard == [("start", "gpt-4o"), ("usage", 45)]
    assert observer.threads == {threading.get_ident()}


async def test_a_thread_without_a_loop_sends_its_events_elsewhere_and_adrain_waits_for_both() -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)
    meter.record_usage(model="m", input_tokens=1)
    await asyncio.to_thread(lambda: meter.record_usage(model="m", input_tokens=2))

    await observer.adrain()

    assert sorted(observer.heard) == [("usage", 1), ("usage", 2)]


def test_sync_and_async_events_live_in_one_class_and_failures_are_counted() -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)
    with meter.tool("t"):
        pass
    observer.drain()

    assert observer.heard == [("tool", "t")]
    assert meter.health()["failures"] == {"AsyncListener": {"on_tool_end": 1}}


def test_a_shutdown_waits_for_the_events() -> None:
    observer = AsyncListener()
    with Meter() as meter:
        meter.observe(observer)
        meter.record_usage(model="m", input_tokens=3)

    assert observer.heard == [("usage", 3)]


def test_an_event_loop_that_closes_takes_its_events_with_it_and_health_says_so() -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)

    async def main() -> None:
        meter.record_usage(model="m", input_tokens=3)
        await asyncio.sleep(0)

    asyncio.run(main())

    assert observer.heard == []
    assert meter.health()["failures"] == {"AsyncListener": {"on_usage": 1}}
    assert meter.health()["last_errors"]["AsyncListener"]["on_usage"].startswith("CancelledError")


class Sleepy(AgentObserver):
    async def on_usage(self, run_id: str, usage: Any) -> None:
        await asyncio.sleep(30)


async def test_waiting_has_an_end() -> None:
    observer, meter = Sleepy(), Meter()
    meter.observe(observer)
    meter.record_usage(model="m")
    await asyncio.to_thread(lambda: meter.record_usage(model="m"))

    with pytest.raises(TimeoutError, match=r"1 events of Sleepy are still on their way after 0\.01 s"):
        observer.drain(0.01)
    with pytest.raises(TimeoutError, match=r"2 events of Sleepy are still on their way after 0\.01 s"):
        await observer.adrain(0.01)
    for sent in list(observer._tasks):
        sent.cancel()


def _in_a_child(answers: Any) -> None:
    observer, meter = AsyncListener(), Meter()
    meter.observe(observer)
    meter.record_usage(model="m", input_tokens=7)
    observer.drain()
    answers.put(observer.heard)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_has_a_thread_of_its_own() -> None:
    test_a_shutdown_waits_for_the_events()  # the parent's thread runs
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    worker = fork.Process(target=_in_a_child, args=(answers,))
    worker.start()

    assert answers.get(timeout=30) == [("usage", 7)]
    worker.join(30)
