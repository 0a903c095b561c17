"""Stampedes: who asks the same at the same time is answered by one call, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from agent_meter import Meter, ReplayCache, TokenUsage
from agent_meter.testing import LoopbackProvider, Reply, Request

Loopback = Callable[..., LoopbackProvider]
USED = TokenUsage(1000, 100)


def slow(request: Request) -> Reply:
    time.sleep(0.3)
    return Reply("Hello!", input_tokens=1000, output_tokens=100)


def test_fifty_threads_make_one_request(loopback: Loopback) -> None:
    provider, meter, cache = loopback(slow), Meter(), ReplayCache()
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter)(client.chat.completions.create)
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(create, model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]) for _ in range(50)]
    texts = {one.result().choices[0].message.content for one in asked}

    assert (len(provider.requests), texts) == (1, {"Hello!"})
    assert (cache.stats.hits, cache.stats.misses, meter.usage.requests, meter.usage.api_calls) == (49, 1, 50, 1)
    assert meter.usage.saved_cost_usd == 49 * meter.usage.billed_cost_usd


async def test_fifty_tasks_make_one_request(loopback: Loopback) -> None:
    provider, meter, cache = loopback(slow), Meter(), ReplayCache()
    async with AsyncOpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0) as client:
        create = cache.replayed(meter)(client.chat.completions.create)
        await asyncio.gather(*(create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]) for _ in range(50)))

    assert (len(provider.requests), cache.stats.hits, meter.usage.api_calls) == (1, 49, 1)


async def test_threads_and_tasks_wait_for_each_other() -> None:
    meter, cache, asked = Meter(), ReplayCache(), []

    def key(question: str) -> str:
        return question

    async def ask(question: str) -> Any:
        asked.append(question)
        await asyncio.sleep(0.2)
        return question, USED

    asked_async = cache.replayed(meter, model="gpt-4o", key=key)(ask)

    def elsewhere() -> Any:
        return asyncio.run(asked_async("Hi"))  # its own event loop, in a thread

    loop = asyncio.get_running_loop()
    results = await asyncio.gather(
        asked_async("Hi"), *(loop.run_in_executor(None, elsewhere) for _ in range(4)), asked_async("Hi")
    )

    assert (asked, results) == (["Hi"], [("Hi", USED)] * 6)


def test_each_follower_gets_a_copy_of_its_own() -> None:
    meter, cache, start = Meter(), ReplayCache(), threading.Barrier(4)

    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Any:
        time.sleep(0.1)
        return {"words": [question]}

    def change() -> Any:
        start.wait()
        answer = ask("Hi")
        answer["words"].append(str(threading.get_ident()))
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = [one.result() for one in [pool.submit(change) for _ in range(4)]]

    assert [len(answer["words"]) for answer in answers] == [2] * 4
    assert ask("Hi") == {"words": ["Hi"]}


def test_a_leader_that_fails_hands_over_to_a_follower() -> None:
    meter, cache, calls = Meter(), ReplayCache(), []

    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Any:
        calls.append(question)
        time.sleep(0.1)
        if len(calls) == 1:
            raise ConnectionError("the first one fails")
        return question, USED

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, "Hi") for _ in range(8)]
    failed = [one for one in asked if one.exception()]

    assert (len(calls), len(failed), cache.stats.hits) == (2, 1, 6)


async def test_a_leader_that_is_cancelled_hands_over_to_a_follower() -> None:
    meter, cache, calls = Meter(), ReplayCache(), []

    @cache.replayed(meter, model="gpt-4o")
    async def ask(question: str) -> Any:
        calls.append(question)
        await asyncio.sleep(0.1)
        return question, USED

    leader = asyncio.create_task(ask("Hi"))
    await asyncio.sleep(0.02)
    followers = [asyncio.create_task(ask("Hi")) for _ in range(5)]
    await asyncio.sleep(0.02)
    leader.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*followers), 5)

    assert (answers, len(calls)) == ([("Hi", USED)] * 5, 2)
    assert [record.status for record in meter.history()].count("cancelled") == 1


async def test_a_follower_that_is_cancelled_changes_nothing_for_the_others() -> None:
    meter, cache = Meter(), ReplayCache()

    @cache.replayed(meter, model="gpt-4o")
    async def ask(question: str) -> Any:
        await asyncio.sleep(0.1)
        return question, USED

    tasks = [asyncio.create_task(ask("Hi")) for _ in range(3)]
    await asyncio.sleep(0.02)
    tasks[1].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(one) for one in ended] == [tuple, asyncio.CancelledError, tuple]
    assert (cache.stats.misses, cache.stats.hits) == (1, 1)


def test_an_answer_that_cannot_be_shared_does_not_queue_those_who_wait() -> None:
    meter, cache, start = Meter(), ReplayCache(), threading.Barrier(6)

    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Any:
        time.sleep(0.2)
        return threading.Lock(), USED

    def timed() -> None:
        start.wait()
        ask("Hi")

    began = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(timed) for _ in range(6)]:
            one.result()

    assert time.monotonic() - began < 1.0  # one after the other would take 1.2 s


# ------------------------------------------------------------------------------------------------ deadlocks


def test_a_function_that_asks_itself_the_same_does_not_wait_for_itself() -> None:
    meter, cache, depth = Meter(), ReplayCache(), []

    @cache.replayed(meter)
    def ask(question: str) -> str:
        depth.append(question)
        return "deep" if len(depth) == 3 else ask(question)

    assert (ask("Hi"), len(depth)) == ("deep", 3)


async def test_nor_does_a_task_that_it_starts_or_a_thread() -> None:
    meter, cache, depth = Meter(), ReplayCache(), []

    @cache.replayed(meter)
    async def ask(question: str) -> str:
        depth.append(question)
        if len(depth) == 3:
            return "deep"
        if len(depth) == 1:
            return (await asyncio.gather(ask(question)))[0]
        return await asyncio.to_thread(lambda: asyncio.run(ask(question)))

    assert (await asyncio.wait_for(ask("Hi"), 10), len(depth)) == ("deep", 3)


def test_two_that_wait_for_what_the_other_is_on_its_way_to_get() -> None:
    meter, cache, both = Meter(), ReplayCache(), threading.Barrier(2)
    first = threading.local()

    @cache.replayed(meter)
    def ask(question: str) -> str:
        if not getattr(first, "asked", False):
            first.asked = True
            both.wait(5)
            return ask("b" if question == "a" else "a")
        return "answered"

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, question) for question in "ab"]
        answers = [one.result(10) for one in asked]

    assert answers == ["answered", "answered"]


async def test_blocking_code_on_the_event_loop_does_not_wait_for_a_task_of_that_loop() -> None:
    meter, cache = Meter(), ReplayCache()
    name = "ask"

    def key(question: str) -> str:
        return question

    async def asked(question: str) -> str:
        await asyncio.sleep(0.2)
        return "from the task"

    def asked_at_once(question: str) -> str:
        return "at once"

    for function in (asked, asked_at_once):  # two faces of one question
        function.__qualname__ = name
    in_a_task = cache.replayed(meter, key=key)(asked)
    blocking = cache.replayed(meter, key=key)(asked_at_once)
    task = asyncio.create_task(in_a_task("Hi"))
    await asyncio.sleep(0.02)

    assert (blocking("Hi"), await task) == ("at once", "from the task")


def test_a_leader_whose_event_loop_has_stopped_is_not_waited_for() -> None:
    meter, cache, calls = Meter(), ReplayCache(), []
    loop, leading = asyncio.new_event_loop(), threading.Event()

    @cache.replayed(meter)
    async def ask(question: str) -> str:
        calls.append(question)
        if len(calls) == 1:
            leading.set()
            await asyncio.sleep(60)
        return "answered"

    async def lead() -> None:
        leader = asyncio.ensure_future(ask("Hi"))
        await asyncio.sleep(0.05)
        assert not leader.done()

    thread = threading.Thread(target=loop.run_until_complete, args=(lead(),))
    thread.start()
    leading.wait(5)
    thread.join(5)  # the loop stands still, its task half done
    began = time.monotonic()
    answers = [asyncio.run(ask("Hi")) for _ in range(3)]

    assert (answers, len(calls)) == (["answered"] * 3, 2)
    assert time.monotonic() - began < 1.0
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_does_not_wait_for_its_parents_leader() -> None:
    meter, cache, leading, go = Meter(), ReplayCache(), threading.Event(), threading.Event()

    @cache.replayed(meter)
    def ask(question: str) -> str:
        leading.set()
        go.wait(10)
        return "answered"

    thread = threading.Thread(target=copy_context().run, args=(ask, "Hi"))
    thread.start()
    leading.wait(5)
    child = os.fork()
    if child == 0:
        go.set()
        os._exit(0 if ask("Hi") == "answered" else 1)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    go.set()
    thread.join(5)

    assert not thread.is_alive()
