"""Every dialect, as JSON and as a stream, read by the clients that people use."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest
from tests.testing.readers import READERS, Read

from agent_meter import TokenUsage
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

FULL = Reply(
    "Forty-two, as far as anybody knows.",
    input_tokens=1200,
    output_tokens=300,
    cache_read_tokens=700,
    cache_write_tokens=200,
    cache_write_1h_tokens=50,
    reasoning_tokens=120,
    thinking="The question is known.",
    model="the-model-2026-01-01",
)
CALLS = (ToolCall("search", {"q": "naïve “x”", "depth": {"n": [1, 2]}}), ToolCall("now", {}))


async def _read(name: str, provider: LoopbackProvider) -> Read:
    read: Any = READERS[name](provider)
    result: Read = await read if inspect.isawaitable(read) else read
    return result


def _seen(name: str, reply: Reply) -> TokenUsage:
    """What this client can see of it: OpenAI's dialects do not say how long a cache write lives, and
    langchain-anthropic drops it from streams (only the first event has it)."""
    usage = reply.usage(0, 0)
    if "nthropic" in name and name not in ("ChatAnthropic-stream", "ChatAnthropic-astream"):
        return usage
    return msgspec.structs.replace(usage, cache_write_1h_tokens=0)


@pytest.mark.parametrize("name", READERS)
async def test_a_client_reads_the_usage_that_the_reply_said(name: str, loopback) -> None:
    provider = loopback([FULL])

    read = await _read(name, provider)

    assert read.usage == _seen(name, FULL)
    assert (read.text, read.model) == (FULL.text, "the-model-2026-01-01")


@pytest.mark.parametrize("name", READERS)
async def test_a_plain_reply_has_zeros_and_the_model_that_was_asked_for(name: str, loopback) -> None:
    provider = loopback([Reply("Hello", input_tokens=7, output_tokens=2)])

    read = await _read(name, provider)

    assert read.usage == TokenUsage(7, 2)
    assert read.model == ("claude-sonnet-4-6" if "nthropic" in name else "gpt-4o")


@pytest.mark.parametrize("name", READERS)
async def test_tool_calls_arrive_whole_and_in_order(name: str, loopback) -> None:
    provider = loopback([Reply(input_tokens=80, output_tokens=40, tool_calls=CALLS)])

    read = await _read(name, provider)

    assert read.tools == [(call.name, call.arguments) for call in CALLS]
    assert read.usage == TokenUsage(80, 40)


@pytest.mark.parametrize("name", READERS)
async def test_text_and_tool_calls_fit_in_one_answer(name: str, loopback) -> None:
    provider = loopback([Reply("Let me look.", input_tokens=80, output_tokens=40, tool_calls=CALLS[:1])])

    read = await _read(name, provider)

    assert (read.text, read.tools) == ("Let me look.", [("search", dict(CALLS[0].arguments))])


@pytest.mark.parametrize("name", READERS)
async def test_the_truth_is_what_was_served(name: str, loopback) -> None:
    """As far as the dialect can say it, so that it equals what a correct meter reads."""
    provider = loopback([FULL, "and more"])

    await _read(name, provider)
    await _read(name, provider)

    anthropic = "nthropic" in name
    first = FULL.usage(0, 0) if anthropic else msgspec.structs.replace(FULL.usage(0, 0), cache_write_1h_tokens=0)
    assert provider.truth == [first, TokenUsage(5, 2)]  # "What is the answer?" has 19 characters, "and more" 8
    assert provider.total == first + TokenUsage(5, 2)
    assert [request.usage for request in provider.requests] == provider.truth
    assert {request.dialect.startswith("anthropic") for request in provider.requests} == {anthropic}
    assert {request.stream for request in provider.requests} == {"stream" in name}
