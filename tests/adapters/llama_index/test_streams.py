"""Streams: read to their end, left early, never read, failed, handed on."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from tests.adapters.llama_index.models import Completing, raw
from tests.adapters.llama_index.test_calls import QUESTION

from agent_meter import Meter
from agent_meter.adapters.llama_index import MeterHandler

ENDS = ["stream_complete", "stream_chat"]


def _stream(way: str) -> Any:
    llm = Completing(asked=[])
    return llm.stream_complete("Is it?") if way == "stream_complete" else llm.stream_chat(QUESTION)


@pytest.mark.parametrize("way", ENDS)
def test_a_stream_that_is_closed_early_is_cancelled_and_estimated(way: str, meter: Meter) -> None:
    stream = _stream(way)
    next(stream)

    stream.close()

    (record,) = meter.history()
    assert (record.status, record.estimated, record.streamed) == ("cancelled", True, True)
    assert "output_tokens" in record.missing
    assert record.output_tokens > 0


@pytest.mark.parametrize("way", ENDS)
def test_a_stream_that_is_dropped_is_closed_at_once(way: str, meter: Meter) -> None:
    stream = _stream(way)
    next(stream)

    del stream

    assert [record.status for record in meter.history()] == ["cancelled"]


@pytest.mark.parametrize("way", ENDS)
def test_a_stream_that_nobody_reads_is_abandoned(way: str, meter: Meter) -> None:
    stream = _stream(way)
    assert meter.health()["open_calls"] == 1

    del stream

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated) == ("abandoned", None, True)


def test_a_stream_that_only_the_collector_finds_is_closed_with_the_next_event(meter: Meter) -> None:
    cycle: list[Any] = [_stream("stream_complete")]
    cycle.append(cycle)
    next(cycle[0])

    del cycle
    gc.collect()
    Completing(asked=[]).complete("Is it?")

    assert [record.status for record in meter.history()] == ["cancelled", "ok"]


def test_a_stream_that_never_ends_expires(meter: Meter) -> None:
    stream = _stream("stream_complete")
    next(stream)

    meter.expire(older_than=0)

    assert [record.status for record in meter.history()] == ["abandoned"]
    list(stream)
    assert [record.status for record in meter.history()][-1] == "ok"
    assert meter.usage.input_tokens == 12


def test_a_stream_outlives_the_block_in_which_it_was_asked_for(meter: Meter) -> None:
    with meter.run("answering") as run:
        stream = _stream("stream_chat")

    list(stream)

    (record,) = meter.history()
    assert (record.status, record.run_id, record.input_tokens) == ("ok", run.id, 12)


def test_a_stream_that_runs_when_the_handler_goes_ends_as_it_began() -> None:
    meter = Meter()
    with MeterHandler(meter):
        stream = _stream("stream_complete")
        next(stream)

    Completing(asked=[]).complete("Is it?")
    list(stream)

    assert [(record.status, record.input_tokens) for record in meter.history()] == [("ok", 12)]


async def test_a_task_that_is_cancelled_cancels_its_stream(meter: Meter) -> None:
    async def read() -> None:
        async for _ in await Completing(asked=[]).astream_complete("Is it?"):
            await asyncio.sleep(10)

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task  # its exception holds the frame that holds the stream
    gc.collect()
    await asyncio.sleep(0.01)

    assert [record.status for record in meter.history()] == ["cancelled"]


class Failing(Completing):
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def gen() -> Any:
            yield CompletionResponse(text="y", delta="y", raw={"choices": [{"delta": {}}]})
            raise ConnectionResetError("gone")

        return gen()


def test_a_stream_that_fails_is_an_error_with_what_was_said_until_then(meter: Meter) -> None:
    with pytest.raises(ConnectionResetError):
        list(Failing(asked=[]).stream_complete("Is it?"))

    (record,) = meter.history()
    assert (record.status, record.error_type, record.estimated) == ("error", "ConnectionResetError", True)


class Repeating(Completing):
    """A server that says the total so far with every chunk."""

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def gen() -> Any:
            for count in range(1, 4):
                end = {"choices": [{"delta": {}, "finish_reason": "stop" if count == 3 else None}]}
                yield CompletionResponse(text="yes"[:count], delta="x", raw={**raw(12, count), **end})

        return gen()


def test_usage_on_every_chunk_is_a_running_total(meter: Meter) -> None:
    list(Repeating(asked=[]).stream_complete("Is it?"))

    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens, record.estimated) == (12, 3, False)


def test_what_was_seen_of_a_running_total_is_a_lower_bound(meter: Meter) -> None:
    stream = Repeating(asked=[]).stream_complete("Is it?")
    next(stream)
    stream.close()

    (record,) = meter.history()
    assert record.missing == ("output_tokens",)
    assert (record.input_tokens, record.output_tokens >= 1) == (12, True)
