"""The front door: any form of an answer, anybody's words, never an exception."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_meter import TokenUsage
from agent_meter.adapters import payloads
from agent_meter.adapters.payloads import Reading, read, read_errors, read_usage
from agent_meter.adapters.payloads.openai import FEES, XAI_FEES

BODY: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "service_tier": "default",
    "choices": [{"message": {"tool_calls": [{"function": {"name": "search"}}]}, "finish_reason": "tool_calls"}],
    "usage": {
        "prompt_tokens": 1420,
        "completion_tokens": 100,
        "total_tokens": 1520,
        "prompt_tokens_details": {"cached_tokens": 1280, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
    },
}
USAGE = TokenUsage(1420, 100, 1280, reasoning_tokens=64, context={"service_tier": "default"})
READING = Reading(USAGE, "gpt-4o-2024-08-06", "chatcmpl-1", ("search",))


def objects(value: Any) -> Any:
    """The same answer as objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: objects(inner) for name, inner in value.items()})
    return [objects(inner) for inner in value] if isinstance(value, list) else value


FORMS = {
    "dict": BODY,
    "dict-like": UserDict(BODY),
    "text": json.dumps(BODY),
    "bytes": json.dumps(BODY).encode(),
    "bytearray": bytearray(json.dumps(BODY).encode()),
    "blank lines first": "\n\n  \n" + json.dumps(BODY),
    "objects": objects(BODY),
    "events": [BODY],
    "server-sent events": f"event: message\r\ndata: {json.dumps(BODY)}\r\n\r\ndata: [DONE]\r\n\r\n",
    "events without blank lines": f"data: {json.dumps({'choices': []})}\ndata: {json.dumps(BODY)}\n",
    "a line each": json.dumps({"choices": []}) + "\n" + json.dumps(BODY) + "\n",
    "an object that wraps the SDK's": SimpleNamespace(raw=BODY, message="hi there"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_answer_is_read_alike(form: str) -> None:
    assert read(FORMS[form]) == READING


def test_read_usage_is_the_usage_of_the_reading() -> None:
    assert read_usage(BODY, provider="openai") == USAGE


def test_a_bare_usage_object_is_enough() -> None:
    assert read_usage(BODY["usage"]) == TokenUsage(1420, 100, 1280, reasoning_tokens=64)
    assert read_usage(objects(BODY["usage"])) == TokenUsage(1420, 100, 1280, reasoning_tokens=64)
    assert read_usage({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5}) == TokenUsage(8, 4, 5)
    assert read_usage({"inputTokens": 3, "outputTokens": 4}) == TokenUsage(3, 4)
    assert read_usage({"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 2}) == TokenUsage(
        3, 6, reasoning_tokens=2
    )


@pytest.mark.parametrize(
    "nothing", [None, "", b"", [], {}, 0, 1.5, True, "no JSON", b"\xff\xfb\x90audio", b"\0\0\0", "[1, 2]", object()]
)
def test_what_says_nothing_is_unknown_and_not_zero(nothing: Any) -> None:
    before = read_errors.count

    assert read_usage(nothing).missing == ("input_tokens", "output_tokens")
    assert read_errors.count == before


def test_an_iterator_is_not_consumed() -> None:
    stream = iter([BODY])

    read(stream)

    assert next(stream) is BODY


def test_an_absent_class_is_zero_and_an_absent_total_is_missing() -> None:
    body = {"choices": [], "usage": {"prompt_tokens": 5}}

    usage = read_usage(body)

    assert (usage.input_tokens, usage.cache_read_tokens, usage.missing) == (5, 0, ("output_tokens",))


@pytest.mark.parametrize("wrong", [True, -1, "12x", float("nan"), float("inf"), -0.5, 2**80, [], {}, "٣" * 30])
def test_what_is_no_count_is_as_if_it_were_absent(wrong: Any) -> None:
    body = {"choices": [], "usage": {"prompt_tokens": wrong, "completion_tokens": 3}}

    usage = read_usage(body)

    assert (usage.input_tokens, usage.output_tokens, usage.missing) == (0, 3, ("input_tokens",))


@pytest.mark.parametrize("fine", [12, 12.0, "12"])
def test_whole_floats_and_digits_are_counts(fine: Any) -> None:
    assert read_usage({"choices": [], "usage": {"prompt_tokens": fine, "completion_tokens": 3}}) == TokenUsage(12, 3)


def test_an_impossible_answer_is_kept_as_it_came_and_says_so() -> None:
    body = {
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15, "cached_tokens": 161},
    }

    usage = read_usage(body)

    assert (usage.input_tokens, usage.cache_read_tokens) == (7, 161)
    assert usage.problems == ("cache_read_tokens + cache_write_tokens 161 > input_tokens 7",)


def test_an_attribute_that_raises_is_absent() -> None:
    class Lazy:
        choices: Any = []

        @property
        def usage(self) -> Any:
            raise RuntimeError("not loaded")

    before = read_errors.count

    assert read_usage(Lazy()).missing == ("input_tokens", "output_tokens")
    assert read_errors.count == before


def test_a_mock_has_no_numbers() -> None:
    assert read_usage(MagicMock()).total_tokens == 0


class Hostile(UserDict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("hostile")


def test_a_reader_that_fails_is_counted_and_tells_who_listens() -> None:
    heard: list[Exception] = []
    before = read_errors.count
    read_errors.listener = heard.append
    try:
        reading = read(Hostile())
    finally:
        read_errors.listener = None

    assert reading == Reading()
    assert read_errors.count == before + 1
    assert read_errors.last is heard[0]


def test_a_listener_that_fails_harms_nobody() -> None:
    def broken(_: Exception) -> None:
        raise ValueError("no")

    read_errors.listener = broken
    try:
        assert read(Hostile()) == Reading()
    finally:
        read_errors.listener = None


def test_the_api_says_that_there_is_no_output_to_miss() -> None:
    body = {"model": "m", "usage": {"input_tokens": 7}}

    assert read_usage(body, api="acme.embeddings").missing == ()
    assert read_usage(body).missing == ("output_tokens",)


def test_the_public_names_are_these() -> None:
    assert set(payloads.__all__) == {
        "Pass", "ReadErrors", "Reading", "from_langchain", "hosted_fees", "read", "read_errors", "read_usage",
        "undouble",
    }  # fmt: skip


def test_the_reference_page_knows_every_public_name_and_every_fee() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "payloads.md").read_text(encoding="utf-8")

    fees = {*FEES.values(), *XAI_FEES.values()}
    assert [name for name in (*payloads.__all__, *sorted(fees)) if name not in page] == []


def test_importing_the_readers_imports_no_sdk_and_no_framework() -> None:
    names = "openai, anthropic, google, cohere, langchain_core, llama_index, boto3, pydantic, genai_prices, tiktoken"
    code = (
        "import sys, agent_meter.adapters.payloads\n"
        f"found = [n for n in {names.split(', ')!r} if n in sys.modules]\n"
        "sys.exit(repr(found) if found else 0)"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------------------------------------- anything

WORDS = [
    "usage", "choices", "message", "delta", "type", "object", "model", "id", "error", "code", "prompt_tokens",
    "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details", "cached_tokens",
    "reasoning_tokens", "audio_tokens", "image_tokens", "input_tokens", "output_tokens", "input_tokens_details",
    "output_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "iterations",
    "ephemeral_1h_input_tokens", "server_tool_use", "web_search_requests", "usageMetadata", "usage_metadata",
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "totalTokenCount",
    "cachedContentTokenCount", "promptTokensDetails", "modality", "tokenCount", "candidates", "content", "parts",
    "functionCall", "groundingMetadata", "webSearchQueries", "metadata", "inputTokens", "outputTokens", "totalTokens",
    "cacheReadInputTokens", "cacheWriteInputTokens", "cacheDetails", "ttl", "tokens", "billed_units", "search_units",
    "meta", "eval_count", "prompt_eval_count", "done", "results", "generated_token_count", "input_token_count",
    "chunk", "bytes", "response", "body", "result", "event_type", "interaction", "total_input_tokens", "x_groq",
    "total_output_tokens", "total_thought_tokens", "cost", "total_cost", "cost_in_usd_ticks", "is_byok", "seconds",
    "service_tier", "speed", "inference_geo", "tool_calls", "function", "name", "index", "output", "outputs", "data",
    "inputTextTokenCount", "generation", "details", "prefill", "raw", "predictions", "completions", "duration", "text",
    "citation_tokens", "num_search_queries", "tool_usage", "finish_reason", "headers", "list", "message_start",
    "message_delta", "response.completed", "message-end", "stream-end", "compaction", "1h", "AUDIO", "batch",
]  # fmt: skip

numbers = st.integers(-5, 50) | st.integers() | st.floats() | st.booleans() | st.none()
json_like = st.recursive(
    numbers | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=8),
    max_leaves=30,
)


def check(answer: Any) -> None:
    """The promises that hold for anything at all."""
    before = read_errors.count

    usage = read(answer).usage

    assert read_errors.count == before, read_errors.last
    parts = [getattr(usage, name) for name in TokenUsage.__struct_fields__[:10]]
    assert all(type(part) is int and part >= 0 for part in parts)
    assert all(count > 0 for count in usage.units.values())
    fits = (
        usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.input_audio_tokens + usage.input_image_tokens <= usage.input_tokens
        and usage.reasoning_tokens <= usage.output_tokens
        and usage.output_audio_tokens + usage.output_image_tokens <= usage.output_tokens
    )
    assert fits or usage.problems


@settings(max_examples=400, deadline=None)
@given(json_like)
@example({"usage": {"iterations": [1, {"type": "x"}]}, "type": "message"})
@example([{"chunk": {"bytes": "????"}}])
def test_any_json_is_read_without_an_exception_and_without_negative_counts(answer: Any) -> None:
    check(answer)
    check(json.dumps(answer))
    check(objects(answer))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), json_like, max_size=10))
def test_any_usage_inside_an_answer_is_read_without_an_exception(usage: Any) -> None:
    for around in ({"choices": []}, {"type": "message"}, {"object": "response"}, {"object": "list"}, {}):
        check({**around, "usage": usage})
    check({"usageMetadata": usage})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_and_any_text_are_read_without_an_exception(data: Any) -> None:
    check(data)
    check(b"\0\0\0" + data if isinstance(data, bytes) else f"data: {data}")
