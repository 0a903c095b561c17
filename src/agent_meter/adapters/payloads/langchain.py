"""LangChain's words: `usage_metadata`, inclusive already, and the raw usage that some integrations keep beside it.

Where both are there and agree on the totals, each part is the greater of the two: `usage_metadata` has lost what
its integration knows no key for, some raw forms have no parts at all. Where they disagree, `usage_metadata`
stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from agent_meter.records import EMPTY, TOKEN_CLASSES, FrozenMap, TokenUsage

from .anthropic import beside
from .fields import (
    MOST,
    UNKNOWN,
    Fields,
    Pass,
    Reading,
    context,
    fields,
    items,
    number,
    read_errors,
    spent,
    text,
    tier,
)
from .google import billed_searches
from .openai import chat_usage, inclusive
from .shapes import passes_of, usage_of

TIERS = ("priority", "flex")
PARTS = TOKEN_CLASSES[2:]
# OpenRouter reports tokens as read from a cache and written to it at once: more than the input is no proof there.
OVERLAPPING = frozenset({"openrouter"})


# What `_around` looks for: the metadata of a plain answer has none of it.
_BESIDE = frozenset({"serviceTier", "cost", "grounding_metadata", "num_search_queries", "search_context_size"})


@lru_cache(256)
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


def _read(kept: Fields, about: Mapping[str, Any], output: Fields, provider: str) -> Reading:
    get = about.get
    raw = (output.get("token_usage") or output.get("usage")) if output else None
    raw = raw or get("token_usage") or get("usage")
    if not raw and provider == "cohere" and (counted := get("token_count")) and "total_tokens" not in counted:
        raw = {"tokens": counted}  # with a total it is what a stream is billed for, and not what it used
    if not raw and (get("eval_count") is not None or get("prompt_eval_count") is not None):
        raw = about  # Ollama's own counts
    word = get("service_tier")
    where = tier(undouble(word)) if word and isinstance(word, str) else EMPTY
    passes: tuple[Pass, ...] = ()
    usage: TokenUsage | None = None
    if raw:
        r = fields(raw)
        usage = chat_usage(r, provider, where) if r.get("prompt_tokens") is not None else usage_of(r, provider)
        passes = passes_of(r)
        if passes:
            usage = beside(usage, passes)
        if kept and not _says_all(r, usage, kept):
            usage = _both(usage, r, kept, provider)
    if usage is None:
        usage = _metadata_usage(kept, provider)
    if (where and usage.context is not where) or not _BESIDE.isdisjoint(about):
        more = _around(usage, about, where)
        if more:
            usage = replace(usage, **more)
    name = get("model_name") or output.get("model_name") or get("model") or output.get("model") or get("model_id")
    return Reading(
        usage,
        undouble(name) if name and isinstance(name, str) else None,
        text(get("id") or output.get("id")),
        (),
        None,
        passes,
    )


def _says_all(raw: Fields, usage: TokenUsage, kept: Fields) -> bool:
    """Whether the raw usage is where `usage_metadata` was made from, so that nothing more is to be found there."""
    return (
        usage.input_tokens == kept.get("input_tokens")
        and usage.output_tokens == kept.get("output_tokens")
        and bool(raw.get("prompt_tokens_details") or not kept.get("input_token_details"))
        and bool(raw.get("completion_tokens_details") or not kept.get("output_token_details"))
    )


def _around(usage: TokenUsage, about: Fields, where: Mapping[str, str]) -> dict[str, Any]:
    """What is said beside the usage: the tier, the price, the searches."""
    get = about.get
    more: dict[str, Any] = {}
    if where and (known := usage.context) is not where:
        if not known:
            more["context"] = where
        elif known != where:
            more["context"] = FrozenMap({**known, **where})
    elif not where and (aws := get("serviceTier")) is not None:
        more["context"] = context(aws if isinstance(aws, str) else fields(aws).get("type"))
    if usage.reported_pico is None and get("cost") is not None:
        more["reported_pico"] = spent(about)
    if (ground := get("grounding_metadata")) is not None:
        queries = len(items(fields(ground).get("web_search_queries")))
        searches = billed_searches(queries, get("model_name"))
    else:
        searches = number(get("num_search_queries")) or 0  # Perplexity
    if searches:
        more["units"] = FrozenMap({**usage.units, "web_searches": searches})
    if "search_context_size" not in usage.context and (size := text(get("search_context_size"))):
        more["context"] = context(**{**usage.context, **where}, search_context_size=size)
    return more


def _both(theirs: TokenUsage, raw: Fields, kept: Fields, provider: str) -> TokenUsage:
    """The raw usage and `usage_metadata` of one call as one; where the latter copies the former, they agree."""
    ours = _metadata_usage(kept, provider)
    if ours.missing == UNKNOWN.missing:
        return theirs
    said = (kept.get("input_tokens"), kept.get("output_tokens"))
    found = (theirs.input_tokens, theirs.output_tokens)
    copied = said == (raw.get("prompt_tokens"), raw.get("completion_tokens"))
    if not copied and found not in (said, (ours.input_tokens, ours.output_tokens)):
        about = theirs.context or ours.context
        return replace(ours, units=theirs.units, context=about, reported_pico=theirs.reported_pico)
    parts = {name: max(getattr(ours, name), getattr(theirs, name)) for name in PARTS}
    return replace(theirs, context=theirs.context or ours.context, **parts)


def _metadata_usage(kept: Fields, provider: str) -> TokenUsage:
    """The usage that LangChain normalised; keys named after a service tier tell it."""
    prompt, completion, total = kept.get("input_tokens"), kept.get("output_tokens"), kept.get("total_tokens")
    inside, outside = kept.get("input_token_details"), kept.get("output_token_details")
    if not (type(prompt) is type(completion) is type(total) is int and 0 <= prompt <= MOST and 0 <= completion <= MOST):
        prompt, completion, total = number(prompt), number(completion), number(total)
        if prompt is None and completion is None:
            return UNKNOWN
    elif not inside and not outside and prompt + completion == total:
        return TokenUsage(prompt, completion)
    inputs, tier_in = _parts(inside) if inside else (EMPTY, None)
    outputs, tier_out = _parts(outside) if outside else (EMPTY, None)
    part = inputs.get
    read, write = part("cache_read", 0), part("cache_creation", 0)
    five, hour = part("ephemeral_5m_input_tokens", 0), part("ephemeral_1h_input_tokens", 0)
    seen = tier_in or tier_out
    if five + hour > write:  # the general key is zero where the times to live are known
        write = five + hour
    if prompt is not None and read + write > prompt and provider not in OVERLAPPING:
        prompt += read + write  # an integration that kept the exclusive reading
        total = None
    return inclusive(
        prompt, completion, total, read, write, hour, outputs.get("reasoning", 0), part("audio", 0),
        outputs.get("audio", 0), part("image", 0), outputs.get("image", 0), EMPTY,
        tier(seen) if seen else EMPTY, None, provider, True,
    )  # fmt: skip


def _parts(detail: object) -> tuple[Mapping[str, int], str | None]:
    """The counts among the details, and the service tier that their keys are named after."""
    # A dict first: to ask whether it is a Mapping goes through the abstract base class.
    if type(detail) is not dict and not isinstance(detail, Mapping):
        return EMPTY, None
    parts: dict[str, int] = {}
    seen: str | None = None
    for key, value in detail.items():
        count = value if type(value) is int and 0 <= value <= MOST else number(value)
        if not count:
            continue
        if key in TIERS:  # what is left of the total, and no part of it
            seen = key
            continue
        if key[:5] == "flex_" or key[:9] == "priority_":
            seen, _, key = key.partition("_")
        parts[key] = parts.get(key, 0) + count
    return parts, seen
