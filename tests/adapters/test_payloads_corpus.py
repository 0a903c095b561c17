"""Recorded answers of real providers: what is read equals what they said, in every class."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from tests.corpus import conversations

from agent_meter import TokenUsage
from agent_meter.adapters.payloads import read, read_errors, read_usage
from agent_meter.adapters.payloads.streams import parse
from agent_meter.records import dollars

CLASSES = {
    "input_total": "input_tokens",
    "output_total": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "audio_in": "input_audio_tokens",
    "audio_out": "output_audio_tokens",
}
# Recorded answers whose own counts the truth has left out: a guardrail that stepped in, told in the model's words.
UNTOLD = {"bedrock--invoke--test-guardrail-invoke-stream--800ba95e"}

CALLS = [
    pytest.param(call, truth, id=f"{document['id']}-{call['i']}")
    for document in conversations()
    for call, truth in zip(document["interactions"], document["truth"], strict=True)
]


def body_of(call: dict[str, Any]) -> bytes:
    response = call["response"]
    if response.get("body") is not None:
        return str(response["body"]).encode()
    return base64.b64decode(response["body_b64"])


def expected(truth: dict[str, Any]) -> dict[str, int]:
    """Not reported counts as 0, as it does in `TokenUsage`."""
    return {ours: truth[theirs] or 0 for theirs, ours in CLASSES.items()}


def counts(usage: TokenUsage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in CLASSES.values()}


def known(call: Any) -> list[Any]:
    """Those of `CALLS` that report usage and do not contradict themselves."""
    return [
        param
        for param in CALLS
        if param.values[1]["usage_raw"] is not None and not param.values[1].get("ambiguous") and call(*param.values)
    ]


@pytest.mark.parametrize(("call", "truth"), known(lambda call, truth: True))
def test_a_recorded_body_is_read_exactly_in_every_class(call: dict[str, Any], truth: dict[str, Any]) -> None:
    usage = read_usage(body_of(call), headers=call["response"]["headers"])

    assert counts(usage) == expected(truth)
    assert usage.missing == ()


@pytest.mark.parametrize(("call", "truth"), known(lambda call, truth: "body" in call["response"]))
def test_the_providers_name_changes_nothing(call: dict[str, Any], truth: dict[str, Any]) -> None:
    usage = read_usage(body_of(call), provider=call["provider"], api=call["api"], headers=call["response"]["headers"])

    assert counts(usage) == expected(truth)


@pytest.mark.parametrize(("call", "truth"), known(lambda call, truth: "body" in call["response"]))
def test_text_and_parsed_events_are_read_as_the_bytes_are(call: dict[str, Any], truth: dict[str, Any]) -> None:
    body, headers = body_of(call), call["response"]["headers"]
    whole = read(body, headers=headers)

    assert read(body.decode(), headers=headers) == whole
    assert read(parse(body), headers=headers) == whole


@pytest.mark.parametrize(("call", "truth"), CALLS)
def test_no_recorded_answer_breaks_a_reader(call: dict[str, Any], truth: dict[str, Any]) -> None:
    """Also errors, answers without usage and ambiguous ones: nothing negative, every contradiction is told."""
    before = read_errors.count

    usage = read_usage(body_of(call), headers=call["response"]["headers"])

    assert read_errors.count == before
    assert all(count >= 0 for count in counts(usage).values())
    assert bool(usage.problems) == any(
        part > whole
        for part, whole in (
            (usage.cache_read_tokens + usage.cache_write_tokens, usage.input_tokens),
            (usage.cache_write_1h_tokens, usage.cache_write_tokens),
            (usage.input_audio_tokens + usage.input_image_tokens, usage.input_tokens),
            (usage.reasoning_tokens, usage.output_tokens),
            (usage.output_audio_tokens + usage.output_image_tokens, usage.output_tokens),
        )
    )


@pytest.mark.parametrize(
    ("call", "truth"),
    [p for p in CALLS if p.values[1]["usage_raw"] is None and not any(u in str(p.id) for u in UNTOLD)],
)
def test_an_answer_without_usage_has_no_tokens_and_says_so(call: dict[str, Any], truth: dict[str, Any]) -> None:
    usage = read_usage(body_of(call), api=call["api"], headers=call["response"]["headers"])

    assert usage.total_tokens == 0
    assert usage.missing or usage.units


@pytest.mark.parametrize(("call", "truth"), CALLS)
def test_an_error_is_named_as_the_provider_names_it(call: dict[str, Any], truth: dict[str, Any]) -> None:
    error = truth.get("error")

    reading = read(body_of(call))

    assert reading.error_type == (None if error is None else error["type"] or "error")


@pytest.mark.parametrize(("call", "truth"), CALLS)
def test_the_model_is_the_one_that_the_answer_names(call: dict[str, Any], truth: dict[str, Any]) -> None:
    names = call["api"] in (
        "openai.chat",
        "openai.completions",
        "anthropic.messages",
        "ollama.chat",
        "watsonx.generate",
    )

    model = read(body_of(call)).response_model

    assert model in ((truth["model"],) if names and "error" not in truth else (truth["model"], None))


def fee(truth: dict[str, Any], *path: str) -> Any:
    value: Any = truth.get("extra") or {}
    for name in path:
        value = (value or {}).get(name)
    return value


@pytest.mark.parametrize(("call", "truth"), known(lambda call, truth: bool(truth.get("extra"))))
def test_fees_tiers_and_reported_costs_are_read(call: dict[str, Any], truth: dict[str, Any]) -> None:
    usage = read_usage(body_of(call), headers=call["response"]["headers"])

    searches = fee(truth, "web_search_requests") or fee(truth, "web_search_queries") or 0
    searches = searches or fee(truth, "server_tool_calls", "web_search_call") or 0
    assert usage.units.get("web_searches", 0) == searches
    if (tier := fee(truth, "service_tier") or fee(truth, "serviceTier")) and tier != "batch":
        assert usage.context["service_tier"] == tier
    cost = fee(truth, "cost_reported_usd") or fee(truth, "cost") or fee(truth, "cost_reported", "total_cost")
    if ticks := fee(truth, "cost_in_usd_ticks"):
        cost = Decimal(ticks) / 10**10
    if cost:
        assert usage.reported_pico is not None
        assert abs(dollars(usage.reported_pico) - Decimal(repr(cost) if isinstance(cost, float) else cost)) < Decimal(
            "1e-12"
        )


@pytest.mark.parametrize(("call", "truth"), known(lambda call, truth: bool(truth.get("billed_extra"))))
def test_passes_that_anthropic_bills_beside_the_answer_are_kept_apart(
    call: dict[str, Any], truth: dict[str, Any]
) -> None:
    reading = read(body_of(call))

    extra = truth["billed_extra"]
    assert [(p.kind, p.model, *counts(p.usage).values()) for p in reading.passes] == [
        (e["type"], e["model"], *counts_of_pass(e)) for e in extra
    ]
    assert reading.usage.units["pass_tokens"] == sum(e["input_total"] + e["output_total"] for e in extra)
    same_model = [e for e in extra if e["model"] is None]
    assert reading.billed_usage.input_tokens == truth["input_total"] + sum(e["input_total"] for e in same_model)
    assert reading.billed_usage.output_tokens == truth["output_total"] + sum(e["output_total"] for e in same_model)
    assert ("pass_tokens" in reading.billed_usage.units) is (len(same_model) < len(extra))


def counts_of_pass(extra: dict[str, Any]) -> list[int]:
    return [extra.get(theirs) or 0 for theirs in CLASSES]
