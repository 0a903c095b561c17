"""Own loops: blocks and decorators around runs, steps, model calls and tools."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from tests.pages import run_examples

from agent_meter import AgentObserver, Budget, BudgetExceeded, Denial, Meter, TokenUsage, hookimpl
from agent_meter.handles import LlmHandle
from agent_meter.testing import FakeClock, RecordingPlugin, Reply

USAGE = TokenUsage(30, 15)


@pytest.fixture
def watching() -> RecordingPlugin:
    return RecordingPlugin()


@pytest.fixture
def meter(watching: RecordingPlugin) -> Meter:
    return Meter([watching])


# ------------------------------------------------------------------------------------------ blocks of a loop


def test_a_loop_is_recorded_as_it_is_written(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.run("research", user="u1", team="x") as run:
        for _ in range(2):
            with run.step() as step:
                with step.llm("gpt-4o", provider="openai") as call:
                    call.finish(USAGE, tools=("search",))
                with step.tool("search", {"q": "pluggy"}, call_id="c1"):
                    pass

    assert [(record.kind, record.step) for record in watching.records] == [
        ("llm", "step 1"),
        ("tool", "step 1"),
        ("step", "step 1"),
        ("llm", "step 2"),
        ("tool", "step 2"),
        ("step", "step 2"),
        ("run", ""),
    ]
    assert {(record.user, record.tags.get("team"), record.run_id) for record in watching.records} == {
        ("u1", "x", run.id)
    }
    assert [record.step_number for record in watching.run_records] == [1, 2, None]
    assert [record.name for record in watching.run_records] == ["step 1", "step 2", "research"]
    assert {record.framework for record in watching.records} == {"native"}
    assert meter.usage.tool_usage == {"search": 2}
    assert meter.usage_by("step").keys() == {"step 1", "step 2"}
    assert run.record is watching.records[-1]


def test_steps_may_have_names_and_are_numbered_all_the_same(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.run("r") as run:
        for name in ("plan", "", "write"):
            with run.step(name) as step:
                assert step.step_number in (1, 2, 3)

    assert [(record.name, record.step_number) for record in watching.run_records[:3]] == [
        ("plan", 1),
        ("step 2", 2),
        ("write", 3),
    ]


def test_every_handle_stands_by_itself_too(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.step("alone"):
        pass
    with meter.tool("alone"):
        pass
    with meter.llm("gpt-4o") as call:
        call.finish(USAGE)

    assert [record.run_id for record in watching.records] == [None, None, None]
    assert watching.run_records[0].step_number is None


def test_what_is_opened_inside_a_block_belongs_to_it(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.run("outer") as outer, meter.step("s") as step, meter.tool("t") as tool:
        with meter.run("inner") as inner, meter.llm("gpt-4o") as call:
            call.finish(USAGE)
        with meter.llm("gpt-4o") as second:
            second.finish(USAGE)

    parents = {record.id: record.parent_id for record in watching.records}
    assert parents == {
        outer.id: None,
        step.id: outer.id,
        tool.id: step.id,
        inner.id: tool.id,
        call.id: inner.id,
        second.id: tool.id,
    }
    assert call.record.run_id == inner.id


def test_a_model_call_holds_no_other_calls(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.llm("outer") as outer, meter.llm("inner") as inner:
        inner.finish(USAGE)
        outer.finish(USAGE)

    assert [record.parent_id for record in watching.records] == [None, None]


def test_an_exception_is_recorded_and_goes_on_its_way(meter: Meter, watching: RecordingPlugin) -> None:
    error = ValueError("no such page")

    with pytest.raises(ValueError, match="no such page") as raised, meter.run("r") as run, run.step() as step:
        with step.tool("t"):
            raise error

    assert raised.value is error
    assert [(record.kind, record.status, record.error_type) for record in watching.records] == [
        ("tool", "error", "ValueError"),
        ("step", "error", "ValueError"),
        ("run", "error", "ValueError"),
    ]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
def test_what_was_stopped_from_outside_is_cancelled(
    error: BaseException, meter: Meter, watching: RecordingPlugin
) -> None:
    with pytest.raises(type(error)), meter.run("r"), meter.llm("gpt-4o"):
        raise error

    assert [record.status for record in watching.records] == ["cancelled", "cancelled"]
    assert meter.usage.failed_requests == 1


def test_an_error_before_the_answer_costs_nothing(meter: Meter) -> None:
    with pytest.raises(TimeoutError), meter.llm("gpt-4o"):
        raise TimeoutError

    (record,) = meter.history()
    assert (record.status, record.error_type, record.usage, record.billed_cost_usd) == (
        "error",
        "TimeoutError",
        None,
        0,
    )


def test_an_error_after_the_answer_leaves_the_answer(meter: Meter) -> None:
    with contextlib.suppress(ValueError), meter.llm("gpt-4o") as call:
        call.finish(USAGE)
        raise ValueError("cannot parse it")

    assert [(record.status, record.total_tokens) for record in meter.history()] == [("ok", 45)]


def test_a_handle_is_one_call(meter: Meter, watching: RecordingPlugin) -> None:
    for handle in (meter.run("r"), meter.tool("t"), meter.llm("gpt-4o")):
        with handle:
            pass
        with pytest.raises(RuntimeError, match="was entered before: make a new one for the next call"), handle:
            pytest.fail("this would not have been counted")

    assert len(watching.records) == 3


def test_a_denied_block_is_not_run_and_the_next_call_is_free_of_it(watching: RecordingPlugin) -> None:
    class Gate:
        @hookimpl
        def meter_admit_call(self, call: Any) -> Denial | None:
            return Denial("closed") if call.name == "shell" else None

    meter = Meter([watching, Gate()])
    with pytest.raises(BudgetExceeded), meter.tool("shell", agent="a"):
        pytest.fail("the tool was run")
    with meter.tool("search"):
        pass

    assert [(record.status, record.agent) for record in watching.records] == [("denied", "a"), ("ok", "")]
    assert watching.records[1].parent_id is None


# ------------------------------------------------------------------------------------------------- model calls


def test_an_answer_may_be_a_usage(meter: Meter) -> None:
    with meter.llm("gpt-4o", provider="openai") as call:
        record = call.finish(USAGE, response_model="gpt-4o-2024-08-06", response_id="x", tools=["search"])

    assert meter.history() == [record]
    assert (record.usage, record.provider, record.status) == (USAGE, "openai", "ok")
    assert (record.response_model, record.response_id, record.tools) == ("gpt-4o-2024-08-06", "x", ("search",))
    assert call.record is record


CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 8},
    },
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello"}],
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 0, "output_tokens": 5},
}


def test_an_answer_may_be_a_providers_json(meter: Meter) -> None:
    with meter.llm("gpt-4o", provider="openai") as call:
        record = call.finish(CHAT)

    assert record.usage == TokenUsage(100, 40, cache_read_tokens=64, reasoning_tokens=8)
    assert (record.response_model, record.response_id) == ("gpt-4o-2024-08-06", "chatcmpl-1")
    assert record.tools == ("search", "add")


def test_an_answer_may_be_an_sdks_object(meter: Meter) -> None:
    openai = pytest.importorskip("openai.types.chat")
    anthropic = pytest.importorskip("anthropic.types")

    with meter.llm("gpt-4o", provider="openai") as call:
        first = call.finish(openai.ChatCompletion.model_validate({**CHAT, "created": 1}))
    with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        body = {**MESSAGE, "stop_reason": "end_turn", "stop_sequence": None}
        second = call.finish(anthropic.Message.model_validate(body))

    assert (first.cache_read_tokens, first.tools) == (64, ("search", "add"))
    assert (second.input_tokens, second.cache_read_tokens, second.output_tokens) == (100, 90, 5)


def test_an_answer_may_come_from_the_real_client(meter: Meter, loopback: Any) -> None:
    openai = pytest.importorskip("openai")
    provider = loopback([Reply("Hi", input_tokens=12, output_tokens=3)])
    client = openai.OpenAI(base_url=provider.openai_base_url, api_key="none")

    with meter.llm("gpt-4o", provider="openai") as call:
        call.finish(client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}]))

    assert meter.usage.total_tokens == provider.total.total_tokens == 15


def test_what_is_said_beside_the_answer_wins(meter: Meter) -> None:
    with meter.llm("gpt-4o") as call:
        record = call.finish(
            CHAT, response_model="mine", response_id="own", tools=("other",), cached=True, estimated=True
        )

    assert (record.response_model, record.response_id, record.tools) == ("mine", "own", ("other",))
    assert (record.cached, record.estimated, record.billed_cost_usd) == (True, True, 0)


def test_an_error_body_is_recorded_as_an_error_that_costs_nothing(meter: Meter) -> None:
    body = {"error": {"type": "rate_limit_exceeded", "message": "slow down", "code": "rate_limit_exceeded"}}
    with meter.llm("gpt-4o", provider="openai") as call:
        record = call.finish(body)

    assert (record.status, record.error_type, record.usage) == ("error", "rate_limit_exceeded", None)
    assert (record.billed_cost_usd, meter.usage.unpriced_requests) == (0, 0)


@pytest.mark.parametrize("answer", [None, "just text", b"\xff", 42, object(), [], {}, SimpleNamespace(usage=7)])
def test_an_answer_that_says_nothing_is_unknown_and_harmless(answer: object, meter: Meter) -> None:
    with meter.llm("gpt-4o") as call:
        record = call.finish(answer)

    assert (record.status, record.cost_usd, record.estimated) == ("ok", None, True)
    assert record.missing == ("input_tokens", "output_tokens")
    assert meter.usage.unpriced_requests == 1


def test_the_second_finish_changes_nothing(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.llm("gpt-4o") as call:
        first = call.finish(USAGE)
        second = call.finish(TokenUsage(1000, 1000))
    third = call.finish(TokenUsage(1000, 1000))

    assert first is second is third
    assert watching.usage_records == [first]


def test_a_block_without_finish_is_recorded_with_unknown_usage(meter: Meter) -> None:
    with meter.llm("gpt-4o"):
        pass

    (record,) = meter.history()
    assert (record.status, record.usage, record.cost_usd, record.estimated) == ("ok", None, None, True)


def test_a_call_may_be_finished_without_a_block(meter: Meter, watching: RecordingPlugin) -> None:
    call = meter.llm("gpt-4o", agent="a")
    record = call.finish(USAGE)

    assert watching.names() == [
        "meter_startup",
        "meter_tag_call",
        "meter_find_rates",
        "meter_admit_call",
        "meter_call_opened",
        "meter_record",
    ]
    assert (record.agent, record.total_tokens) == ("a", 45)


def test_the_time_to_the_first_token_is_that_of_the_first() -> None:
    clock = FakeClock()
    meter = Meter(clock=clock)

    with meter.llm("gpt-4o") as call:
        for _ in range(3):
            clock.advance(0.5)
            call.first_token()
        record = call.finish(USAGE)

    assert (record.time_to_first_token, record.duration, record.streamed) == (0.5, 1.5, True)


def test_a_finish_after_the_run_has_ended_corrects(meter: Meter) -> None:
    with meter.run("r") as run:
        call = run.llm("gpt-4o")
        call.__enter__()
    assert meter.usage.failed_requests == 1

    record = call.finish(USAGE)

    assert record.corrects is not None
    assert (meter.usage.requests, meter.usage.total_tokens, meter.usage.failed_requests) == (1, 45, 0)


@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_other_model_calls_have_their_kind(kind: str, meter: Meter) -> None:
    with meter.llm("text-embedding-3-small", kind=kind) as call:
        call.finish(TokenUsage(1000))

    assert meter.history()[0].kind == kind
    assert meter.usage.embedding_tokens == (1000 if kind == "embedding" else 0)


def test_an_attempt_that_failed_is_made_again_as_the_next_one(meter: Meter, watching: RecordingPlugin) -> None:
    answers = iter([TimeoutError(), ConnectionError(), USAGE])
    with meter.run("r") as run, run.step() as step:
        call = step.llm("gpt-4o", provider="openai", user="ada", team="x")
        while True:
            try:
                with call:
                    answer = next(answers)
                    if isinstance(answer, Exception):
                        raise answer
                    call.finish(answer)
                break
            except OSError:
                call = call.again()

    assert [(record.attempt, record.status, record.error_type) for record in watching.usage_records] == [
        (1, "error", "TimeoutError"),
        (2, "error", "ConnectionError"),
        (3, "ok", None),
    ]
    assert {(r.parent_id, r.provider, r.user, r.tags["team"]) for r in watching.usage_records} == {
        (step.id, "openai", "ada", "x")
    }
    assert (meter.usage.requests, meter.usage.failed_requests, meter.usage.total_tokens) == (3, 2, 45)


def test_an_attempt_may_say_its_number(meter: Meter) -> None:
    with meter.llm("gpt-4o", attempt=4) as call:
        call.finish(USAGE)

    assert meter.history()[0].attempt == 4


def test_an_answer_that_was_cut_is_an_error_with_what_is_known(meter: Meter) -> None:
    with meter.llm("gpt-4o") as call:
        record = call.finish(USAGE, error=ConnectionError("reset"), estimated=True)

    assert (record.status, record.error_type, record.total_tokens, record.estimated) == (
        "error",
        "ConnectionError",
        45,
        True,
    )


def test_a_runs_iterations_are_its_calls_and_those_below_it(meter: Meter) -> None:
    def ask(tokens: int) -> None:
        with meter.llm("gpt-4o") as call:
            call.finish(TokenUsage(tokens))

    with meter.run("outer") as outer:
        ask(1)
        with outer.step() as step:
            ask(2)
            with meter.tool("t"), meter.run("inner") as inner:
                ask(3)
    ask(4)

    def tokens(usage: Any) -> list[int]:
        return [record.total_tokens for record in usage.iterations]

    assert (tokens(outer.usage), tokens(step.usage), tokens(inner.usage)) == ([1, 2, 3], [2, 3], [3])
    assert (tokens(meter.tree(outer.id).own), tokens(meter.tree(step.id).own)) == ([1], [2])
    assert tokens(meter.usage) == [1, 2, 3, 4]


async def test_blocks_are_async_too(meter: Meter, watching: RecordingPlugin) -> None:
    async with meter.run("r") as run:
        async with run.step() as step:
            async with step.llm("gpt-4o") as call:
                call.finish(USAGE)
            with pytest.raises(ValueError, match="no"):
                async with step.tool("t"):
                    raise ValueError("no")

    assert [(record.kind, record.status, record.parent_id) for record in watching.records] == [
        ("llm", "ok", step.id),
        ("tool", "error", step.id),
        ("step", "ok", run.id),
        ("run", "ok", None),
    ]


async def test_an_async_block_waits_for_a_budget_and_the_event_loop_goes_on() -> None:
    meter, ticks = Meter(budgets=[Budget("one", requests=1, per="rolling 1s", mode="wait", timeout=3)]), []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    async def ask() -> None:
        async with meter.llm("gpt-4o", agent="a") as call:
            call.finish(USAGE)

    ticking = asyncio.create_task(tick())
    await ask()
    await ask()
    ticking.cancel()

    assert [record.agent for record in meter.history()] == ["a", "a"]
    assert len(ticks) > 3


def test_messages_tell_a_budget_how_much_to_set_aside_and_are_forgotten_then() -> None:
    meter = Meter(budgets=[Budget("small", tokens=2_000)])
    short, long = [{"role": "user", "content": "x" * 100}], [{"role": "user", "content": "x" * 5_000}]
    with meter.llm("gpt-4o", messages=short, max_output_tokens=50) as call:
        assert call.call.prompt is None
        call.finish(USAGE)
    with pytest.raises(BudgetExceeded) as refused, meter.llm("gpt-4o", messages=long, max_output_tokens=50):
        pytest.fail("it was called")

    assert 4_000 < refused.value.requested < 4_200  # text without a blank: four tokens for five bytes


def test_messages_and_results_are_for_those_who_ask_and_never_a_tag(meter: Meter) -> None:
    class Curious(AgentObserver):
        wants_content = True
        heard: ClassVar[list[Any]] = []

        def on_run_start(self, run_id: str, messages: Any, system_prompt: str) -> None:
            self.heard.append(messages)

        def on_llm_start(self, run_id: str, messages: Any, model: str, system_prompt: str) -> None:
            self.heard.append(messages)

        def on_iteration_end(self, run_id: str, iteration: int, response: Any) -> None:
            self.heard.append(response)

    def work() -> LlmHandle:
        with meter.run("r", messages=["Do it"]) as run, run.step() as step:
            with step.llm("gpt-4o", messages=["Hello"]) as call:
                call.finish(USAGE)
            step.result("done")
        return call

    assert (work().call.content, meter.history()[0].tags) == (None, {})
    meter.observe(Curious())
    work()

    assert Curious.heard == [["Do it"], ["Hello"], "done"]


def test_what_a_tool_yields_is_told_to_observers_that_want_it(meter: Meter) -> None:
    class Chunks(AgentObserver):
        def __init__(self, wants_content: bool) -> None:
            self.wants_content = wants_content
            self.heard: list[Any] = []

        def on_tool_chunk(self, run_id: str, call_id: str, tool_name: str, chunk: Any) -> None:
            self.heard.append((tool_name, chunk))

    @meter.tool
    def stream() -> Iterator[str]:
        yield "a"
        yield "b"

    plain, curious = Chunks(False), Chunks(True)
    meter.observe(plain)
    meter.observe(curious)
    list(stream())

    assert plain.heard == [("stream", None), ("stream", None)]
    assert curious.heard == [("stream", "a"), ("stream", "b")]


# ------------------------------------------------------------------------------------------------------ tools


def test_a_tool_has_parameters_chunks_and_a_cost(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.tool("search", {"q": "x"}, call_id="c1") as tool:
        tool.chunk()
        tool.chunk(2)
        tool.cost("0.005")

    (record,) = watching.tool_records
    assert (record.name, record.params, record.call_id, record.success) == ("search", {"q": "x"}, "c1", True)
    assert (record.chunk_count, record.cost_pico) == (3, 5 * 10**9)
    metrics = meter.analytics.get_metrics("search")
    assert (metrics.total_chunks, metrics.streaming_calls, metrics.total_cost) == (3, 1, Decimal("0.005"))


def test_a_tool_may_fail_without_raising(meter: Meter, watching: RecordingPlugin) -> None:
    with meter.tool("search") as tool:
        tool.fail("not_found")

    assert [(record.status, record.error_type) for record in watching.tool_records] == [("error", "not_found")]
    assert meter.analytics.get_metrics("search").failed_calls == 1


# ------------------------------------------------------------------------------------------------- decorators


def test_a_function_becomes_a_tool(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def search(query: str, limit: int = 5, *rest: int, **options: int) -> list[str]:
        """Finds things."""
        return [query] * limit

    assert search("x", 2, 7, deep=1) == ["x", "x"]
    assert (search.__name__, search.__doc__) == ("search", "Finds things.")
    assert list(inspect.signature(search).parameters) == ["query", "limit", "rest", "options"]
    (record,) = watching.tool_records
    assert (record.name, record.success) == ("search", True)
    assert record.params == {"query": "x", "limit": 2, "rest": (7,), "options": {"deep": 1}}


def test_a_tool_may_have_another_name_and_an_attribution(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool("web search", agent="researcher", team="x")
    def search(query: str) -> str:
        return query

    assert (search("a"), search(query="b")) == ("a", "b")
    assert [(record.name, record.agent, record.tags["team"]) for record in watching.tool_records] == [
        ("web search", "researcher", "x")
    ] * 2


def test_a_methods_object_is_no_parameter(meter: Meter, watching: RecordingPlugin) -> None:
    class Tools:
        @meter.tool
        def search(self, query: str) -> str:
            return query

        @classmethod
        @meter.tool
        def make(cls, size: int) -> int:
            return size

    assert (Tools().search("x"), Tools.make(3)) == ("x", 3)
    assert [record.params for record in watching.tool_records] == [{"query": "x"}, {"size": 3}]


def test_a_function_that_raises_is_an_error_and_raises(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def search(query: str) -> str:
        raise LookupError(query)

    with pytest.raises(LookupError, match="x"):
        search("x")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        search()

    assert [(record.status, record.error_type) for record in watching.tool_records] == [
        ("error", "LookupError"),
        ("error", "TypeError"),
    ]


@pytest.mark.parametrize(
    "function", [max, functools.partial(max, 3), str.upper, dict, type("C", (), {"__call__": max})]
)
def test_anything_that_can_be_called_can_be_a_tool(function: Any, meter: Meter) -> None:
    assert callable(meter.tool(function))


def test_a_function_without_a_signature_is_metered(meter: Meter, watching: RecordingPlugin) -> None:
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(max)

    assert meter.tool(max)(1, 2) == 2
    assert [(record.name, record.success) for record in watching.tool_records] == [("max", True)]


async def test_an_async_function_becomes_a_tool(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    async def search(query: str) -> str:
        await asyncio.sleep(0.01)
        with meter.llm("gpt-4o") as call:
            call.finish(USAGE)
        return query

    assert inspect.iscoroutinefunction(search)
    assert await asyncio.gather(search("a"), search("b")) == ["a", "b"]
    assert [record.params["query"] for record in watching.tool_records] == ["a", "b"]
    assert all(record.duration >= 0.01 for record in watching.tool_records)
    assert [record.parent_id for record in watching.usage_records] == [record.id for record in watching.tool_records]


async def test_a_cancelled_tool_is_cancelled(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    async def forever() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(record.status, record.error_type) for record in watching.tool_records] == [("cancelled", "CancelledError")]


def test_a_generator_is_open_from_its_first_item_to_its_last(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def stream(count: int) -> Iterator[int]:
        yield from range(count)

    items = stream(3)
    assert watching.calls == []
    first = next(items)
    assert (first, len(watching.calls), watching.records) == (0, 1, [])

    assert list(items) == [1, 2]
    (record,) = watching.tool_records
    assert (record.chunk_count, record.success, record.params) == (3, True, {"count": 3})
    assert meter.analytics.get_metrics("stream").streaming_calls == 1


def test_a_metered_generator_behaves_as_it_did(meter: Meter) -> None:
    """`send`, `throw`, `close` and the value that it returns."""

    def talk() -> Any:
        heard = []
        try:
            while len(heard) < 3:
                try:
                    heard.append((yield len(heard)))
                except KeyError:
                    heard.append("thrown")
        finally:
            closed.append(True)
        return heard

    def play(items: Any) -> tuple[Any, ...]:
        said = [next(items), items.send("a"), items.throw(KeyError())]
        with pytest.raises(StopIteration) as end:
            items.send("b")
        return (said, end.value.value)

    closed: list[bool] = []
    assert play(meter.tool(talk)()) == play(talk()) == ([0, 1, 2], ["a", "thrown", "b"])
    assert len(closed) == 2

    half = meter.tool(talk)()
    next(half)
    half.close()
    assert len(closed) == 3


def test_a_generator_that_is_dropped_is_cancelled(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    next(stream())
    gc.collect()

    assert [(record.status, record.chunk_count) for record in watching.tool_records] == [("cancelled", 1)]
    assert meter.health()["open_calls"] == 0


def test_a_generator_that_raises_is_an_error(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def stream() -> Iterator[int]:
        yield 1
        raise OSError

    with pytest.raises(OSError):
        list(stream())
    assert [(record.status, record.chunk_count) for record in watching.tool_records] == [("error", 1)]


def test_what_a_consumer_does_between_two_items_is_not_the_tools(meter: Meter, watching: RecordingPlugin) -> None:
    @meter.tool
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    with meter.run("r") as run:
        for _ in stream():
            with meter.llm("gpt-4o") as call:
                call.finish(USAGE)

    assert {record.parent_id for record in watching.usage_records} == {run.id}


async def test_an_async_generator_is_a_tool_too(meter: Meter, watching: RecordingPlugin) -> None:
    cleaned = []

    @meter.tool
    async def stream(count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                heard = yield number
                if heard:
                    yield heard
        finally:
            cleaned.append(count)

    assert [item async for item in stream(3)] == [0, 1, 2]
    async with contextlib.aclosing(stream(9)) as items:
        assert await anext(items) == 0
        assert await items.asend("heard") == "heard"

    assert cleaned == [3, 9]
    assert [(record.status, record.chunk_count) for record in watching.tool_records] == [("ok", 3), ("cancelled", 2)]


# -------------------------------------------------------------------------------------- threads, tasks, contexts


def test_threads_with_a_copied_context_belong_to_the_run(meter: Meter, watching: RecordingPlugin) -> None:
    def work(number: int) -> None:
        with meter.tool(f"t{number}"), meter.llm("gpt-4o") as call:
            call.finish(USAGE)

    with meter.run("r", user="u") as run, ThreadPoolExecutor(4) as pool:
        contexts = [contextvars.copy_context() for _ in range(8)]
        list(pool.map(lambda pair: pair[1].run(work, pair[0]), enumerate(contexts)))
        list(pool.map(work, range(8, 10)))

    inside, outside = watching.tool_records[:8], watching.tool_records[8:]
    assert {(record.parent_id, record.user) for record in inside} == {(run.id, "u")}
    assert {(record.parent_id, record.user) for record in outside} == {(None, "")}
    assert run.usage.requests == 8
    assert meter.usage.requests == 10


def test_handles_carry_their_parent_into_any_thread(meter: Meter) -> None:
    def work() -> None:
        with run.step() as step, step.llm("gpt-4o") as call:
            call.finish(USAGE)

    with meter.run("r", agent="a") as run:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert run.usage.requests == 8
    assert meter.usage_by("agent")["a"].requests == 8
    assert sorted(meter.usage_by("step")) == [f"step {number}" for number in range(1, 9)]


async def test_tasks_keep_their_runs_apart(meter: Meter, watching: RecordingPlugin) -> None:
    async def agent(name: str) -> None:
        with meter.run(name, agent=name) as run:
            await asyncio.sleep(0)
            with run.step():
                await asyncio.sleep(0)
                with meter.llm("gpt-4o") as call:
                    await asyncio.sleep(0)
                    call.finish(USAGE)

    with meter.run("outer") as outer:
        await asyncio.gather(*(agent(f"a{number}") for number in range(20)))

    assert {name: usage.requests for name, usage in meter.usage_by("agent").items()} == {
        f"a{number}": 1 for number in range(20)
    }
    assert all(record.parent_id == outer.id for record in watching.run_records if record.kind == "run" and record.agent)
    assert outer.usage.requests == 20


def test_a_run_in_a_generator_leaves_the_consumers_blocks_alone(meter: Meter, watching: RecordingPlugin) -> None:
    """Two generators that interleave do not end in the order in which they began."""

    def agent(name: str) -> Iterator[None]:
        with meter.run(name):
            yield

    with meter.run("outer") as outer:
        first, second = agent("first"), agent("second")
        next(first)
        next(second)
        list(first)
        with meter.llm("gpt-4o") as call:
            call.finish(USAGE)
        list(second)
        with meter.llm("gpt-4o") as last:
            last.finish(USAGE)
    with meter.llm("gpt-4o") as after:
        after.finish(USAGE)

    assert last.record.parent_id == outer.id
    assert after.record.parent_id is None
    assert outer.usage.requests == 2
    assert meter.health()["open_calls"] == 0


def test_two_meters_do_not_adopt_each_others_calls() -> None:
    one, other = Meter(), Meter()
    with one.run("mine") as mine, other.llm("gpt-4o") as call:
        call.finish(USAGE)

    assert (call.record.run_id, mine.usage.requests, one.usage.requests) == (None, 0, 0)


# ----------------------------------------------------------------------------------------------------- pages


def test_the_how_to_page_runs() -> None:
    assert run_examples("how-to/meter-your-own-loop.md")["meter"].usage.requests > 0
