"""Streams of own loops: handed on as they come, and recorded once, however they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import pytest

from agent_meter import Meter, Status
from agent_meter.testing import FakeClock, LoopbackProvider, RecordingPlugin, Reply


def chat(*words: str, usage: bool = True, end: bool = True) -> list[dict[str, Any]]:
    """OpenAI's chunks: one that says who answers, the words, the end, the usage."""
    chunks: list[dict[str, Any]] = [{"id": "c1", "model": "gpt-4o", "choices": [{"delta": {"role": "assistant"}}]}]
    chunks += [{"id": "c1", "model": "gpt-4o", "choices": [{"delta": {"content": word}}]} for word in words]
    if end:
        chunks.append({"id": "c1", "model": "gpt-4o", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    if usage:
        chunks.append({"id": "c1", "choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 15}})
    return chunks


CLAUDE: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "m1", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 30}}},
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
]


class Sdk:
    """An SDK's stream: an iterator that can be closed, entered, and asked for its response."""

    response = "the HTTP response"

    def __init__(
        self, chunks: list[Any], tick: Callable[[], Any] = lambda: None, fail: Exception | None = None
    ) -> None:
        self.chunks, self.tick, self.fail = chunks, tick, fail
        self.closed = self.entered = 0

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks:
            self.tick()
            yield chunk
        if self.fail is not None:
            raise self.fail

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSdk(Sdk):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._items = super().__iter__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None

    async def close(self) -> None:  # type: ignore[override]
        self.closed += 1

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


AsyncSdk.__iter__ = None  # type: ignore[assignment, method-assign]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watching() -> RecordingPlugin:
    return RecordingPlugin()


@pytest.fixture
def meter(clock: FakeClock, watching: RecordingPlugin) -> Meter:
    return Meter([watching], clock=clock, strict=True)


def test_the_chunks_come_as_they_are_and_the_end_is_the_answer(meter: Meter, clock: FakeClock) -> None:
    chunks = chat("Hel", "lo")
    with meter.llm("gpt-4o", provider="openai") as call:
        read = list(call.stream(Sdk(chunks, lambda: clock.advance(0.5))))

    assert all(mine is theirs for mine, theirs in zip(read, chunks, strict=True))
    (record,) = meter.history()
    assert (record.status, record.total_tokens, record.response_id, record.streamed) == ("ok", 45, "c1", True)
    assert (record.time_to_first_token, record.duration, record.estimated) == (1.0, 2.5, False)


def test_the_first_token_is_the_first_chunk_with_a_token_in_it(meter: Meter, clock: FakeClock) -> None:
    with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        list(call.stream(Sdk(CLAUDE, lambda: clock.advance(1))))

    (record,) = meter.history()
    assert (record.time_to_first_token, record.input_tokens, record.output_tokens) == (3.0, 30, 15)


def test_a_stream_of_tool_calls_speaks_and_asks_for_its_tools(meter: Meter, clock: FakeClock) -> None:
    calls = [{"index": 0, "id": "t1", "function": {"name": "search", "arguments": "{}"}}]
    chunks = chat()
    chunks.insert(1, {"choices": [{"delta": {"tool_calls": calls}}]})
    with meter.llm("gpt-4o") as call:
        list(call.stream(Sdk(chunks, lambda: clock.advance(1))))

    (record,) = meter.history()
    assert (record.tools, record.time_to_first_token) == (("search",), 2.0)


def test_a_stream_that_is_left_early_is_cancelled_with_what_was_seen(meter: Meter) -> None:
    with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        for event in call.stream(Sdk(CLAUDE)):
            if event["type"] == "content_block_delta":
                break

    (record,) = meter.history()
    assert (record.status, record.input_tokens, record.estimated) == (Status.CANCELLED, 30, True)
    assert record.missing == ("output_tokens",)
    assert meter.health()["open_calls"] == 0


def test_a_stream_that_is_left_early_and_never_told_its_usage_is_unpriced(meter: Meter) -> None:
    with meter.llm("gpt-4o") as call:
        next(call.stream(Sdk(chat("Hello"))))

    (record,) = meter.history()
    assert (record.status, record.cost_usd, record.estimated) == ("cancelled", None, True)


def test_who_leaves_after_the_last_word_has_left_nothing(meter: Meter) -> None:
    with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        for event in call.stream(Sdk(CLAUDE)):
            if event["type"] == "message_stop":
                break

    assert [(record.status, record.total_tokens) for record in meter.history()] == [("ok", 45)]


def test_a_stream_that_breaks_is_an_error_with_what_was_seen_and_raises(meter: Meter) -> None:
    error = ConnectionError("reset")
    with pytest.raises(ConnectionError) as raised, meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        list(call.stream(Sdk(CLAUDE[:3], fail=error)))

    assert raised.value is error
    (record,) = meter.history()
    assert (record.status, record.error_type, record.input_tokens) == ("error", "ConnectionError", 30)
    assert record.estimated


def test_a_stream_that_never_began_has_used_nothing(meter: Meter) -> None:
    with pytest.raises(ConnectionError), meter.llm("gpt-4o") as call:
        list(call.stream(Sdk([], fail=ConnectionError())))

    (record,) = meter.history()
    assert (record.status, record.usage, record.billed_cost_usd, record.estimated) == ("error", None, 0, False)


def test_an_exception_of_the_consumer_is_the_calls(meter: Meter) -> None:
    with contextlib.suppress(KeyError), meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        for _ in call.stream(Sdk(CLAUDE)):
            raise KeyError

    assert [(record.status, record.error_type, record.input_tokens) for record in meter.history()] == [
        ("error", "KeyError", 30)
    ]


def test_a_stream_does_what_it_did_before(meter: Meter) -> None:
    sdk = Sdk(chat("Hello"))
    with meter.llm("gpt-4o") as call, call.stream(sdk) as stream:
        assert stream.response == "the HTTP response"
        next(stream)
        stream.close()
        assert call.record is not None
        with pytest.raises(AttributeError):
            _ = stream.nothing

    assert (sdk.entered, sdk.closed) == (1, 2)
    assert len(meter.history()) == 1


def test_a_generator_hands_on_a_stream_and_its_consumer_may_leave(meter: Meter) -> None:
    def answer() -> Iterator[Any]:
        with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
            yield from call.stream(Sdk(CLAUDE))

    assert len(list(answer())) == 5
    half = answer()
    next(half)
    half.close()

    assert [record.status for record in meter.history()] == ["ok", "cancelled"]


def test_a_stream_without_a_block_outlives_the_run_that_made_it(meter: Meter) -> None:
    with meter.run("r") as run:
        stream = run.llm("gpt-4o").stream(Sdk(chat("Hello")))
    assert meter.history() == []
    list(stream)

    (record,) = meter.history()
    assert (record.status, record.total_tokens, record.run_id, record.corrects) == ("ok", 45, run.id, None)


def test_a_stream_that_is_dropped_is_cancelled(meter: Meter) -> None:
    stream = meter.llm("claude-sonnet-4-5", provider="anthropic").stream(Sdk(CLAUDE))
    next(stream)
    del stream
    gc.collect()

    assert [(record.status, record.input_tokens) for record in meter.history()] == [("cancelled", 30)]
    assert meter.health()["open_calls"] == 0


def test_an_error_in_the_stream_is_the_providers(meter: Meter) -> None:
    chunks = [*chat("Hel", usage=False, end=False), {"error": {"type": "server_error", "message": "oops"}}]
    with meter.llm("gpt-4o") as call:
        list(call.stream(Sdk(chunks)))

    assert [(record.status, record.error_type) for record in meter.history()] == [("error", "server_error")]


# -------------------------------------------------------------------------------------------------- async


async def test_an_async_stream_is_one_too(meter: Meter, clock: FakeClock) -> None:
    sdk = AsyncSdk(chat("Hel", "lo"), lambda: clock.advance(0.5))
    async with meter.llm("gpt-4o", provider="openai") as call, call.stream(sdk) as stream:
        read = [chunk async for chunk in stream]

    (record,) = meter.history()
    assert (len(read), record.status, record.total_tokens, record.time_to_first_token) == (5, "ok", 45, 1.0)
    assert (sdk.entered, sdk.closed) == (1, 1)


async def test_an_async_stream_that_is_closed_is_cancelled(meter: Meter) -> None:
    sdk = AsyncSdk(CLAUDE)
    async with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
        stream = call.stream(sdk)
        await anext(stream)
        await stream.aclose()

    assert [(record.status, record.input_tokens) for record in meter.history()] == [("cancelled", 30)]
    assert sdk.closed == 1


async def test_a_task_that_is_cancelled_in_a_stream_is_cancelled(meter: Meter) -> None:
    async def forever() -> AsyncIterator[Any]:
        for event in CLAUDE[:3]:
            yield event
        await asyncio.sleep(60)

    async def read() -> None:
        async with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
            async for _ in call.stream(forever()):
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [(record.status, record.error_type, record.input_tokens) for record in meter.history()] == [
        ("cancelled", "CancelledError", 30)
    ]


async def test_an_async_stream_that_breaks_is_an_error(meter: Meter) -> None:
    async def read() -> None:
        async with meter.llm("claude-sonnet-4-5", provider="anthropic") as call:
            async for _ in call.stream(AsyncSdk(CLAUDE[:1], fail=ConnectionError())):
                pass

    with pytest.raises(ConnectionError):
        await read()

    assert [(record.status, record.input_tokens) for record in meter.history()] == [("error", 30)]


# ------------------------------------------------------------------------------------------- the real clients


def test_the_real_clients_streams_are_exact(loopback: Callable[..., LoopbackProvider]) -> None:
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    reply = Reply("Hello there, you.", input_tokens=120, output_tokens=17, cache_read_tokens=64)
    provider = loopback([reply], loop=True)
    chat_client = openai.OpenAI(base_url=provider.openai_base_url, api_key="none")
    claude = anthropic.Anthropic(base_url=provider.anthropic_base_url, api_key="none")
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    meter = Meter(strict=True)

    with meter.llm("gpt-4o", provider="openai") as call:
        options = {"include_usage": True}
        for _ in call.stream(chat_client.chat.completions.create(model="gpt-4o", stream_options=options, **ask)):
            pass
    with meter.llm("claude-sonnet-4-6", provider="anthropic") as call:
        with call.stream(claude.messages.create(model="claude-sonnet-4-6", max_tokens=99, **ask)) as events:
            for _ in events:
                pass

    assert [(r.status, r.input_tokens, r.output_tokens, r.cache_read_tokens) for r in meter.history()] == [
        ("ok", 120, 17, 64)
    ] * 2
    assert all(record.time_to_first_token is not None for record in meter.history())
    assert meter.usage.total_tokens == provider.total.total_tokens
