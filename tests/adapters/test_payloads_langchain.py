"""LangChain's form of usage: right in every trap that its integrations set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import TokenUsage
from agent_meter.adapters.payloads import Reading, from_langchain, read, read_errors, undouble

MISSING = ("input_tokens", "output_tokens")


def usage_of(
    kept: dict[str, Any] | None,
    about: dict[str, Any] | None = None,
    output: dict[str, Any] | None = None,
    provider: str = "",
) -> TokenUsage:
    return from_langchain(kept, about or {}, output or {}, provider).usage


def metadata(
    prompt: int, output: int, inputs: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None
) -> Any:
    kept: dict[str, Any] = {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output}
    if inputs is not None:
        kept["input_token_details"] = inputs
    if outputs is not None:
        kept["output_token_details"] = outputs
    return kept


def test_the_totals_include_their_details() -> None:
    kept = metadata(1000, 300, {"cache_read": 700, "cache_creation": 100, "audio": 20}, {"reasoning": 250, "audio": 5})

    usage = usage_of(kept)

    assert usage == TokenUsage(1000, 300, 700, 100, 0, 250, 20, 5)


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_keys_named_after_a_service_tier_are_the_same_classes(tier: str) -> None:
    """The count named like the tier itself is what is left of the input, and is not added."""
    kept = metadata(
        1000,
        300,
        {f"{tier}_cache_read": 700, f"{tier}_cache_creation": 100, tier: 300},
        {f"{tier}_reasoning": 250, tier: 50},
    )

    usage = usage_of(kept)

    assert usage == TokenUsage(1000, 300, 700, 100, 0, 250, context={"service_tier": tier})


def test_cache_writes_by_time_to_live_count_although_the_general_key_is_zero() -> None:
    kept = metadata(
        6000,
        10,
        {"cache_read": 0, "cache_creation": 0, "ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    )

    usage = usage_of(kept)

    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (2000, 500)


def test_a_general_count_of_cache_writes_is_not_added_to_those_by_time_to_live() -> None:
    kept = metadata(6000, 10, {"cache_creation": 2000, "ephemeral_1h_input_tokens": 500})

    usage = usage_of(kept)

    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (2000, 500)


def test_floats_strings_and_none_among_the_counts_do_no_harm() -> None:
    kept = {
        "input_tokens": 12.0,
        "output_tokens": 5,
        "total_tokens": None,
        "total_cost": 0.0123,
        "input_token_details": {"cache_read": None, "audio": "many", "cost": 0.5},
        "output_token_details": {"reasoning": 2.0},
    }

    usage = usage_of(kept)

    assert usage == TokenUsage(12, 5, reasoning_tokens=2)


@pytest.mark.parametrize("kept", [None, {}, {"total_cost": 0}])
def test_no_usage_is_missing_and_not_zero(kept: dict[str, Any] | None) -> None:
    usage = usage_of(kept)

    assert usage.missing == MISSING


def test_one_absent_total_is_the_rest_of_the_sum() -> None:
    assert usage_of({"output_tokens": 5, "total_tokens": 12}) == TokenUsage(7, 5)


def test_one_absent_total_without_a_sum_is_missing() -> None:
    usage = usage_of({"output_tokens": 5})

    assert (usage.output_tokens, usage.missing) == (5, ("input_tokens",))


def test_more_cached_than_input_shows_an_exclusive_count() -> None:
    """An integration that kept Anthropic's reading: 16 fresh tokens beside 13,637 read."""
    kept = metadata(16, 344, {"cache_read": 13637, "cache_creation": 7049})

    usage = usage_of(kept)

    assert (usage.input_tokens, usage.problems) == (20702, ())


def test_openrouters_overlapping_cache_counts_are_kept_and_told() -> None:
    kept = metadata(2168, 100, {"cache_read": 2161, "cache_creation": 2161})

    usage = usage_of(kept, provider="openrouter")

    assert usage.input_tokens == 2168
    assert usage.problems


def test_the_raw_usage_stands_where_both_agree_on_a_contradiction() -> None:
    kept = metadata(7, 8, {"cache_read": 161})
    raw = {
        "prompt_tokens": 7,
        "completion_tokens": 8,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 161},
    }

    usage = usage_of(kept, output={"token_usage": raw})

    assert (usage.input_tokens, usage.cache_read_tokens) == (7, 161)


def test_mistrals_cache_is_found_in_the_raw_usage() -> None:
    raw = {
        "prompt_tokens": 900,
        "completion_tokens": 10,
        "total_tokens": 910,
        "prompt_tokens_details": {"cached_tokens": 800},
    }

    usage = usage_of(metadata(900, 10), output={"token_usage": raw}, provider="mistralai")

    assert usage == TokenUsage(900, 10, 800)


def test_parts_that_only_one_of_the_two_forms_has_are_all_kept() -> None:
    kept = metadata(900, 40, {}, {"reasoning": 30})
    raw = {"prompt_tokens": 900, "completion_tokens": 40, "prompt_tokens_details": {"image_tokens": 258}}

    usage = usage_of(kept, output={"token_usage": raw})

    assert usage == TokenUsage(900, 40, reasoning_tokens=30, input_image_tokens=258)


def test_where_the_two_forms_disagree_langchains_own_stands() -> None:
    raw = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

    usage = usage_of(metadata(900, 40), output={"token_usage": raw})

    assert (usage.input_tokens, usage.output_tokens) == (900, 40)


def test_the_raw_usage_is_read_where_langchain_has_none() -> None:
    raw = {"prompt_tokens": 90, "completion_tokens": 4, "total_tokens": 94}

    assert usage_of(None, output={"token_usage": raw}) == TokenUsage(90, 4)
    assert usage_of(None, {"token_usage": raw}) == TokenUsage(90, 4)


def test_anthropics_raw_usage_is_exclusive_and_brings_searches_speed_and_place() -> None:
    kept = metadata(117, 30, {"cache_read": 100, "cache_creation": 0})
    raw = {
        "input_tokens": 17,
        "output_tokens": 30,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "service_tier": "standard",
        "speed": "fast",
        "inference_geo": "us",
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
    }

    usage = usage_of(kept, output={"usage": raw}, provider="anthropic")

    assert usage == TokenUsage(
        117,
        30,
        100,
        units={"web_searches": 3},
        context={"service_tier": "standard", "speed": "fast", "inference_geo": "us"},
    )


def test_anthropics_compaction_is_kept_beside_the_usage() -> None:
    raw = {
        "input_tokens": 162,
        "output_tokens": 11,
        "iterations": [
            {"type": "compaction", "input_tokens": 99195, "output_tokens": 81},
            {"type": "message", "input_tokens": 162, "output_tokens": 11},
        ],
    }

    reading = from_langchain(metadata(162, 11), {"model_name": "claude"}, {"usage": raw}, "anthropic")

    assert reading.usage.units == {"pass_tokens": 99276}
    assert reading.billed_usage == TokenUsage(162 + 99195, 11 + 81)


def test_ollamas_output_is_known_although_its_prompt_came_from_the_cache() -> None:
    """LangChain then has no usage at all."""
    usage = usage_of(None, {"model": "llama3", "eval_count": 50, "done": True}, provider="ollama")

    assert (usage.output_tokens, usage.missing) == (50, ("input_tokens",))


def test_perplexitys_reasoning_is_beside_its_output() -> None:
    kept = metadata(45, 482, None, {"reasoning": 1000})

    usage = usage_of(kept, {"search_context_size": "low", "num_search_queries": 18}, provider="perplexity")

    assert (usage.output_tokens, usage.reasoning_tokens) == (1482, 1000)
    assert usage.units == {"web_searches": 18}
    assert usage.context == {"search_context_size": "low"}


def test_xais_reasoning_is_beside_its_output_as_the_total_says() -> None:
    kept = {
        "input_tokens": 12,
        "output_tokens": 2,
        "total_tokens": 334,
        "input_token_details": {"cache_read": 2},
        "output_token_details": {"reasoning": 320},
    }

    assert usage_of(kept) == TokenUsage(12, 322, 2, reasoning_tokens=320)


def test_a_total_that_no_class_explains_leaves_something_unseen() -> None:
    usage = usage_of({"input_tokens": 35, "output_tokens": 12, "total_tokens": 109})

    assert (usage.input_tokens, usage.output_tokens, usage.missing) == (35, 12, ("reasoning_tokens",))


@pytest.mark.parametrize(
    ("merged", "name"),
    [
        ("gpt-xgpt-x", "gpt-x"),
        ("gpt-4o-2024-08-06" * 3, "gpt-4o-2024-08-06"),
        ("defaultdefault", "default"),
        ("gpt-4o", "gpt-4o"),
        ("aaaa", "aaaa"),
        ("", ""),
    ],
)
def test_a_name_that_merging_repeated_is_given_once(merged: str, name: str) -> None:
    assert undouble(merged) == name


def test_model_tier_and_id_of_merged_choices() -> None:
    about = {"model_name": "gpt-xgpt-x", "service_tier": "flexflex", "id": "chatcmpl-1"}

    reading = from_langchain(metadata(5, 5), about, {}, "openai")

    assert reading == Reading(TokenUsage(5, 5, context={"service_tier": "flex"}), "gpt-x", "chatcmpl-1")


def test_with_several_choices_the_model_is_only_in_the_output() -> None:
    reading = from_langchain(metadata(5, 5), {}, {"model_name": "gpt-4o-2024-08-06", "id": "chatcmpl-1"}, "openai")

    assert (reading.response_model, reading.response_id) == ("gpt-4o-2024-08-06", "chatcmpl-1")


def test_the_tier_of_the_answer_wins_over_what_the_keys_are_named_after() -> None:
    kept = metadata(10, 5, {"flex_cache_read": 1, "flex": 9}, {})

    assert usage_of(kept, {"service_tier": "flex"}).context == {"service_tier": "flex"}


def test_openrouters_cost_is_what_it_says() -> None:
    usage = usage_of(metadata(626, 106), {"cost": 0.001156, "model_name": "a/b"}, provider="openrouter")

    assert usage.reported_pico == 1_156_000_000


def test_a_cache_hits_cost_of_zero_is_not_taken_for_a_price() -> None:
    assert usage_of({**metadata(626, 106), "total_cost": 0}).reported_pico is None


@pytest.mark.parametrize(("model", "billed"), [("gemini-3-flash", 2), ("models/gemini-2.5-flash", 1)])
def test_geminis_searches_are_counted_as_they_are_billed(model: str, billed: int) -> None:
    about = {"model_name": model, "grounding_metadata": {"web_search_queries": ["a", "b"]}}

    assert usage_of(metadata(10, 5), about).units == {"web_searches": billed}


def test_bedrocks_service_tier_is_read() -> None:
    assert usage_of(metadata(1, 1), {"serviceTier": {"type": "flex"}}).context == {"service_tier": "flex"}


def test_details_that_are_no_table_do_not_cost_the_totals() -> None:
    kept: Any = {"input_tokens": 3, "output_tokens": 4, "input_token_details": [1], "output_token_details": "x"}

    assert usage_of(kept) == TokenUsage(3, 4)


def test_nothing_at_all_is_read_as_unknown() -> None:
    empty: Any = None

    assert from_langchain(None, empty, empty, "").usage.missing == MISSING


def test_a_failure_of_ours_is_counted_and_reported_and_never_raised() -> None:
    class Broken(dict):
        def get(self, *_: Any) -> Any:
            raise RuntimeError("broken")

    heard: list[Exception] = []
    before = read_errors.count
    read_errors.listener = heard.append
    try:
        reading = from_langchain(Broken(input_tokens=1), {}, {}, "")
    finally:
        read_errors.listener = None

    assert reading.usage.missing == MISSING
    assert read_errors.count == before + 1
    assert [str(error) for error in heard] == ["broken"]


def test_a_whole_message_may_be_handed_over() -> None:
    messages = pytest.importorskip("langchain_core.messages")
    message = messages.AIMessage(
        "",
        tool_calls=[{"name": "search", "args": {}, "id": "1"}],
        usage_metadata=metadata(10, 5, {"cache_read": 4}),
        response_metadata={"model_name": "gpt-4o", "model_provider": "openai"},
    )

    reading = read(message)

    assert reading == Reading(TokenUsage(10, 5, 4), "gpt-4o", None, ("search",))


# ------------------------------------------------------------------------------------------------- anything


def classes(usage: TokenUsage) -> tuple[int, ...]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens,
        usage.reasoning_tokens, usage.input_audio_tokens, usage.output_audio_tokens,
    )  # fmt: skip


counts = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([])
details = st.none() | st.dictionaries(
    st.sampled_from(
        ["cache_read", "cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "audio", "reasoning",
         "flex", "priority", "flex_cache_read", "priority_reasoning", "image", "cost"]
    ),
    counts,
)  # fmt: skip


@given(
    kept=st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": counts, "output_tokens": counts, "total_tokens": counts,
            "input_token_details": details, "output_token_details": details, "total_cost": counts,
        },
    ),
    raw=st.none()
    | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens"]), counts),
    provider=st.sampled_from(["", "openai", "perplexity", "xai", "openrouter", "mistralai"]),
)  # fmt: skip
def test_whatever_langchain_hands_over_nothing_is_negative_and_nothing_raises(
    kept: Any, raw: Any, provider: str
) -> None:
    before = read_errors.count

    usage = from_langchain(kept, {"token_usage": raw}, {}, provider).usage

    assert read_errors.count == before
    assert all(count >= 0 for count in classes(usage))
    assert not [problem for problem in usage.problems if "< 0" in problem]
