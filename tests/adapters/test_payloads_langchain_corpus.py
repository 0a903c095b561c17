"""What LangChain's own integrations make of recorded answers, read back: equal to what the providers said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.corpus import conversations

from agent_meter import TokenUsage
from agent_meter.adapters.payloads import from_langchain, read_usage
from agent_meter.adapters.payloads.streams import parse


def last_usage(body: str) -> dict[str, Any]:
    """The last usage object of a recorded chat answer."""
    events = parse(body)
    for event in reversed(events if isinstance(events, list) else [events]):
        usage = event.get("usage") or (event.get("x_groq") or {}).get("usage")
        if usage:
            return usage
    return {}


def recorded(*apis: str) -> list[Any]:
    return [
        pytest.param(call, truth, id=f"{document['id']}-{call['i']}")
        for document in conversations()
        for call, truth in zip(document["interactions"], document["truth"], strict=True)
        if call["api"] in apis and truth["usage_raw"] is not None and not truth.get("ambiguous")
    ]


def classes(usage: TokenUsage) -> tuple[int, ...]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens,
        usage.reasoning_tokens, usage.input_audio_tokens, usage.output_audio_tokens,
    )  # fmt: skip


TRUTH = ("input_total", "output_total", "cache_read", "cache_write", "reasoning", "audio_in", "audio_out")


@pytest.mark.parametrize(("call", "truth"), recorded("openai.chat"))
@pytest.mark.parametrize("tier", [None, "flex", "priority"])
def test_langchain_openais_usage_of_a_recorded_chat(
    call: dict[str, Any], truth: dict[str, Any], tier: str | None
) -> None:
    base = pytest.importorskip("langchain_openai.chat_models.base")
    usage = last_usage(call["response"]["body"])
    kept = base._create_usage_metadata(usage, tier)
    own_words = "cached_tokens" in usage or "prompt_cache_hit_tokens" in usage

    streamed = from_langchain(kept, {"model_name": "m"}, {}, call["provider"]).usage
    invoked = from_langchain(kept, {"model_name": "m"}, {"token_usage": usage}, call["provider"]).usage

    assert classes(invoked) == tuple(truth[name] or 0 for name in TRUTH)
    assert own_words or classes(streamed) == classes(invoked)
    assert streamed.context.get("service_tier") in (tier, None)


@pytest.mark.parametrize(("call", "truth"), recorded("openai.responses"))
def test_langchain_openais_usage_of_a_recorded_response(call: dict[str, Any], truth: dict[str, Any]) -> None:
    base = pytest.importorskip("langchain_openai.chat_models.base")
    kept = base._create_usage_metadata_responses(truth["usage_raw"])

    usage = from_langchain(kept, {}, {}, "openai").usage

    assert classes(usage) == tuple(truth[name] or 0 for name in TRUTH)


@pytest.mark.parametrize(("call", "truth"), recorded("anthropic.messages"))
def test_langchain_anthropics_usage_of_a_recorded_message(call: dict[str, Any], truth: dict[str, Any]) -> None:
    models = pytest.importorskip("langchain_anthropic.chat_models")
    sdk = pytest.importorskip("anthropic")
    usage = truth["usage_raw"]
    kept = models._create_usage_metadata(sdk._models.construct_type(type_=sdk.types.Usage, value=usage))

    streamed = from_langchain(kept, {}, {}, "anthropic").usage
    invoked = from_langchain(kept, {}, {"usage": json.loads(json.dumps(usage))}, "anthropic").usage

    assert classes(streamed) == classes(invoked) == tuple(truth[name] or 0 for name in TRUTH)
    assert streamed.cache_write_1h_tokens == invoked.cache_write_1h_tokens == (truth["cache_write_1h"] or 0)
    assert invoked.units == read_usage(call["response"]["body"]).units
