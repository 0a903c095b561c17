"""AgentObserver: which events come, with what, in which order, and what happens when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import threading
from decimal import Decimal
from typing import Any

import pytest
from tests.pages import read, run_examples

from agent_meter import AgentObserver, BudgetExceeded, Call, Denial, Kind, Meter, Model, Status, TokenUsage, hookimpl
from agent_meter.testing import FakeClock

PAGE = "reference/observers.md"
EVENTS = [name for name in vars(AgentObserver) if name.startswith("on_")]
USAGE = TokenUsage(30, 15)


class Listener(AgentObserver):
    """Writes down every event with its arguments by name."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    def last(self, name: str) -> dict[str, Any]:
        return next(arguments for event, arguments in reversed(self.heard) if event == name)


def _listening(name: str) -> Any:
    signature = inspect.signature(getattr(AgentObserver, name))

    def event(self: Any, *args: Any) -> None:
        self.heard.append((name, dict(list(signature.bind(self, *args).arguments.items())[1:])))

    return event


for _name in EVENTS:
    setattr(Listener, _name, _listening(_name))


class CuriousListener(Listener):
    wants_content = True


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def meter(listener: Listener, clock: FakeClock) -> Meter:
    meter = Meter(clock=clock)
    meter.observe(listener)
    return meter


# ----------------------------------------------------------------------------------- events and arguments


def test_the_arguments_are_those_of_the_seed_documents() -> None:
    arguments = {name: list(inspect.signature(getattr(AgentObserver, name)).parameters)[1:] for name in EVENTS}

    assert arguments == {
        "on_run_start": ["run_id", "messages", "system_prompt"],
        "on_run_end": ["run_id", "result"],
        "on_llm_start": ["run_id", "messages", "model", "system_prompt"],
        "on_llm_end": ["run_id", "response", "usage"],
        "on_llm_error": ["run_id", "error", "usage"],
        "on_usage": ["run_id", "usage"],
        "on_cache_hit": ["run_id", "model", "response"],
        "on_tool_start": ["run_id", "call_id", "tool_name", "tool_args"],
        "on_tool_end": ["run_id", "call_id", "tool_name", "result", "duration_ms"],
        "on_tool_error": ["run_id", "call_id", "tool_name", "error", "tool_args", "duration_ms"],
    }


def test_a_run_is_told_from_beginning_to_end(meter: Meter, listener: Listener, clock: FakeClock) -> None:
    with meter.run("research") as run, run.step() as step:
        with step.llm("gpt-4o", provider="openai") as call:
            clock.advance(0.5)
            call.finish(USAGE, tools=("search",))
        with step.tool("search", {"q": "x"}, call_id="c1") as tool:
            clock.advance(0.25)
            tool.result(["found"])

    assert listener.heard == [
        ("on_run_start", {"run_id": run.id, "messages": None, "system_prompt": ""}),
        ("on_llm_start", {"run_id": run.id, "messages": None, "model": "gpt-4o", "system_prompt": ""}),
        ("on_llm_end", {"run_id": run.id, "response": None, "usage": call.record}),
        ("on_usage", {"run_id": run.id, "usage": call.record}),
        ("on_tool_start", {"run_id": run.id, "call_id": "c1", "tool_name": "search", "tool_args": {"q": "x"}}),
        (
            "on_tool_end",
            {"run_id": run.id, "call_id": "c1", "tool_name": "search", "result": None, "duration_ms": 250.0},
        ),
        ("on_run_end", {"run_id": run.id, "result": run.record}),
    ]
    usage = listener.last("on_usage")["usage"]
    assert (usage.total_tokens, usage.cost_usd, usage.duration) == (45, Decimal("0.000225"), 0.5)
    assert listener.last("on_run_end")["result"].name == "research"


def test_a_tool_that_fails_is_told_with_its_exception(meter: Meter, listener: Listener, clock: FakeClock) -> None:
    error = LookupError("nothing found")
    with contextlib.suppress(LookupError), meter.tool("search", {"q": "x"}) as tool:
        clock.advance(0.1)
        raise error

    assert listener.names() == ["on_tool_start", "on_tool_error"]
    told = listener.last("on_tool_error")
    assert told.pop("error") is error
    assert told == {
        "run_id": tool.id,
        "call_id": tool.id,
        "tool_name": "search",
        "tool_args": {"q": "x"},
        "duration_ms": 100.0,
    }


def test_where_there_is_no_exception_its_name_is_told(meter: Meter, listener: Listener) -> None:
    meter.record_tool_call("search", False, 0.1, {}, error_type="Timeout")
    meter.record_tool_call("search", False, 0.1, {})

    assert [told["error"] for _, told in listener.heard] == ["Timeout", "error"]


@pytest.mark.parametrize("status", [Status.ERROR, Status.CANCELLED, Status.ABANDONED])
def test_a_model_call_that_fails_is_an_error_and_a_usage(status: Status, meter: Meter, listener: Listener) -> None:
    call = meter.open(Call(Kind.LLM, model=Model("", "gpt-4o")))
    call.error = error = TimeoutError()
    record = meter.close(call, USAGE, status=status, error_type="TimeoutError")

    assert listener.names() == ["on_llm_start", "on_llm_error", "on_usage"]
    assert listener.last("on_llm_error") == {"run_id": call.id, "error": error, "usage": record}
    assert listener.last("on_usage") == {"run_id": call.id, "usage": record}


def test_a_replay_is_a_cache_hit_and_a_usage(meter: Meter, listener: Listener) -> None:
    with meter.llm("gpt-4o") as call:
        call.finish(USAGE, cached=True)

    assert listener.names() == ["on_llm_start", "on_llm_end", "on_cache_hit", "on_usage"]
    assert listener.last("on_cache_hit") == {"run_id": call.id, "model": "gpt-4o", "response": None}
    usage = listener.last("on_usage")["usage"]
    assert (usage.cached, usage.cost_usd, usage.billed_cost_usd) == (True, Decimal("0.000225"), 0)


@pytest.mark.parametrize("kind", ["llm", "embedding", "rerank"])
@pytest.mark.parametrize("status", ["ok", "error", "cancelled", "abandoned"])
def test_usage_is_told_once_for_every_ended_model_call(
    kind: str, status: str, meter: Meter, listener: Listener
) -> None:
    record = meter.record_usage(model="zz-unpriced", input_tokens=10, kind=kind, status=status, run_id="r1")

    assert [told for name, told in listener.heard if name == "on_usage"] == [{"run_id": "r1", "usage": record}]
    assert listener.last("on_usage")["usage"].cost_usd is None


def test_a_denied_call_is_not_told() -> None:
    class Gate:
        @hookimpl
        def meter_admit_call(self, call: Call) -> Denial:
            return Denial("closed")

    listener = Listener()
    meter = Meter([Gate()])
    meter.observe(listener)
    with pytest.raises(BudgetExceeded), meter.llm("gpt-4o"):
        pass
    with pytest.raises(BudgetExceeded), meter.tool("search"):
        pass

    assert listener.heard == []


def test_a_late_answer_is_told_as_the_correction_that_it_is(meter: Meter, listener: Listener) -> None:
    call = meter.open(Call(Kind.LLM, model=Model("", "gpt-4o")))
    meter.expire(older_than=-1)
    meter.close(call, USAGE)

    assert listener.names() == ["on_llm_start", "on_llm_error", "on_usage", "on_llm_end", "on_usage"]
    first, second = (told["usage"] for name, told in listener.heard if name == "on_usage")
    assert second.corrects is first
    assert listener.heard[1][1]["error"] == "expired"


def test_whoever_is_told_finds_the_call_counted() -> None:
    class Reader(AgentObserver):
        def on_usage(self, run_id: str, usage: Any) -> None:
            self.seen = (meter.usage.total_tokens, len(meter.history()))

        def on_tool_end(self, *args: Any) -> None:
            self.tools = (meter.usage.tool_usage, meter.analytics.get_metrics("t").total_calls)

    reader, meter = Reader(), Meter()
    meter.observe(reader)
    meter.record_usage(model="gpt-4o", input_tokens=45)
    meter.record_tool_call("t", True, 0.1, {})

    assert reader.seen == (45, 1)
    assert reader.tools == ({"t": 1}, 1)


def test_several_observers_and_an_observer_of_several_meters(listener: Listener) -> None:
    other, meters = Listener(), [Meter(), Meter()]
    for meter in meters:
        meter.observe(listener)
    meters[0].observe(other)

    for meter in meters:
        meter.record_usage(model="m", input_tokens=1)

    assert (listener.names().count("on_usage"), other.names().count("on_usage")) == (2, 1)


def test_an_observer_keeps_nothing_of_calls_that_have_ended(meter: Meter, listener: Listener) -> None:
    for _ in range(10):
        with meter.run("r"), meter.tool("t"), meter.llm("gpt-4o") as call:
            call.finish(USAGE)

    assert listener._open_calls == {}


def test_the_base_class_hears_everything_and_does_nothing() -> None:
    meter = Meter(strict=True)
    meter.observe(AgentObserver())
    with meter.run("r"), meter.tool("t"), meter.llm("gpt-4o") as call:
        call.finish(USAGE, cached=True)

    assert meter.health()["ok"]


# ----------------------------------------------------------------------------------------------- content


def _content(meter: Meter) -> None:
    call = Call(Kind.LLM, model=Model("", "gpt-4o"))
    call.content = ["Hello?"]
    meter.open(call)
    call.response = "Hello!"
    meter.close(call, USAGE, cached=True)
    run = Call(Kind.RUN, "r")
    run.content = ["Do it"]
    meter.open(run)
    with meter.tool("t", {"q": 1}) as tool:
        tool.result("found")
    meter.close(run)


def test_content_comes_to_those_who_ask_for_it_and_to_nobody_else() -> None:
    plain, curious = Listener(), CuriousListener()
    meter = Meter()
    meter.observe(plain)
    assert meter.wants_content is False
    meter.observe(curious)
    assert meter.wants_content is True

    _content(meter)

    def told(listener: Listener) -> list[Any]:
        return [
            listener.last("on_llm_start")["messages"],
            listener.last("on_llm_end")["response"],
            listener.last("on_cache_hit")["response"],
            listener.last("on_run_start")["messages"],
            listener.last("on_tool_end")["result"],
        ]

    assert told(curious) == [["Hello?"], "Hello!", "Hello!", ["Do it"], "found"]
    assert told(plain) == [None] * 5
    assert "Hello" not in repr(meter.history())


# ---------------------------------------------------------------------------------------------- failures


class Broken(AgentObserver):
    """Raises in every event."""


def _raising(name: str) -> Any:
    def event(self: Any, *args: Any) -> None:
        raise RuntimeError(name)

    event.__name__ = name
    return event


for _name in EVENTS:
    setattr(Broken, _name, _raising(_name))


def test_an_observer_that_raises_in_every_event_is_counted_and_harmless() -> None:
    after, meter = Listener(), Meter()
    meter.observe(after)  # told after the newer one
    meter.observe(Broken())
    with meter.run("r") as run:
        with run.llm("gpt-4o") as call:
            call.finish(USAGE, cached=True)
        with run.tool("t"):
            pass
        with pytest.raises(OSError), run.tool("t"):
            raise OSError
        with pytest.raises(OSError), run.llm("gpt-4o"):
            raise OSError

    assert meter.health()["failures"] == {
        "Broken": {
            "on_run_start": 1,
            "on_llm_start": 2,
            "on_llm_end": 1,
            "on_cache_hit": 1,
            "on_usage": 2,
            "on_tool_start": 2,
            "on_tool_end": 1,
            "on_tool_error": 1,
            "on_llm_error": 1,
            "on_run_end": 1,
        }
    }
    assert len(after.heard) == 13
    assert meter.usage.requests == 2


def test_strict_lets_an_observers_failure_through() -> None:
    meter = Meter(strict=True)
    meter.observe(Broken())

    with pytest.raises(RuntimeError, match="on_llm_end"):
        meter.record_usage(model="gpt-4o", input_tokens=1)


# -------------------------------------------------------------------------------------------- async events


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


# ------------------------------------------------------------------------------------------------- page


def test_the_page_has_every_event_with_its_arguments() -> None:
    page = read(PAGE)
    for name in EVENTS:
        arguments = ", ".join(list(inspect.signature(getattr(AgentObserver, name)).parameters)[1:])
        assert f"| `{name}({arguments})` |" in page


def test_the_examples_of_the_page_print_what_it_says() -> None:
    assert run_examples(PAGE)["slow"].total == 1500
