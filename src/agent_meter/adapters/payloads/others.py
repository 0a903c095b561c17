"""The dialects of one vendor each: Bedrock, Cohere, Ollama, watsonx, Aleph Alpha, Hugging Face, AI21, OCR."""

from __future__ import annotations

from collections.abc import Mapping

from agent_meter.records import EMPTY, TokenUsage

from .fields import (
    MISSING_BOTH,
    MISSING_INPUT,
    UNKNOWN,
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


def first(u: Fields, *names: str) -> int | None:
    """The first of the names that holds a count."""
    for name in names:
        if (count := number(u.get(name))) is not None:
            return count
    return None


def plain(prompt: int | None, output: int | None, about: Mapping[str, str] = EMPTY) -> TokenUsage:
    """Two numbers and no parts."""
    missing = tuple(n for n, v in (("input_tokens", prompt), ("output_tokens", output)) if v is None)
    return TokenUsage(prompt or 0, output or 0, missing=missing, context=about)


# ------------------------------------------------------------------------------------------------- Bedrock


def converse_usage(u: Fields, service: object = None) -> TokenUsage:
    """Converse's usage, and Nova's. Cache reads and writes are beside `inputTokens`, unless the total denies it."""
    prompt, output, total = number(u.get("inputTokens")), number(u.get("outputTokens")), number(u.get("totalTokens"))
    read = first(u, "cacheReadInputTokens", "cacheReadInputTokenCount") or 0
    write = first(u, "cacheWriteInputTokens", "cacheWriteInputTokenCount") or 0
    hour = sum(
        number(f.get("inputTokens")) or 0
        for detail in items(u.get("cacheDetails"))
        if (f := fields(detail)).get("ttl") == "1h"
    )
    usage = plain(prompt, output)
    cached = read + write
    if cached and total == usage.total_tokens and prompt is not None and prompt >= cached:
        cached = 0
    return TokenUsage(
        usage.input_tokens + cached, usage.output_tokens, read, write, hour, missing=usage.missing,
        context=context(service),
    )  # fmt: skip


def converse(body: Fields, provider: str = "") -> Reading:
    content = items(fields(fields(body.get("output")).get("message")).get("content"))
    names = tuple(
        name
        for block in content
        if (asked := fields(block).get("toolUse")) is not None and (name := text(fields(asked).get("name")))
    )
    u = body.get("usage")
    usage = UNKNOWN if u is None else converse_usage(fields(u), fields(body.get("serviceTier")).get("type"))
    routed = fields(fields(body.get("trace")).get("promptRouter")).get("invokedModelId")
    return Reading(usage, text(routed), None, names)


def fold_converse(events: list[Fields]) -> Fields:
    whole: dict[str, object] = {}
    content: list[object] = []
    for event in events:
        f = fields(event.get("metadata"))
        for name in ("usage", "trace", "serviceTier"):
            if (value := f.get(name)) is not None:
                whole[name] = value
        start = fields(fields(event.get("contentBlockStart")).get("start"))
        if start.get("toolUse") is not None:
            content.append({"toolUse": start.get("toolUse")})
        if event.get("error") is not None:
            whole["error"] = event.get("error")
    whole["output"] = {"message": {"content": content}}
    return whole


HEADERS = {
    "inputTokens": "x-amzn-bedrock-input-token-count",
    "outputTokens": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokens": "x-amzn-bedrock-cache-write-input-token-count",
}


def header_usage(headers: Fields) -> TokenUsage:
    """The counts that Bedrock sends in HTTP headers, whatever the model's own words are."""
    lower: Mapping[str, object] = {}
    if isinstance(headers, Mapping):
        lower = {str(name).lower(): value for name, value in headers.items()}
    counts = {name: lower.get(header) for name, header in HEADERS.items()}
    return converse_usage(counts)


def metrics_usage(m: Fields) -> TokenUsage:
    """`amazon-bedrock-invocationMetrics`, the last words of every streamed invocation."""
    return converse_usage(
        {
            "inputTokens": m.get("inputTokenCount"),
            "outputTokens": m.get("outputTokenCount"),
            "cacheReadInputTokens": m.get("cacheReadInputTokenCount"),
            "cacheWriteInputTokens": m.get("cacheWriteInputTokenCount"),
        }
    )


def titan(body: Fields, provider: str = "") -> Reading:
    """Titan text and embeddings."""
    output = number(body.get("totalOutputTextTokenCount"))
    results = items(body.get("results"))
    if output is None and results:
        counts = [number(fields(r).get("tokenCount")) for r in results]
        output = sum(c for c in counts if c is not None) if any(c is not None for c in counts) else None
    if body.get("embedding") is not None or body.get("embeddingsByType") is not None:
        output = 0
    return Reading(plain(number(body.get("inputTextTokenCount")), output))


def llama(body: Fields, provider: str = "") -> Reading:
    """Llama on Bedrock."""
    return Reading(plain(number(body.get("prompt_token_count")), number(body.get("generation_token_count"))))


# -------------------------------------------------------------------------------------------------- Cohere


def cohere_usage(u: Fields) -> TokenUsage:
    """Cohere counts twice: `tokens` that the model processed, `billed_units` that are paid for.

    The processed ones are the usage. Where what is billed differs, it is in `units` as `billed_input_tokens`
    and `billed_output_tokens`.
    """
    tokens, billed = u.get("tokens"), fields(u.get("billed_units"))
    paid_in, paid_out = number(billed.get("input_tokens")), number(billed.get("output_tokens"))
    units = {
        "rerank_searches": number(billed.get("search_units")),
        "classifications": number(billed.get("classifications")),
        "images": number(billed.get("images")),
    }
    if tokens is None:
        fees = frozen(units)
        if paid_in is None and paid_out is None:
            return TokenUsage(units=fees, missing=() if fees else MISSING_BOTH)
        # An embedding is billed by its input alone.
        return TokenUsage(paid_in or 0, paid_out or 0, units=fees, missing=MISSING_INPUT if paid_in is None else ())
    t = fields(tokens)
    prompt, output = number(t.get("input_tokens")), number(t.get("output_tokens"))
    if paid_in is not None and paid_in != prompt:
        units["billed_input_tokens"] = paid_in
    if paid_out is not None and paid_out != output:
        units["billed_output_tokens"] = paid_out
    usage = plain(prompt, output)
    return TokenUsage(
        usage.input_tokens, usage.output_tokens, number(u.get("cached_tokens")) or 0,
        reasoning_tokens=number(t.get("reasoning_tokens")) or 0, input_image_tokens=number(t.get("image_tokens")) or 0,
        units=frozen(units), missing=usage.missing,
    )  # fmt: skip


def cohere(body: Fields, provider: str = "") -> Reading:
    """Chat (v1 and v2), generate, embed, rerank, classify."""
    get = body.get
    u = get("usage") or get("meta")
    message = fields(get("message"))
    names = []
    for call in items(message.get("tool_calls")) or items(get("tool_calls")):
        c = fields(call)
        if name := text(fields(c.get("function")).get("name")) or text(c.get("name")):
            names.append(name)
    usage = UNKNOWN if u is None else cohere_usage(fields(u))
    return Reading(usage, text(get("model")), text(get("id")) or text(get("generation_id")), tuple(names))


def fold_cohere(events: list[Fields]) -> Fields:
    whole: dict[str, object] = {}
    calls: list[object] = []
    for event in events:
        kind = event.get("type") or event.get("event_type")
        if kind == "message-start":
            whole["id"] = event.get("id")
        elif kind == "tool-call-start":
            calls += _one_or_more(
                fields(fields(fields(event.get("delta")).get("message")).get("tool_calls")).get("function"),
                fields(fields(event.get("delta")).get("message")).get("tool_calls"),
            )
        elif kind == "message-end":
            whole["usage"] = fields(event.get("delta")).get("usage")
        elif kind == "stream-end":
            answer = fields(event.get("response"))
            whole.update(meta=answer.get("meta"), id=answer.get("generation_id"), tool_calls=answer.get("tool_calls"))
    if calls:
        whole["message"] = {"tool_calls": calls}
    return whole


def _one_or_more(inner: object, outer: object) -> list[object]:
    """A tool call is sent by itself or as a list."""
    return [outer] if inner is not None else list(items(outer))


# ------------------------------------------------------------------------------------------------- the rest


def ollama_usage(u: Fields) -> TokenUsage:
    prompt, output = number(u.get("prompt_eval_count")), number(u.get("eval_count"))
    usage = plain(prompt, output)
    cached = number(u.get("prompt_eval_cached_count")) or 0
    return TokenUsage(usage.input_tokens, usage.output_tokens, cached, missing=usage.missing) if cached else usage


def ollama(body: Fields, provider: str = "") -> Reading:
    """Chat, generate and embed. A prompt that was all in the cache may come without its count."""
    names = tuple(
        name
        for call in items(fields(body.get("message")).get("tool_calls"))
        if (name := text(fields(fields(call).get("function")).get("name")))
    )
    if body.get("embeddings") is not None or body.get("embedding") is not None:
        usage = plain(number(body.get("prompt_eval_count")), 0)
    else:
        usage = ollama_usage(body)
    return Reading(usage, text(body.get("model")), None, names)


def fold_ollama(events: list[Fields]) -> Fields:
    whole: dict[str, object] = {"done": True}
    calls: list[object] = []
    for event in events:
        calls += items(fields(event.get("message")).get("tool_calls"))
        for name in ("model", "prompt_eval_count", "eval_count", "prompt_eval_cached_count", "error"):
            if (value := event.get(name)) is not None:
                whole[name] = value
    whole["message"] = {"tool_calls": calls}
    return whole


def watsonx(body: Fields, provider: str = "") -> Reading:
    """watsonx.ai's text generation."""
    results = [fields(r) for r in items(body.get("results"))]
    prompts = [n for r in results if (n := number(r.get("input_token_count"))) is not None]
    outputs = [n for r in results if (n := number(r.get("generated_token_count"))) is not None]
    usage = plain(sum(prompts) if prompts else None, sum(outputs) if outputs else None)
    return Reading(usage, text(body.get("model_id")))


def aleph_alpha(body: Fields, provider: str = "") -> Reading:
    usage = plain(number(body.get("num_tokens_prompt_total")), number(body.get("num_tokens_generated")))
    return Reading(usage, text(body.get("model_version")))


def hugging_face(body: Fields, provider: str = "") -> Reading:
    """Text Generation Inference: the prompt is counted only where its tokens are listed (`details`)."""
    details = fields(body.get("details"))
    listed = items(details.get("prefill"))
    prompt = number(details.get("input_length")) or (len(listed) or None)
    return Reading(plain(prompt, number(details.get("generated_tokens"))))


def jurassic(body: Fields, provider: str = "") -> Reading:
    """AI21's older models, which list every token of prompt and completions."""
    prompt = fields(body.get("prompt")).get("tokens")
    outputs = [fields(fields(c).get("data")).get("tokens") for c in items(body.get("completions"))]
    listed = [len(items(o)) for o in outputs if o is not None]
    usage = plain(None if prompt is None else len(items(prompt)), sum(listed) if listed else None)
    return Reading(usage, None, text(body.get("id")))


def pages(body: Fields, provider: str = "") -> Reading:
    """Mistral's OCR, billed by the page."""
    count = number(fields(body.get("usage_info")).get("pages_processed"))
    units: Units = frozen({"input_document_pages": count})
    return Reading(TokenUsage(units=units, missing=() if count is not None else MISSING_BOTH), text(body.get("model")))
