"""Dialects and corners that no recorded answer shows, in the shapes that the vendors document."""

from __future__ import annotations

import base64
import json
import struct
from decimal import Decimal
from typing import Any

import pytest

from agent_meter import TokenUsage
from agent_meter.adapters.payloads import Pass, hosted_fees, read, read_usage

BOTH = ("input_tokens", "output_tokens")


def chat(**usage: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "model": "m", "choices": [{"message": {"content": "hi"}}], "usage": usage}


# ---------------------------------------------------------------------------------------------------- OpenAI


@pytest.mark.parametrize(
    "word", ["prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens", "num_cached_tokens"]
)
def test_vendors_own_words_for_a_cache_read(word: str) -> None:
    usage = read_usage(chat(prompt_tokens=353, completion_tokens=23, total_tokens=376, **{word: 256}))

    assert usage == TokenUsage(353, 23, 256)


def test_alibabas_cache_writes_are_among_the_prompts_details() -> None:
    details = {
        "cached_tokens": 0,
        "cache_creation_input_tokens": 1200,
        "cache_creation": {"ephemeral_5m_input_tokens": 1200},
    }

    usage = read_usage(chat(prompt_tokens=1300, completion_tokens=9, prompt_tokens_details=details))

    assert usage == TokenUsage(1300, 9, 0, 1200)


def test_a_gateway_to_claude_keeps_anthropics_cache_words_beside_inclusive_totals() -> None:
    usage = read_usage(
        chat(prompt_tokens=2000, completion_tokens=5, cache_read_input_tokens=1500, cache_creation_input_tokens=300)
    )

    assert usage == TokenUsage(2000, 5, 1500, 300)


def test_perplexitys_deep_research_thinks_cites_and_searches_beside_its_completion() -> None:
    body = chat(
        prompt_tokens=33,
        completion_tokens=7163,
        total_tokens=7196,
        citation_tokens=20016,
        num_search_queries=18,
        reasoning_tokens=73997,
        search_context_size="low",
        cost={"total_cost": 0.409},
    )

    usage = read_usage(body)

    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (33, 7163 + 73997 + 20016, 73997)
    assert usage.units == {"web_searches": 18, "output_citation_tokens": 20016}
    assert usage.context == {"search_context_size": "low"}
    assert usage.reported_pico == 409_000_000_000


def test_xais_reasoning_is_outside_also_without_a_total_when_the_provider_is_named() -> None:
    body = chat(prompt_tokens=12, completion_tokens=2, completion_tokens_details={"reasoning_tokens": 320})

    assert read_usage(body, provider="xai").output_tokens == 322
    assert read_usage(body).problems  # nobody knows: kept as it came


def test_a_part_that_is_outside_is_found_by_the_providers_total() -> None:
    body = chat(
        prompt_tokens=100, completion_tokens=10, total_tokens=1110, prompt_tokens_details={"cached_tokens": 1000}
    )

    assert read_usage(body) == TokenUsage(1100, 10, 1000)


def test_a_call_with_a_users_own_key_costs_the_fee_and_what_the_upstream_charges() -> None:
    own = {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}
    plain = {**own, "is_byok": False}

    assert read_usage(chat(prompt_tokens=1, completion_tokens=1, **own)).reported_pico == 21_000_000_000
    assert read_usage(chat(prompt_tokens=1, completion_tokens=1, **plain)).reported_pico == 1_000_000_000


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1, True, "1e999999999", "many", [], 1e300, 5e-324])
def test_a_cost_that_is_no_amount_is_not_reported(cost: Any) -> None:
    assert read_usage(chat(prompt_tokens=1, completion_tokens=1, cost=cost)).reported_pico is None


def test_a_gateways_zero_ticks_are_no_price() -> None:
    assert read_usage(chat(prompt_tokens=1, completion_tokens=1, cost_in_usd_ticks=0)).reported_pico is None


def test_every_choices_tool_calls_are_named_in_order() -> None:
    body = chat(prompt_tokens=1, completion_tokens=1)
    body["choices"] = [
        {"message": {"tool_calls": [{"function": {"name": "a"}}, {"custom": {"name": "b"}}]}},
        {"message": {"function_call": {"name": "c"}}},
    ]

    assert read(body).tools == ("a", "b", "c")


def test_streamed_tool_calls_are_put_together_by_index_or_by_id() -> None:
    pieces: list[list[dict[str, Any]]] = [
        [{"index": 0, "id": "1", "function": {"name": "search", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": "{}"}}],
        [{"index": 1, "id": "2", "function": {"name": "fetch", "arguments": "{}"}}],
        [{"index": 0, "id": "3", "function": {"name": "search", "arguments": "{}"}}],
    ]

    events = [{"choices": [{"index": 0, "delta": {"tool_calls": piece}}]} for piece in pieces]

    assert read(events).tools == ("search", "fetch", "search")


def test_running_totals_are_never_added_up() -> None:
    events = [
        {
            "choices": [{"delta": {"content": "x"}}],
            "usage": {"prompt_tokens": 12, "completion_tokens": n, "total_tokens": 12 + n},
        }
        for n in range(5)
    ]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None})

    assert read_usage(events) == TokenUsage(12, 4)


def test_running_totals_of_a_stream_that_was_cut_are_a_lower_bound() -> None:
    events = [{"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}]

    usage = read_usage(events)

    assert (usage.input_tokens, usage.output_tokens, usage.missing) == (12, 3, ("output_tokens",))


def test_events_are_taken_out_of_an_sdks_wrapping() -> None:
    """Mistral's `CompletionEvent` has the chunk in `data`."""
    chunk = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}

    assert read_usage([{"data": chunk}]) == TokenUsage(9, 4)


def test_a_response_that_failed_keeps_what_it_used() -> None:
    response = {
        "object": "response",
        "id": "resp_1",
        "status": "failed",
        "error": {"code": "server_error", "message": "sorry"},
        "usage": {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14},
        "output": [],
    }

    reading = read([{"type": "response.failed", "response": response}])

    assert (reading.usage, reading.error_type) == (TokenUsage(10, 4), "server_error")


def test_hosted_tools_are_counted_as_they_are_billed() -> None:
    """Pages opened in a search are free, a container is one however often it runs, other tools have no fee."""
    output = [
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call", "action": {"type": "find_in_page"}},
        {"type": "code_interpreter_call", "container_id": "c1"},
        {"type": "code_interpreter_call", "container_id": "c1"},
        {"type": "code_interpreter_call", "container_id": "c2"},
        {"type": "file_search_call"},
        {"type": "image_generation_call"},
        {"type": "mcp_call"},
        {"type": "message"},
    ]

    assert hosted_fees(output) == {
        "web_searches": 1,
        "code_executions": 2,
        "storage_searches": 1,
        "image_generations": 1,
    }


def test_the_providers_own_count_of_searches_wins() -> None:
    body = {
        "object": "response",
        "output": [{"type": "web_search_call", "action": {"type": "search"}}],
        "tool_usage": {"web_search": {"num_requests": 4}},
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    assert read_usage(body).units == {"web_searches": 4}


def test_pictures_drawn_by_another_model_are_billed_beside_the_answer() -> None:
    body = {
        "object": "response",
        "output": [{"type": "image_generation_call"}],
        "tool_usage": {
            "image_gen": {"input_tokens": 20, "output_tokens": 1000, "output_tokens_details": {"image_tokens": 1000}}
        },
        "usage": {"input_tokens": 5, "output_tokens": 6},
    }

    reading = read(body)

    assert reading.usage == TokenUsage(5, 6, units={"pass_tokens": 1020})
    assert reading.passes == (Pass("image_generation", "", TokenUsage(20, 1000, output_image_tokens=1000)),)
    assert reading.billed_usage == reading.usage


def test_realtime_usage_has_audio_that_was_cached() -> None:
    details = {
        "text_tokens": 50,
        "audio_tokens": 100,
        "cached_tokens": 60,
        "cached_tokens_details": {"audio_tokens": 40},
    }
    usage = {
        "input_tokens": 150,
        "output_tokens": 80,
        "total_tokens": 230,
        "input_token_details": details,
        "output_token_details": {"text_tokens": 20, "audio_tokens": 60},
    }

    found = read_usage({"type": "response.done", "response": {"object": "realtime.response", "usage": usage}})

    assert found == TokenUsage(150, 80, 60, 0, 0, 0, 100, 60, units={"cache_audio_read_tokens": 40})


def test_images_by_token_split_their_modalities() -> None:
    body = {
        "created": 1,
        "data": [{"b64_json": "…"}],
        "usage": {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 1000,
            "output_tokens_details": {"image_tokens": 1000, "text_tokens": 0},
            "total_tokens": 1050,
        },
    }

    assert read_usage(body) == TokenUsage(50, 1000, input_image_tokens=40, output_image_tokens=1000)


def test_a_transcription_without_usage_is_billed_by_started_seconds() -> None:
    usage = read_usage({"task": "transcribe", "language": "en", "duration": 3.7, "text": "Hello."})

    assert (usage.units, usage.missing) == ({"input_audio_seconds": 4}, ())


def test_fractions_of_seconds_are_exact() -> None:
    usage = read_usage({"text": "Hello.", "usage": {"type": "duration", "seconds": 3.7}})

    assert usage.units == {"input_audio_seconds": Decimal("3.7")}


def test_embeddings_have_no_output_to_miss() -> None:
    body = {"object": "list", "data": [{"embedding": [0.1]}], "model": "m", "usage": {"total_tokens": 9}}

    assert read_usage(body) == TokenUsage(9)
    assert read_usage({**body, "usage": {"total_tokens": 9, "image_pixels": 400}}).units == {"input_pixels": 400}


def test_a_line_of_a_batch_is_marked_as_batch() -> None:
    body = chat(prompt_tokens=8, completion_tokens=2)

    reading = read(
        {"id": "batch_req_1", "custom_id": "1", "response": {"status_code": 200, "body": body}, "error": None}
    )

    assert (reading.usage, reading.response_model) == (TokenUsage(8, 2, context={"processing": "batch"}), "m")


# ------------------------------------------------------------------------------------------------- Anthropic


def message(**usage: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "model": "claude", "content": [], "usage": usage}


def test_a_batch_tier_is_a_way_of_processing() -> None:
    usage = read_usage(message(input_tokens=5, output_tokens=2, service_tier="batch", speed="fast", inference_geo="US"))

    assert usage.context == {"processing": "batch", "speed": "fast", "inference_geo": "us"}


def test_a_batch_result_of_anthropic_is_found_in_its_wrapping() -> None:
    line = {"custom_id": "1", "result": {"type": "succeeded", "message": message(input_tokens=5, output_tokens=2)}}

    assert read_usage(line) == TokenUsage(5, 2, context={"processing": "batch"})


def test_cache_writes_are_the_sum_of_the_times_to_live_where_only_those_are_told() -> None:
    usage = read_usage(
        message(
            input_tokens=5,
            output_tokens=2,
            cache_creation={"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 12},
        )
    )

    assert usage == TokenUsage(47, 2, 0, 42, 12)


def test_a_cut_stream_of_anthropic_knows_its_input_and_not_its_output() -> None:
    start = message(input_tokens=10, output_tokens=1, cache_read_input_tokens=90)
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "search"}},
    ]

    reading = read(events)

    assert (reading.usage.input_tokens, reading.usage.missing) == (100, ("output_tokens",))
    assert (reading.response_model, reading.tools) == ("claude", ("search",))


def test_an_error_in_a_stream_of_anthropic_is_told_beside_what_was_used() -> None:
    events = [
        {"type": "message_start", "message": message(input_tokens=10, output_tokens=1)},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ]

    reading = read(events)

    assert (reading.error_type, reading.usage.input_tokens) == ("overloaded_error", 10)


def test_an_advisors_pass_needs_a_record_of_its_own() -> None:
    body = message(
        input_tokens=100,
        output_tokens=10,
        service_tier="priority",
        iterations=[
            {"type": "message", "input_tokens": 100, "output_tokens": 10},
            {
                "type": "advisor_message",
                "model": "opus",
                "input_tokens": 7,
                "cache_read_input_tokens": 3,
                "output_tokens": 2,
            },
            {"type": "compaction", "input_tokens": 50, "output_tokens": 5},
        ],
    )

    reading = read(body)

    assert reading.passes == (
        Pass("advisor_message", "opus", TokenUsage(10, 2, 3)),
        Pass("compaction", None, TokenUsage(50, 5)),
    )
    assert (reading.usage.input_tokens, reading.usage.units) == (100, {"pass_tokens": 67})
    assert reading.billed_usage == TokenUsage(150, 15, units={"pass_tokens": 12}, context={"service_tier": "priority"})


# --------------------------------------------------------------------------------------------------- Google


def gemini(**usage: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}}],
        "modelVersion": "gemini-3",
        "usageMetadata": usage,
    }


def test_thoughts_and_tool_prompts_are_added_unless_the_total_has_them_inside() -> None:
    added = gemini(
        promptTokenCount=10, candidatesTokenCount=5, thoughtsTokenCount=7, toolUsePromptTokenCount=3, totalTokenCount=25
    )
    inside = gemini(promptTokenCount=10, candidatesTokenCount=12, thoughtsTokenCount=7, totalTokenCount=22)
    in_prompt = gemini(promptTokenCount=13, candidatesTokenCount=5, toolUsePromptTokenCount=3, totalTokenCount=18)

    assert read_usage(added) == TokenUsage(13, 12, reasoning_tokens=7)
    assert read_usage(inside) == TokenUsage(10, 12, reasoning_tokens=7)
    assert read_usage(in_prompt) == TokenUsage(13, 5)


def test_the_sdks_snake_case_and_enums_are_the_same_words() -> None:
    class Modality:
        value = "AUDIO"

    class Object:
        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)

    usage = Object(
        prompt_token_count=30,
        candidates_token_count=4,
        thoughts_token_count=None,
        cached_content_token_count=20,
        total_token_count=34,
        prompt_tokens_details=[Object(modality=Modality, token_count=25)],
        cache_tokens_details=[Object(modality=Modality, token_count=20)],
        traffic_type="ON_DEMAND_PRIORITY",
    )
    asked = Object(function_call=Object(name="search"), text=None)
    response = Object(
        candidates=[Object(content=Object(parts=[asked]), grounding_metadata=None)],
        usage_metadata=usage,
        model_version="gemini-3-flash",
        response_id="r1",
    )

    reading = read(response)

    assert reading.usage == TokenUsage(
        30, 4, 20, input_audio_tokens=25, units={"cache_audio_read_tokens": 20}, context={"service_tier": "priority"}
    )
    assert (reading.response_model, reading.response_id, reading.tools) == ("gemini-3-flash", "r1", ("search",))


@pytest.mark.parametrize(("model", "billed"), [("gemini-2.5-flash", 1), ("gemini-3-flash", 3)])
def test_older_geminis_search_by_the_prompt_and_newer_ones_by_the_query(model: str, billed: int) -> None:
    body = gemini(promptTokenCount=1, candidatesTokenCount=1)
    body["modelVersion"] = model
    body["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["a", "b", "c"]}

    assert read_usage(body).units == {"web_searches": billed}


def test_a_blocked_prompt_has_input_and_no_output() -> None:
    body = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12},
    }

    assert read_usage(body) == TokenUsage(12)


def test_a_json_array_of_chunks_is_a_stream_also_when_it_was_cut() -> None:
    chunks = [gemini(promptTokenCount=9, candidatesTokenCount=n, totalTokenCount=9 + n) for n in (1, 4)]
    chunks[1]["candidates"][0]["finishReason"] = "STOP"
    whole = json.dumps(chunks)

    assert read_usage(whole) == TokenUsage(9, 4)
    cut = read_usage(whole[: whole.index("}}, {") + 3])
    assert (cut.input_tokens, cut.output_tokens, cut.missing) == (9, 1, ("output_tokens",))


def test_vertex_predict_counts_in_its_metadata_or_with_each_embedding() -> None:
    counted = {
        "metadata": {"tokenMetadata": {"inputTokenCount": {"totalTokens": 5}, "outputTokenCount": {"totalTokens": 8}}}
    }
    embedded = {"embeddings": {"values": [0.1], "statistics": {"token_count": 4}}}

    assert read_usage({"predictions": [{}], **counted}) == TokenUsage(5, 8)
    assert read_usage({"predictions": [embedded, embedded]}) == TokenUsage(8)


# -------------------------------------------------------------------------------------------------- Bedrock


def test_converse_knows_cache_writes_for_an_hour_and_the_tier() -> None:
    body = {
        "output": {"message": {"content": [{"toolUse": {"name": "search"}}]}},
        "usage": {
            "inputTokens": 10,
            "outputTokens": 5,
            "totalTokens": 315,
            "cacheReadInputTokens": 100,
            "cacheWriteInputTokens": 200,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 150}, {"ttl": "5m", "inputTokens": 50}],
        },
        "serviceTier": {"type": "flex"},
    }

    reading = read(body)

    assert reading.usage == TokenUsage(310, 5, 100, 200, 150, context={"service_tier": "flex"})
    assert reading.tools == ("search",)


def test_bedrock_counts_in_its_headers_where_a_models_words_have_none() -> None:
    headers = {
        "X-Amzn-Bedrock-Input-Token-Count": "6",
        "X-Amzn-Bedrock-Output-Token-Count": "10",
        "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "4",
    }
    body = {"outputs": [{"text": "hi"}]}

    assert read_usage(body, headers=headers) == TokenUsage(10, 10, 4)
    assert read_usage({**body, "ResponseMetadata": {"HTTPHeaders": headers}}) == TokenUsage(10, 10, 4)
    assert read_usage(body, headers={"content-type": "application/json"}).missing == BOTH


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"inputTextTokenCount": 6, "results": [{"tokenCount": 3}, {"tokenCount": 4}]}, TokenUsage(6, 7)),
        ({"inputTextTokenCount": 6, "embedding": [0.1]}, TokenUsage(6)),
        ({"generation": "hi", "prompt_token_count": 6, "generation_token_count": 2}, TokenUsage(6, 2)),
        ({"prompt": {"tokens": [1, 2]}, "completions": [{"data": {"tokens": [1]}}]}, TokenUsage(2, 1)),
    ],
)
def test_the_models_of_bedrock_have_words_of_their_own(body: dict[str, Any], usage: TokenUsage) -> None:
    assert read_usage(body) == usage


def aws_message(event: dict[str, Any], **headers: str) -> bytes:
    payload = json.dumps(event).encode()
    packed = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in ((":" + k.replace("_", "-"), v) for k, v in headers.items())
    )
    length = 16 + len(packed) + len(payload)
    return struct.pack(">II", length, len(packed)) + b"\0\0\0\0" + packed + payload + b"\0\0\0\0"


def chunk(event: dict[str, Any]) -> bytes:
    inner = base64.b64encode(json.dumps(event).encode()).decode()
    return aws_message({"bytes": inner}, event_type="chunk", message_type="event")


def test_an_invocations_last_event_counts_for_models_that_do_not() -> None:
    metrics = {"inputTokenCount": 12, "outputTokenCount": 34, "cacheReadInputTokenCount": 5}

    data = chunk({"outputs": [{"text": "hi"}]}) + chunk({"outputs": [], "amazon-bedrock-invocationMetrics": metrics})

    assert read_usage(data) == TokenUsage(17, 34, 5)


def test_the_chunks_of_boto3_are_bytes() -> None:
    events = [
        {
            "chunk": {
                "bytes": json.dumps(
                    {"type": "message_start", "message": message(input_tokens=9, output_tokens=1)}
                ).encode()
            }
        },
        {"chunk": {"bytes": json.dumps({"type": "message_delta", "usage": {"output_tokens": 4}}).encode()}},
    ]

    assert read_usage(events) == TokenUsage(9, 4)


def test_a_broken_chunk_does_not_hide_the_others() -> None:
    broken = aws_message({"bytes": "====="}, event_type="chunk", message_type="event")
    metrics = {"inputTokenCount": 12, "outputTokenCount": 34}

    assert read_usage(broken + chunk({"amazon-bedrock-invocationMetrics": metrics})) == TokenUsage(12, 34)


def test_llamas_stream_tells_its_prompt_first_and_its_total_last() -> None:
    data = chunk({"generation": "a", "prompt_token_count": 19, "generation_token_count": 1}) + chunk(
        {"generation": "b", "prompt_token_count": None, "generation_token_count": 2}
    )

    assert read_usage(data) == TokenUsage(19, 2)


def test_an_exception_in_an_event_stream_is_an_error_beside_what_was_used() -> None:
    used = aws_message({"usage": {"inputTokens": 3, "outputTokens": 1}}, event_type="metadata", message_type="event")
    failed = aws_message({"message": "slow down"}, exception_type="throttlingException", message_type="exception")

    reading = read(used + failed)

    assert (reading.usage, reading.error_type) == (TokenUsage(3, 1), "throttlingException")


def test_an_event_stream_that_was_cut_is_read_as_far_as_it_goes() -> None:
    used = aws_message({"usage": {"inputTokens": 3, "outputTokens": 1}}, event_type="metadata", message_type="event")

    assert read_usage(used + used[:20]) == TokenUsage(3, 1)
    assert read_usage(used[:-5]).missing == BOTH


# ------------------------------------------------------------------------------------------------- the others


def test_coheres_processed_tokens_are_the_usage_and_the_billed_ones_are_told() -> None:
    usage = {
        "tokens": {"input_tokens": 267, "output_tokens": 91},
        "billed_units": {"input_tokens": 51, "output_tokens": 91},
    }

    found = read_usage({"id": "1", "message": {"role": "assistant"}, "usage": usage})

    assert found == TokenUsage(267, 91, units={"billed_input_tokens": 51})


def test_coheres_v2_stream_ends_with_its_usage() -> None:
    call = {"id": "c1", "function": {"name": "search", "arguments": ""}}
    events = [
        {"type": "message-start", "id": "m1"},
        {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": call}}},
        {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 7, "output_tokens": 3}}}},
    ]

    reading = read(events)

    assert (reading.usage, reading.response_id, reading.tools) == (TokenUsage(7, 3), "m1", ("search",))


def test_coheres_embeddings_are_billed_by_their_input() -> None:
    body = {"id": "1", "embeddings": [[0.1]], "meta": {"billed_units": {"input_tokens": 12, "images": 2}}}

    assert read_usage(body) == TokenUsage(12, units={"images": 2})


def test_ollamas_prompt_may_come_from_the_cache_without_a_count() -> None:
    usage = read_usage({"model": "llama3", "message": {}, "done": True, "eval_count": 50})

    assert (usage.output_tokens, usage.missing) == (50, ("input_tokens",))


def test_ollamas_tools_and_errors_are_read_from_its_stream() -> None:
    lines = [
        {"model": "q", "message": {"tool_calls": [{"function": {"name": "add"}}]}, "done": False},
        {"error": "out of memory"},
    ]

    reading = read("\n".join(json.dumps(line) for line in lines))

    assert (reading.tools, reading.error_type, reading.response_model) == (("add",), "error", "q")


def test_text_generation_inference_counts_what_it_lists() -> None:
    details = {"generated_tokens": 5, "prefill": [{"id": 1}, {"id": 2}]}

    assert read_usage([{"generated_text": "hi", "details": details}]) == TokenUsage(2, 5)
    assert read_usage({"generated_text": "hi", "details": {"generated_tokens": 5}}).missing == ("input_tokens",)


def test_mistrals_ocr_is_billed_by_the_page() -> None:
    body = {"model": "mistral-ocr", "pages": [{}, {}], "usage_info": {"pages_processed": 2, "doc_size_bytes": 9}}

    assert read_usage(body) == TokenUsage(units={"input_document_pages": 2})


def test_a_stream_of_interactions_names_its_tools() -> None:
    events = [
        {"event_type": "interaction.created", "interaction": {"id": "i1", "model": "g", "object": "interaction"}},
        {"event_type": "step.start", "index": 0, "step": {"type": "function_call", "name": "search"}},
        {
            "event_type": "interaction.completed",
            "interaction": {
                "id": "i1",
                "usage": {"total_input_tokens": 5, "total_output_tokens": 2, "total_thought_tokens": 4},
            },
        },
    ]

    reading = read(events)

    assert (reading.usage, reading.tools, reading.response_model) == (
        TokenUsage(5, 6, reasoning_tokens=4),
        ("search",),
        "g",
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"type": "overloaded_error"}, "type": "error"}, "overloaded_error"),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, "RESOURCE_EXHAUSTED"),
        ({"error": {"code": "RateLimitReached"}}, "RateLimitReached"),
        ({"error": "bad input", "error_type": "validation"}, "validation"),
        ({"code": "invalid-argument", "error": "no"}, "invalid-argument"),
        ({"message": "Too many tokens"}, "error"),
        ({"__type": "ThrottlingException", "message": "slow"}, "ThrottlingException"),
        ({"detail": "no such model"}, "error"),
        ({"error": {}}, "error"),
        (RuntimeError("connection lost"), "RuntimeError"),
        ({"object": "chat.completion", "choices": []}, None),
    ],
)
def test_errors_are_named_in_the_providers_word(body: Any, error: str | None) -> None:
    reading = read(body)

    assert (reading.error_type, reading.usage.missing) == (error, BOTH)
