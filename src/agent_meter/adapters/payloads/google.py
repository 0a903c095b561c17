"""Google's words: generateContent, embeddings, interactions and predict, in REST's camelCase or the SDK's snake_case.

`promptTokenCount` includes what was cached and leaves out what tools put into the prompt;
`candidatesTokenCount` leaves out thoughts. The provider's own total has the last word on both.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent_meter.records import EMPTY, TokenUsage

from .fields import (
    CUT,
    MISSING_BOTH,
    MISSING_INPUT,
    Fields,
    Reading,
    Units,
    context,
    fields,
    frozen,
    items,
    number,
    text,
)

# What kind of traffic Vertex served a call as, and the service tier that is priced like it.
TRAFFIC = {"on_demand_flex": "flex", "on_demand_priority": "priority", "provisioned_throughput": "provisioned"}
# Per modality: images and documents are billed as images.
IMAGES = ("image", "document")


def pick(u: Fields, camel: str, snake: str) -> object:
    value = u.get(camel)
    return u.get(snake) if value is None else value


def usage_of(u: Fields, units: Units = EMPTY, answers: bool = True) -> TokenUsage:
    """The usage of generateContent, of the Live API, and of embeddings (`answers` is False)."""
    prompt = number(pick(u, "promptTokenCount", "prompt_token_count"))
    shown = number(pick(u, "candidatesTokenCount", "candidates_token_count"))
    if shown is None:
        shown = number(pick(u, "responseTokenCount", "response_token_count"))
    thoughts = number(pick(u, "thoughtsTokenCount", "thoughts_token_count")) or 0
    by_tools = number(pick(u, "toolUsePromptTokenCount", "tool_use_prompt_token_count")) or 0
    cached = number(pick(u, "cachedContentTokenCount", "cached_content_token_count")) or 0
    total = number(pick(u, "totalTokenCount", "total_token_count"))
    given = modalities(pick(u, "promptTokensDetails", "prompt_tokens_details") or u.get("promptTokenDetails"))
    used = modalities(pick(u, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details"))
    kept = modalities(pick(u, "cacheTokensDetails", "cache_tokens_details"))
    made = modalities(
        pick(u, "candidatesTokensDetails", "candidates_tokens_details")
        or pick(u, "responseTokensDetails", "response_tokens_details")
    )
    missing: tuple[str, ...] = ()
    if prompt is None:
        # A cached prompt, or none at all, may come without its count: the total tells it.
        rest = None if total is None else total - (shown or 0) - thoughts - by_tools
        if rest is None or rest < 0:
            missing = MISSING_BOTH if shown is None and not thoughts and answers else MISSING_INPUT
        prompt = max(0, rest or 0)
    shown = shown or 0  # absent when nothing visible was said
    if total is not None and not missing:
        if thoughts and total == prompt + by_tools + shown:
            shown -= min(thoughts, shown)
        elif by_tools and total == prompt + shown + thoughts:
            prompt -= min(by_tools, prompt)
    place = context(*_tiers(u))
    more = {
        "input_video_tokens": given.get("video", 0) + used.get("video", 0),
        "output_video_tokens": made.get("video", 0),
        "cache_audio_read_tokens": kept.get("audio", 0),
        "cache_image_read_tokens": sum(kept.get(m, 0) for m in IMAGES),
    }
    if any(more.values()):
        units = frozen({**units, **more})
    return TokenUsage(
        prompt + by_tools, shown + thoughts, cached, 0, 0, thoughts, given.get("audio", 0) + used.get("audio", 0),
        made.get("audio", 0), sum(given.get(m, 0) + used.get(m, 0) for m in IMAGES),
        sum(made.get(m, 0) for m in IMAGES), units, missing, place, None,
    )  # fmt: skip


def _tiers(u: Fields) -> tuple[object]:
    said = _word(pick(u, "serviceTier", "service_tier"))
    if said:
        return (said,)
    traffic = _word(pick(u, "trafficType", "traffic_type"))
    return (TRAFFIC.get(traffic, traffic) if traffic else None,)


def _word(value: object) -> str | None:
    """A word of the vendor's, also out of an SDK's enum."""
    word = getattr(value, "value", value)
    return word.lower() if isinstance(word, str) and not word.lower().endswith("_unspecified") else None


def modalities(details: object) -> Mapping[str, int]:
    """Token counts by modality, in lower case."""
    counts: dict[str, int] = {}
    for detail in items(details):
        d = fields(detail)
        kind = _word(d.get("modality"))
        count = number(pick(d, "tokenCount", "token_count"))
        if count is None:
            count = number(d.get("tokens"))
        if kind and count:
            counts[kind] = counts.get(kind, 0) + count
    return counts


def billed_searches(queries: int, model: object) -> int:
    """Searches with Google are billed by the grounded prompt up to Gemini 2.5, by the query from 3 on."""
    older = isinstance(model, str) and model.removeprefix("models/").startswith(("gemini-1", "gemini-2"))
    return min(queries, 1) if older else queries


def generate(body: Fields, provider: str = "") -> Reading:
    """An answer of generateContent, or of an embedding call."""
    get = body.get
    u = pick(body, "usageMetadata", "usage_metadata")
    model = text(pick(body, "modelVersion", "model_version"))
    candidates = items(get("candidates"))
    names = []
    searches = 0
    for candidate in candidates:
        c = fields(candidate)
        for part in items(fields(c.get("content")).get("parts")):
            asked = pick(fields(part), "functionCall", "function_call")
            if asked is not None and (name := text(fields(asked).get("name"))):
                names.append(name)
        ground = fields(pick(c, "groundingMetadata", "grounding_metadata"))
        searches += len(items(pick(ground, "webSearchQueries", "web_search_queries")))
    units = frozen({"web_searches": billed_searches(searches, model)}) if searches else EMPTY
    answers = get("embedding") is None and get("embeddings") is None
    if u is None:
        usage = TokenUsage(units=units, missing=MISSING_BOTH if answers else MISSING_INPUT)
    else:
        usage = usage_of(fields(u), units, answers)
    return Reading(usage, model, text(pick(body, "responseId", "response_id")), tuple(names))


def interaction_usage(u: Fields, service: object = None) -> TokenUsage:
    """The usage of an interaction: thoughts beside the output, tool use beside the input."""
    get = u.get
    prompt, output = number(get("total_input_tokens")), number(get("total_output_tokens"))
    thoughts, by_tools = number(get("total_thought_tokens")) or 0, number(get("total_tool_use_tokens")) or 0
    given, made = modalities(get("input_tokens_by_modality")), modalities(get("output_tokens_by_modality"))
    missing = tuple(name for name, value in (("input_tokens", prompt), ("output_tokens", output)) if value is None)
    units = frozen({"input_video_tokens": given.get("video", 0), "output_video_tokens": made.get("video", 0)})
    return TokenUsage(
        (prompt or 0) + by_tools, (output or 0) + thoughts, number(get("total_cached_tokens")) or 0, 0, 0, thoughts,
        given.get("audio", 0), made.get("audio", 0), sum(given.get(m, 0) for m in IMAGES),
        sum(made.get(m, 0) for m in IMAGES), units, missing, context(service), None,
    )  # fmt: skip


def interaction(body: Fields, provider: str = "") -> Reading:
    get = body.get
    u = get("usage")
    service = get("service_tier")
    usage = (
        TokenUsage(missing=MISSING_BOTH, context=context(service))
        if u is None
        else interaction_usage(fields(u), service)
    )
    steps = items(get("outputs")) or items(get("steps"))
    names = tuple(
        name for step in steps if (f := fields(step)).get("type") == "function_call" and (name := text(f.get("name")))
    )
    return Reading(usage, text(get("model")), text(get("id")), names)


def predict(body: Fields, provider: str = "") -> Reading:
    """Vertex's predict: counts in `metadata.tokenMetadata`, or with each embedding."""
    told = fields(fields(body.get("metadata")).get("tokenMetadata"))
    prompt = number(fields(told.get("inputTokenCount")).get("totalTokens"))
    output = number(fields(told.get("outputTokenCount")).get("totalTokens"))
    if prompt is not None and output is not None:
        return Reading(TokenUsage(prompt, output))
    counts = [
        number(fields(fields(fields(p).get("embeddings")).get("statistics")).get("token_count"))
        for p in items(body.get("predictions"))
    ]
    known = [count for count in counts if count is not None]
    if counts and len(known) == len(counts):
        return Reading(TokenUsage(sum(known)))
    return Reading()


def fold(events: list[Fields]) -> Fields:
    """A stream of generateContent as one body. Counts are running totals: the last wins."""
    whole: dict[str, object] = {}
    candidates: list[object] = []
    best: object = None
    for event in events:
        u = pick(event, "usageMetadata", "usage_metadata")
        if u is not None and (best is None or number(pick(fields(u), "promptTokenCount", "prompt_token_count"))):
            best = u
        for camel, snake in (("modelVersion", "model_version"), ("responseId", "response_id")):
            if value := pick(event, camel, snake):
                whole[camel] = value
        candidates += items(event.get("candidates"))
        if event.get("error") is not None:
            whole["error"] = event.get("error")
    whole["candidates"] = candidates
    whole["usageMetadata"] = best
    whole[CUT] = bool(candidates) and not any(pick(fields(c), "finishReason", "finish_reason") for c in candidates)
    return whole


def fold_interaction(events: list[Fields]) -> Fields:
    whole: dict[str, object] = {"object": "interaction"}
    steps: list[object] = []
    for event in events:
        told = event.get("interaction")
        if told is not None:
            f = fields(told)
            for name in ("id", "model", "usage", "service_tier", "status", "error"):
                if (value := f.get(name)) is not None:
                    whole[name] = value
        steps += [part for name in ("step", "output", "content") if (part := event.get(name)) is not None]
        if event.get("error") is not None:
            whole["error"] = event.get("error")
    whole["outputs"] = steps
    return whole
