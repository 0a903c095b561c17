"""Errors, cuts and silence, as the vendors' SDKs and LangChain meet them."""

from __future__ import annotations

import time
from typing import Any

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest
from tests.testing.readers import ASK_CLAUDE, MESSAGES, PROMPT, anthropic, chat_anthropic, chat_openai, openai

from agent_meter import TokenUsage
from agent_meter.testing import Cut, ErrorReply, Hang, Reply, ToolCall

ASK = {"model": "gpt-4o", "messages": MESSAGES}
LONG = Reply("ten pieces of text, and none of them is the last", chunks=10, input_tokens=50, output_tokens=12)


@pytest.mark.parametrize(
    ("status", "openai_error", "anthropic_error", "kind"),
    [
        (400, openai_sdk.BadRequestError, anthropic_sdk.BadRequestError, "invalid_request_error"),
        (401, openai_sdk.AuthenticationError, anthropic_sdk.AuthenticationError, "authentication_error"),
        (403, openai_sdk.PermissionDeniedError, anthropic_sdk.PermissionDeniedError, "permission_error"),
        (404, openai_sdk.NotFoundError, anthropic_sdk.NotFoundError, "not_found_error"),
        (429, openai_sdk.RateLimitError, anthropic_sdk.RateLimitError, "rate_limit_error"),
        (500, openai_sdk.InternalServerError, anthropic_sdk.InternalServerError, "api_error"),
        (529, openai_sdk.InternalServerError, anthropic_sdk.InternalServerError, "overloaded_error"),
    ],
)
def test_an_error_reply_surfaces_as_each_sdk_s_own_error(status, openai_error, anthropic_error, kind, loopback) -> None:
    provider = loopback([ErrorReply(status, message="not today")], loop=True)

    with pytest.raises(openai_error, match="not today"):
        openai(provider).chat.completions.create(**ASK)
    with pytest.raises(openai_error, match="not today"):
        openai(provider).responses.create(model="gpt-4o", input=PROMPT, stream=True)
    with pytest.raises(anthropic_error, match="not today") as caught:
        anthropic(provider).messages.create(**ASK_CLAUDE)

    assert caught.value.body["error"]["type"] == kind
    assert [request.status for request in provider.requests] == [status] * 3
    assert provider.truth == []


def test_langchain_surfaces_the_same_errors(loopback) -> None:
    provider = loopback([ErrorReply(429)], loop=True)

    with pytest.raises(openai_sdk.RateLimitError):
        chat_openai(provider).invoke(PROMPT)
    with pytest.raises(anthropic_sdk.RateLimitError):
        list(chat_anthropic(provider).stream(PROMPT))


def test_an_error_may_have_a_type_of_its_own(loopback) -> None:
    provider = loopback([ErrorReply(400, "context_length_exceeded", "too long")], loop=True)

    with pytest.raises(openai_sdk.BadRequestError) as caught:
        openai(provider).chat.completions.create(**ASK)
    assert caught.value.body["type"] == "context_length_exceeded"


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_retry_after_zero_is_retried_at_once_and_takes_the_next_reply(vendor: str, loopback) -> None:
    provider = loopback([ErrorReply(429, retry_after=0), ErrorReply(500, retry_after=0), Reply("at last")])

    begun = time.monotonic()
    if vendor == "openai":
        client = openai(provider).with_options(max_retries=2)
        text = client.chat.completions.create(**ASK).choices[0].message.content
    else:
        text = anthropic(provider).with_options(max_retries=2).messages.create(**ASK_CLAUDE).content[0].text

    assert text == "at last"
    assert time.monotonic() - begun < 1.0  # the SDKs' own first two waits are 1.1 seconds and more
    assert [request.status for request in provider.requests] == [429, 500, 200]
    assert len(provider.truth) == 1


def test_retry_after_is_said_in_seconds_and_milliseconds(loopback) -> None:
    provider = loopback([ErrorReply(429, retry_after=1.5)])

    with pytest.raises(openai_sdk.RateLimitError) as caught:
        openai(provider).chat.completions.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.response.headers["retry-after-ms"] == "1500"


def test_should_retry_false_stops_the_sdk_from_retrying(loopback) -> None:
    provider = loopback([ErrorReply(503, should_retry=False), "never asked for"])

    with pytest.raises(openai_sdk.InternalServerError):
        openai(provider).with_options(max_retries=3).chat.completions.create(**ASK)
    assert len(provider.requests) == 1


# -------------------------------------------------------------------------------------------------- cuts


def _pieces(name: str, provider: Any, said: list[str]) -> None:
    """Read a stream piece by piece into `said`, until it breaks."""
    if name == "openai.chat":
        for chunk in openai(provider).chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        ):
            assert chunk.usage is None
            said += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    elif name == "openai.responses":
        for event in openai(provider).responses.create(model="gpt-4o", input=PROMPT, stream=True):
            assert event.type != "response.completed"
            said += [event.delta] if event.type == "response.output_text.delta" else []
    else:
        for event in anthropic(provider).messages.create(**ASK_CLAUDE, stream=True):
            assert event.type != "message_delta"
            said += [event.delta.text] if event.type == "content_block_delta" else []


# anthropic 2.x lets the transport's own error through, where openai 3.x wraps it.
BROKEN = {
    "openai.chat": openai_sdk.APIConnectionError,
    "openai.responses": openai_sdk.APIConnectionError,
    "anthropic.messages": httpx2.RemoteProtocolError,
}
STREAMS = list(BROKEN)


@pytest.mark.parametrize("after", [0, 1, 3, 99])
@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_stream_says_so_many_pieces_and_breaks_with_the_error_of_the_sdk(name, after, loopback) -> None:
    """Never the end, however late the cut: no usage arrives, and none is counted."""
    provider = loopback([Cut(after, LONG)])
    said: list[str] = []

    with pytest.raises(BROKEN[name]):
        _pieces(name, provider, said)

    assert said == LONG.pieces[:after]
    assert provider.truth == []
    assert [(request.status, request.usage) for request in provider.requests] == [(200, None)]


def test_a_cut_reaches_langchain(loopback) -> None:
    provider = loopback([Cut(2, LONG)], loop=True)
    said: list[str] = []

    with pytest.raises(openai_sdk.APIConnectionError):
        said.extend(chunk.text for chunk in chat_openai(provider).stream(PROMPT))

    assert "".join(said) == "".join(LONG.pieces[:2])


def test_a_cut_needs_no_reply_of_its_own(loopback) -> None:
    said: list[str] = []

    with pytest.raises(openai_sdk.APIConnectionError):
        _pieces("openai.chat", loopback(Cut(after_chunks=7)), said)
    assert len(said) == 7


def test_tool_arguments_are_cut_too(loopback) -> None:
    reply = Reply(tool_calls=[ToolCall("search", {"q": "a long enough question"})], chunks=6)
    provider = loopback([Cut(2, reply)])
    chunks = openai(provider).chat.completions.create(**ASK, stream=True)
    said: list[str] = []

    with pytest.raises(openai_sdk.APIConnectionError):
        said.extend(call.function.arguments for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ())

    assert "".join(said) == '{"q":"a long enough question"}'[:10]


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_an_answer_in_one_piece_breaks_in_its_middle(vendor: str, loopback) -> None:
    provider = loopback([Cut(1, LONG)])

    if vendor == "openai":
        with pytest.raises(openai_sdk.APIConnectionError):
            openai(provider).chat.completions.create(**ASK)
    else:
        with pytest.raises(anthropic_sdk.APIConnectionError):
            anthropic(provider).messages.create(**ASK_CLAUDE)
    assert provider.truth == []


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_end_in_an_error_event(name: str, loopback) -> None:
    provider = loopback([Cut(2, LONG, error=ErrorReply(529, message="too many of you"))])
    sdk = anthropic_sdk if name.startswith("anthropic") else openai_sdk
    said: list[str] = []

    if name == "openai.responses":  # the SDK hands this one over as an event
        events = list(openai(provider).responses.create(model="gpt-4o", input=PROMPT, stream=True))
        assert (events[-1].type, events[-1].message) == ("error", "too many of you")
    else:
        with pytest.raises(sdk.APIError, match="too many of you"):
            _pieces(name, provider, said)
        assert said == LONG.pieces[:2]
    assert provider.truth == []


def test_an_error_event_is_an_error_reply_where_nothing_streams(loopback) -> None:
    provider = loopback([Cut(2, LONG, error=ErrorReply(529))])

    with pytest.raises(openai_sdk.InternalServerError):
        openai(provider).chat.completions.create(**ASK)
    assert provider.requests[0].status == 529


def test_a_negative_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more chunks, got -1"):
        Cut(-1)


# ------------------------------------------------------------------------------------------ delays, silence


def test_a_provider_that_hangs_runs_into_the_timeout_of_the_client(loopback) -> None:
    provider = loopback([Hang(30)])

    with pytest.raises(openai_sdk.APITimeoutError):
        openai(provider).with_options(timeout=0.2).chat.completions.create(**ASK)
    assert [(request.status, request.usage) for request in provider.requests] == [(None, None)]


def test_a_hang_ends_by_itself(loopback) -> None:
    provider = loopback([Hang(0.1)])

    with pytest.raises(openai_sdk.APIConnectionError) as caught:
        openai(provider).chat.completions.create(**ASK)
    assert not isinstance(caught.value, openai_sdk.APITimeoutError)


def test_a_delay_comes_before_the_first_byte_and_between_the_events(loopback) -> None:
    provider = loopback([Reply("abc", delay=0.2, chunk_delay=0.05, chunks=3)])

    begun = time.monotonic()
    times = [time.monotonic() - begun for _ in openai(provider).chat.completions.create(**ASK, stream=True)]

    assert times[0] >= 0.2
    assert times[-1] >= 0.2 + 0.05 * (len(times) - 1)
    assert provider.truth == [TokenUsage(5, 1)]
