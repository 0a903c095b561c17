"""32 threads and 1,000 tasks record while others read: totals exact, no exception."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_meter import Meter, TokenUsage, hookimpl
from agent_meter.testing import RecordingPlugin

THREADS, LOOPS = 32, 60
TASKS = 1000


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Threads take turns a hundred times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    yield
    sys.setswitchinterval(interval)


def work(meter: Meter, worker: int, number: int) -> None:
    """One turn: a run with a model call that asks for two tools, one tool, an embedding, a cached answer, a failure."""
    with meter.run("agent", agent=f"a{worker % 8}", user=f"u{worker}", session=f"s{number}") as run, run.step() as step:
        with step.llm("gpt-4o", provider="openai") as call:
            call.finish(TokenUsage(30, 15, cache_read_tokens=7), tools=("search", f"t{number % 5}"))
        with step.tool("search", {"query": f"{worker}-{number}"}) as tool:
            tool.chunk()
        meter.record_usage(model="text-embedding-3-small", kind="embedding", input_tokens=11)
        meter.record_usage(model="gpt-4o", input_tokens=100, output_tokens=1, cached=True, team="x")
        with contextlib.suppress(OSError), step.llm("gpt-4o"):
            raise OSError


def read(meter: Meter) -> None:
    usage = meter.usage
    assert sum(usage.tool_tokens.values()) <= usage.total_tokens
    assert usage.requests == usage.api_calls + usage.cached_requests
    assert usage.embedding_tokens % 11 == 0
    by_agent = meter.usage_by("agent")
    assert all(one.requests <= meter.usage.requests for one in by_agent.values())
    (meter.usage_by("agent", "tool"), meter.usage_by("hour"), meter.top("user", 3), meter.usage_by("team"))
    (str(usage), usage.to_dict(), usage.iterations, by_agent and next(iter(by_agent.values())).iterations)
    (meter.analytics.summary(), meter.analytics.to_dict(), meter.health())
    for record in meter.history(5, include_denied=True):
        if record.run_id:
            with contextlib.suppress(LookupError):  # the run may have ended and made room
                str(meter.tree(record.run_id))


@contextlib.contextmanager
def readers(meter: Meter, number: int) -> Iterator[list[BaseException]]:
    done = threading.Event()
    errors: list[BaseException] = []

    def read_on() -> None:
        try:
            while not done.is_set():
                read(meter)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read_on) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        done.set()
        for thread in threads:
            thread.join()


def assert_exact(meter: Meter, turns: int, watching: RecordingPlugin) -> None:
    usage = meter.usage
    assert (usage.requests, usage.api_calls, usage.cached_requests) == (4 * turns, 3 * turns, turns)
    assert (usage.input_tokens, usage.output_tokens) == (130 * turns, 16 * turns)
    assert (usage.cache_read_tokens, usage.embedding_tokens, usage.failed_requests) == (7 * turns, 11 * turns, turns)
    # 45 tokens at $2.50/$10 with 7 of them read from the cache at $1.25, 11 embedded at $0.02, 101 replayed
    pico = 23 * 2_500_000 + 7 * 1_250_000 + 15 * 10_000_000 + 11 * 20_000 + 100 * 2_500_000 + 10_000_000
    assert usage.totals.list_pico == pico * turns
    assert usage.totals.saved_pico == 260_000_000 * turns
    assert usage.unpriced_requests == 0
    assert sum(usage.tool_tokens.values()) == 45 * turns
    assert usage.tool_usage["search"] == turns
    for dimension in ("agent", "user", "session", "model", "tool", "team", "day"):
        groups = meter.usage_by(dimension)
        assert sum(one.requests for one in groups.values()) == 4 * turns, dimension
        assert sum(one.totals.list_pico for one in groups.values()) == pico * turns, dimension
    assert meter.usage_by("team")["x"].requests == turns
    metrics = meter.analytics.get_metrics("search")
    assert (metrics.total_calls, metrics.total_chunks) == (turns, turns)
    assert len(watching.records) == 7 * turns  # four model calls, a tool, a step and a run
    assert meter.health()["open_calls"] == 0
    assert meter.health()["failures"] == {}


def test_threads_record_while_others_read() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])
    start = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            start.wait()
            for number in range(LOOPS):
                work(meter, worker, number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(THREADS)]
    with readers(meter, 2) as read_errors:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert errors + read_errors == []
    assert_exact(meter, THREADS * LOOPS, watching)


async def test_tasks_record_while_others_read() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])
    reads = 0

    async def read_now_and_then() -> None:
        nonlocal reads
        while True:
            read(meter)
            reads += 1
            await asyncio.sleep(0.02)

    async def agent(worker: int) -> None:
        with meter.run("outer", user=f"u{worker}") as run:
            await asyncio.sleep(0)
            with run.step() as step:
                await asyncio.sleep(0)
                with step.llm("gpt-4o") as call:
                    await asyncio.sleep(0.001 * (worker % 7))
                    call.finish(TokenUsage(30, 15))
                with step.tool("search", {"q": worker}):
                    await asyncio.sleep(0)

    reader = asyncio.create_task(read_now_and_then())
    await asyncio.gather(*(agent(worker) for worker in range(TASKS)))
    reader.cancel()

    assert reads > 0
    assert meter.usage.requests == TASKS
    assert meter.usage.total_tokens == 45 * TASKS
    assert {usage.total_tokens for usage in meter.usage_by("user").values()} == {45}
    assert len(meter.usage_by("user")) == TASKS
    assert meter.analytics.get_metrics("search").total_calls == TASKS
    assert len(watching.records) == 4 * TASKS
    assert {meter.tree(record.id).usage.total_tokens for record in watching.run_records if record.kind == "run"} == {45}
    assert meter.health()["open_calls"] == 0


async def test_tasks_and_threads_record_together() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])

    async def task(worker: int) -> None:
        work(meter, worker, worker)
        await asyncio.sleep(0)
        await asyncio.to_thread(work, meter, worker, worker)

    with readers(meter, 1) as errors:
        await asyncio.gather(*(task(worker) for worker in range(300)))

    assert errors == []
    assert_exact(meter, 600, watching)


@pytest.mark.parametrize("change", ["reset", "session", "plugins", "prices"])
def test_the_meter_may_be_changed_while_it_counts(change: str) -> None:
    """What is recorded after the last change is exact; nothing raises meanwhile."""
    meter = Meter()

    def once(number: int) -> None:
        if change == "reset":
            meter.reset()
        elif change == "session":
            meter.reset(session=f"s{number % LOOPS}")
        elif change == "plugins":
            plugin = RecordingPlugin()
            meter.register(plugin)
            meter.unregister(plugin)
        else:
            meter.prices.set("other", 0.001)

    errors = _together([lambda n: work(meter, n, n % LOOPS)] * 4 + [once], 150)

    assert errors == []
    assert meter.health()["failures"] == {}
    if change in ("plugins", "prices", "session"):
        assert (meter.usage.requests, meter.usage.total_tokens) == (4 * 600, 146 * 600)
        assert sum(usage.requests for usage in meter.usage_by("agent").values()) == 2400
    meter.reset()
    work(meter, 1, 1)
    assert (meter.usage.requests, meter.usage.total_tokens) == (4, 146)


def test_failures_are_counted_exactly_from_many_threads() -> None:
    class Broken:
        @hookimpl
        def meter_record(self, record: Any) -> None:
            raise RuntimeError

    meter = Meter([Broken()])

    _together([lambda n: meter.record_usage(model="gpt-4o", input_tokens=1)] * 8, 200)

    assert meter.health()["failures"] == {"Broken": {"meter_record": 1600}}


def test_the_warning_comes_once_from_many_threads() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching], cost_warning_threshold=0.0001)

    _together([lambda n: meter.record_usage(model="gpt-4o", input_tokens=10)] * 8, 200)

    assert len(watching.alerts) == 1


def _together(jobs: list[Callable[[int], Any]], times: int) -> list[BaseException]:
    """Run each job `times` times in a thread of its own, all at once; what they raised."""
    start = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def run(job: Callable[[int], Any]) -> None:
        try:
            start.wait()
            for number in range(times):
                job(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
