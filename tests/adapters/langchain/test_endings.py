"""Calls that end badly, halfway, or not at all: each becomes one record that says what is known."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from tests.adapters.langchain.clients import Scripted, anthropic, openai
from tests.adapters.langchain.clients import usage as _usage

from agent_meter import Kind, Meter, Status
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import Cut, ErrorReply, LoopbackProvider, RecordingPlugin, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
BOTH = ("input_tokens", "output_tokens")
FULL = Reply("one two three four five six", input_tokens=1000, output_tokens=100)
SLOW = Reply("one two three four five six", input_tokens=1000, output_tokens=100, delay=5)
TRICKLE = Reply("one two three four five six", input_tokens=1000, output_tokens=100, chunk_delay=0.05)
HELLO = {"messages": [("user", "hello")]}


# ---------------------------------------------------------------------------------------------- cancellation


async def test_a_cancelled_call_in_a_chain_is_given_up_with_it(loopback: Loopback, meter: Meter, config: Any) -> None:
    """LangChain tells of its start only."""
    chain = RunnableLambda(lambda question: question) | openai(loopback([SLOW]))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(chain.ainvoke("hello", config), 0.2)

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated) == (Status.ABANDONED, None, True)
    assert record.cost_usd is None


async def _cancelled(way: str, model: Any, config: Any) -> None:
    """Asks, and does not wait for the answer. No exception, and with it no frame, outlives this."""
    try:
        if way == "wait_for":
            await asyncio.wait_for(model.ainvoke("hello", config), 0.2)
        elif way == "timeout":
            async with asyncio.timeout(0.2):
                await model.ainvoke("hello", config)
        else:
            task = asyncio.create_task(model.ainvoke("hello", config))
            await asyncio.sleep(0.2)
            task.cancel()
            await task
    except (TimeoutError, asyncio.CancelledError):
        return
    raise AssertionError("it was answered")


@pytest.mark.parametrize("way", ["wait_for", "timeout", "cancel"])
async def test_a_cancelled_call_on_its_own_is_given_up_when_its_run_id_is_collected(
    way: str, loopback: Loopback, meter: Meter, config: Any
) -> None:
    await _cancelled(way, openai(loopback([SLOW])), config)
    await asyncio.sleep(0.05)  # the client closes its connection
    gc.collect()
    await asyncio.sleep(0)

    (record,) = meter.history()
    assert (record.status, record.error_type, record.estimated) == (Status.ABANDONED, "abandoned", True)
    assert record.notes == ("it was sent, and its end was not seen",)


class Refusing(BaseRateLimiter):
    def acquire(self, *, blocking: bool = True) -> bool:
        raise RuntimeError("no more today")

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


def test_in_synchronous_code_the_next_event_closes_what_was_lost(loopback: Loopback, meter: Meter, config: Any) -> None:
    """A limiter that raises in a stream leaves a start without an end."""
    model = openai(loopback([FULL]))

    with pytest.raises(RuntimeError):
        list(model.model_copy(update={"rate_limiter": Refusing()}).stream("hello", config))
    gc.collect()
    model.invoke("hello", config)

    assert [record.status for record in meter.history()] == [Status.ABANDONED, Status.OK]


async def test_a_cancelled_stream_is_an_estimate_of_what_came(loopback: Loopback, meter: Meter, config: Any) -> None:
    got: list[Any] = []

    async def read() -> None:
        async for chunk in openai(loopback([TRICKLE])).astream("hello", config):
            got.append(chunk)

    task = asyncio.create_task(read())
    while len(got) < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (record,) = meter.history()
    assert (record.status, record.streamed, record.estimated, record.missing) == (Status.CANCELLED, True, True, BOTH)
    assert 1 <= record.output_tokens <= 8


async def test_a_cancelled_tool_is_given_up_with_its_graph(loopback: Loopback, meter: Meter, config: Any) -> None:
    seen = RecordingPlugin()
    meter.register(seen)
    provider = loopback([Reply(tool_calls=[ToolCall("wait")])])

    @tool
    async def wait() -> str:
        """Wait."""
        await asyncio.sleep(30)
        return "waited"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(create_agent(openai(provider), [wait]).ainvoke(HELLO, config), 2)

    (record,) = seen.tool_records
    assert (record.name, record.status) == ("wait", Status.ABANDONED)
    assert [run.status for run in seen.run_records if run.kind is Kind.RUN] == [Status.CANCELLED]


# ----------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_that_its_reader_leaves_is_an_estimate_of_what_came(
    client: Any, asynchronous: bool, loopback: Loopback, meter: Meter, config: Any
) -> None:
    model = client(loopback([FULL]))

    if asynchronous:
        stream: Any = model.astream("hello, how are you?", config)
        async for chunk in stream:
            if chunk.text:
                break
        await stream.aclose()
    else:
        for chunk in model.stream("hello, how are you?", config):
            if chunk.text:
                break
        gc.collect()

    (record,) = meter.history()
    assert (record.status, record.error_type, record.streamed) == (Status.CANCELLED, "GeneratorExit", True)
    assert (record.estimated, record.missing) == (True, BOTH)
    assert record.notes == ("the answer was cut off; tokens are estimated",)
    assert 5 <= record.input_tokens <= 20
    assert 1 <= record.output_tokens <= 4


async def _failure(model: Any, asynchronous: bool, config: Any) -> str:
    """The name of what a stream raises: each client has its own."""
    try:
        if asynchronous:
            [chunk async for chunk in model.astream("hello", config)]
        else:
            list(model.stream("hello", config))
    except Exception as error:
        return type(error).__name__
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [None, ErrorReply(500)], ids=["hang up", "error event"])
async def test_a_stream_that_the_server_cuts_is_an_estimate_of_what_came(
    client: Any, asynchronous: bool, error: Any, loopback: Loopback, meter: Meter, config: Any
) -> None:
    model = client(loopback([Cut(after_chunks=3, reply=FULL, error=error)]))

    error_type = await _failure(model, asynchronous, config)

    (record,) = meter.history()
    assert (record.status, record.error_type) == (Status.ERROR, error_type)
    assert (record.estimated, record.missing) == (True, BOTH)
    assert 2 <= record.output_tokens <= 8


def test_an_answer_that_breaks_off_may_have_been_paid_for(loopback: Loopback, meter: Meter, config: Any) -> None:
    """Not streamed, so that nothing of it can be seen."""
    with pytest.raises(Exception, match="onnection"):
        openai(loopback([Cut(reply=FULL)])).invoke("hello", config)

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated, record.cost_usd) == (Status.ERROR, None, True, None)
    assert "was not seen" in record.notes[0]


def test_usage_that_came_before_the_end_is_a_lower_bound(meter: Meter) -> None:
    """As servers with running totals send it; what was counted by the provider is never lowered."""
    chunks = [_usage(500, 90), _usage(500, 91), _usage(500, 92)]
    stream: Any = Scripted(chunks=chunks).stream("hello", {"callbacks": [MeterCallback(meter)]})

    next(stream)
    next(stream)
    stream.close()

    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens) == (500, 91)
    assert (record.estimated, record.missing) == (True, ("output_tokens",))


def test_a_stream_without_usage_is_estimated_and_warned_about_once_for_each_model(
    loopback: Loopback, meter: Meter, config: Any, caplog: Any
) -> None:
    provider = loopback([FULL], loop=True)
    first, second = openai(provider, stream_usage=False), openai(provider, stream_usage=False, model="gpt-4o-mini")

    with caplog.at_level(logging.WARNING, "agent_meter"):
        for model in (first, first, second):
            list(model.stream("a question of some length, in English", config))

    for record in meter.history():
        assert (record.status, record.estimated, record.missing) == (Status.OK, True, BOTH)
        assert record.notes == ("the answer carried no usage; tokens are estimated",)
        assert 10 <= record.input_tokens <= 25
        assert 4 <= record.output_tokens <= 9
        assert record.cost_usd is not None
    warnings = [entry.getMessage() for entry in caplog.records]
    assert len(warnings) == 2
    assert "openai/gpt-4o streams" in warnings[0]
    assert "openai/gpt-4o-mini streams" in warnings[1]
    assert all("stream_usage=True" in warning for warning in warnings)


def test_the_estimate_of_a_prompt_knows_its_tools(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback(["x"], loop=True)

    @tool
    def search(query: str, limit: int = 10) -> str:
        """Search the library for books, journals and newspapers."""
        return query

    model = openai(provider, stream_usage=False)
    list(model.stream("hello", config))
    list(model.bind_tools([search]).stream("hello", config))

    plain, with_tools = meter.history()
    assert 30 <= with_tools.input_tokens - plain.input_tokens <= 80


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_whose_stream_is_left_is_closed_with_all_that_is_in_it(
    asynchronous: bool, loopback: Loopback, meter: Meter, config: Any
) -> None:
    seen = RecordingPlugin()
    meter.register(seen)
    agent = create_agent(openai(loopback([FULL])), [], name="boss")

    if asynchronous:
        stream: Any = agent.astream(HELLO, config, stream_mode="messages")
        await anext(stream)
        await stream.aclose()
    else:
        stream = agent.stream(HELLO, config, stream_mode="messages")
        next(stream)
        stream.close()
    gc.collect()
    await asyncio.sleep(0.05)

    (record,) = meter.history()
    assert (record.agent, record.streamed) == ("boss", True)
    assert [run.name for run in seen.run_records if run.kind is Kind.RUN] == ["boss"]
