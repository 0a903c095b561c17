"""LangChain's words: `usage_metadata`, inclusive already, and the raw usage that some integrations keep beside it.

Where both are there and agree on the totals, each class is the greater of the two: `usage_metadata` has lost
what its two `details` have no key for, some raw forms have no details at all. Where they disagree, the totals of
`usage_metadata` stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_meter.records import EMPTY, FrozenMap, TokenUsage

from .anthropic import beside
from .fields import (
    UNKNOWN,
    Fields,
    Pass,
    Reading,
    Units,
    fields,
    frozen,
    items,
    number,
    read_errors,
    spent,
    text,
    tier,
)
from .openai import inclusive
from .shapes import passes_of, usage_of

TIERS = ("priority", "flex")
# OpenRouter reports tokens as read from a cache and written to it at once: more than the input is no proof there.
OVERLAPPING = frozenset({"openrouter"})


def undouble(name: str) -> str:
    """A name that merging chunks has repeated, once: "gpt-xgpt-x" is "gpt-x"."""
    period = (name + name).find(name, 1)
    return name[:period] if 1 < period < len(name) else name


def from_langchain(
    usage_metadata: Mapping[str, Any] | None,
    response_metadata: Mapping[str, Any],
    llm_output: Mapping[str, Any],
    provider: str = "",
) -> Reading:
    """What one finished model run says. `provider` is LangChain's word for it (`ls_provider`). Never raises."""
    try:
        return _read(usage_metadata or EMPTY, response_metadata or EMPTY, llm_output or EMPTY, provider.lower())
    except Exception as error:
        read_errors.note(error)
        return Reading()


def _read(kept: Fields, about: Fields, output: Fields, provider: str) -> Reading:
    raw = output.get("token_usage") or output.get("usage") or about.get("token_usage") or about.get("usage")
    if raw is None and about.get("eval_count") is not None:
        raw = about  # Ollama's own counts
    usage, seen_tier = _metadata_usage(kept, provider)
    passes: tuple[Pass, ...] = ()
    units: Units = EMPTY
    where: Mapping[str, str] = EMPTY
    cost = None
    if raw:
        r = fields(raw)
        theirs = usage_of(r, provider)
        units, where, cost = theirs.units, theirs.context, theirs.reported_pico
        passes = passes_of(r)
        if passes:
            units = beside(theirs, passes).units
        if usage is UNKNOWN:
            usage = theirs
        elif not theirs.missing or theirs.missing == usage.missing:
            usage = _fuller(usage, theirs, kept)
    grounding = about.get("grounding_metadata")
    if grounding is not None:
        searches = len(items(fields(grounding).get("web_search_queries")))
        units = frozen({**units, "web_searches": searches})
    word = about.get("service_tier") or seen_tier
    if word and isinstance(word, str):
        named = tier(undouble(word))
        where = FrozenMap({**where, **named}) if where and where != named else named
    if cost is None:
        cost = spent(about)
    if units or where or cost is not None:
        u = usage
        usage = TokenUsage(
            u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.cache_write_1h_tokens,
            u.reasoning_tokens, u.input_audio_tokens, u.output_audio_tokens, u.input_image_tokens,
            u.output_image_tokens, units, u.missing, where, cost,
        )  # fmt: skip
    name = (
        text(about.get("model_name"))
        or text(output.get("model_name"))
        or text(about.get("model"))
        or text(output.get("model"))
        or text(about.get("model_id"))
    )
    return Reading(
        usage,
        undouble(name) if name else None,
        text(about.get("id")) or text(output.get("id")),
        (),
        None,
        passes,
    )


def _metadata_usage(kept: Fields, provider: str) -> tuple[TokenUsage, str | None]:
    """The usage that LangChain normalised, and the service tier that its keys are named after."""
    get = kept.get
    prompt, completion, total = (
        number(get("input_tokens")),
        number(get("output_tokens")),
        number(get("total_tokens")),
    )
    if prompt is None and completion is None:
        return UNKNOWN, None
    read = write = five = hour = audio = image = reasoning = spoken = drawn = 0
    seen: str | None = None
    detail = get("input_token_details")
    if detail:
        for key, value in detail.items():
            count = number(value)
            if not count:
                continue
            if key[:5] == "flex_" or key[:9] == "priority_":
                seen, _, key = key.partition("_")
            if key == "cache_read":
                read += count
            elif key == "cache_creation":
                write += count
            elif key == "ephemeral_5m_input_tokens":
                five += count
            elif key == "ephemeral_1h_input_tokens":
                hour += count
            elif key == "audio":
                audio += count
            elif key == "image":
                image += count
            elif key in TIERS:
                seen = key
    detail = get("output_token_details")
    if detail:
        for key, value in detail.items():
            count = number(value)
            if not count:
                continue
            if key[:5] == "flex_" or key[:9] == "priority_":
                seen, _, key = key.partition("_")
            if key == "reasoning":
                reasoning += count
            elif key == "audio":
                spoken += count
            elif key == "image":
                drawn += count
            elif key in TIERS:
                seen = key
    if five + hour > write:  # the general key is zero where the times to live are known
        write = five + hour
    if prompt is not None and read + write > prompt and provider not in OVERLAPPING:
        prompt += read + write  # an integration that kept the exclusive reading
        total = None
    usage = inclusive(
        prompt, completion, total, read, write, hour, reasoning, audio, spoken, image, drawn, EMPTY, EMPTY, None,
        provider, True,
    )  # fmt: skip
    return usage, seen


def _fuller(usage: TokenUsage, raw: TokenUsage, kept: Fields) -> TokenUsage:
    """Both readings of one call as one."""
    if raw.input_tokens == kept.get("input_tokens") and raw.output_tokens == kept.get("output_tokens"):
        usage, raw = raw, usage
    elif raw.input_tokens != usage.input_tokens or raw.output_tokens != usage.output_tokens:
        return usage
    a, b = usage, raw
    return TokenUsage(
        a.input_tokens,
        a.output_tokens,
        max(a.cache_read_tokens, b.cache_read_tokens),
        max(a.cache_write_tokens, b.cache_write_tokens),
        max(a.cache_write_1h_tokens, b.cache_write_1h_tokens),
        max(a.reasoning_tokens, b.reasoning_tokens),
        max(a.input_audio_tokens, b.input_audio_tokens),
        max(a.output_audio_tokens, b.output_audio_tokens),
        max(a.input_image_tokens, b.input_image_tokens),
        max(a.output_image_tokens, b.output_image_tokens),
        missing=a.missing,
    )
