"""OpenTelemetry spans with GenAI attributes: OTLP JSON as collectors write it, or the SDK's own JSON of a span.

Reads the attributes of the conventions, older spellings included, and those of OpenInference. A span of a whole
agent (invoke_agent) sums up its model calls: these are read, it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..pricing.book import PriceBook
from ..pricing.names import provider_key
from ..records import ERROR, OK, Kind, Record, TokenUsage, pico
from .building import NotACall, count, model_call, moment, seconds, stable_id, text, tool_call

SOURCE = "otel"
_KINDS = {
    "chat": Kind.LLM, "text_completion": Kind.LLM, "generate_content": Kind.LLM, "completion": Kind.LLM,
    "embeddings": Kind.EMBEDDING, "embedding": Kind.EMBEDDING, "rerank": Kind.RERANK, "reranker": Kind.RERANK,
    "llm": Kind.LLM, "execute_tool": Kind.TOOL, "tool": Kind.TOOL,
}  # fmt: skip

# What a fact is called, newest name first: the conventions, what they were called before, OpenInference.
_NAMES = {
    "operation": ("gen_ai.operation.name", "llm.request.type", "openinference.span.kind"),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "model": ("gen_ai.request.model", "llm.model_name", "embedding.model_name", "llm.request.model"),
    "response_model": ("gen_ai.response.model", "llm.response.model"),
    "response_id": ("gen_ai.response.id",),
    "input": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "input_audio": ("llm.token_count.prompt_details.audio",),
    "output_audio": ("llm.token_count.completion_details.audio",),
    "cost": ("gen_ai.usage.cost.amount", "gen_ai.usage.cost", "gen_ai.usage.cost_usd", "llm.cost.total"),
    "agent": ("gen_ai.agent.name", "agent.name"),
    "user": ("user.id", "enduser.id"),
    "session": ("gen_ai.conversation.id", "session.id"),
    "tool": ("gen_ai.tool.name", "tool.name"),
    "tool_call_id": ("gen_ai.tool.call.id", "tool_call.id"),
    "error": ("error.type",),
    "tier": ("gen_ai.openai.response.service_tier", "openai.response.service_tier"),
}  # fmt: skip


def spans(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of an OTLP document, or the one span that a document is."""
    if "resourceSpans" not in document and "scopeSpans" not in document:
        yield dict(document)
        return
    for resource in document.get("resourceSpans") or [document]:
        for scope in resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or ():
            yield from scope.get("spans") or ()


def record(span: Mapping[str, Any], prices: PriceBook) -> Record:
    """A model call or a tool call. `NotACall` for every other span."""
    attributes = _attributes(span.get("attributes") or {})

    def get(fact: str) -> Any:
        return next((attributes[name] for name in _NAMES[fact] if attributes.get(name) is not None), None)

    kind = _KINDS.get(text(get("operation")).lower())
    if kind is None and get("operation") is None and get("input") is not None:
        kind = Kind.LLM
    at = moment(span.get("startTimeUnixNano", span.get("start_time")))
    if kind is None:
        raise NotACall
    if at is None:
        raise ValueError("a span without a start")
    context = span.get("context") or {}
    trace = text(span.get("traceId") or context.get("trace_id")).removeprefix("0x")
    own = text(span.get("spanId") or context.get("span_id")).removeprefix("0x")
    parent = text(span.get("parentSpanId") or span.get("parent_id")).removeprefix("0x")
    failed = _failed(span)
    who: dict[str, Any] = {
        "id": stable_id(at, SOURCE, trace, own),
        "at": at,
        "source": SOURCE,
        "duration": seconds(at, moment(span.get("endTimeUnixNano", span.get("end_time")))),
        "status": ERROR if failed else OK,
        "error_type": text(get("error")) or ("error" if failed else None),
        "run_id": trace or None,
        "parent_id": parent or None,
        "agent": text(get("agent")),
        "user": text(get("user")),
        "session": text(get("session")),
    }
    if kind is Kind.TOOL:
        name = text(get("tool")) or text(span.get("name")).removeprefix("execute_tool ")
        return tool_call(name=name or "tool", call_id=text(get("tool_call_id")), **who)
    provider = text(get("provider"))
    return model_call(
        prices,
        kind=kind,
        provider=provider_key(provider) if provider else "",
        model=text(get("model") or get("response_model")),
        response_model=text(get("response_model")) or None,
        response_id=text(get("response_id")) or None,
        usage=_usage(get),
        **who,
    )


def _usage(get: Any) -> TokenUsage | None:
    cost = get("cost")
    into, out = get("input"), get("output")
    if into is None and out is None:
        return None
    missing = tuple(name for name, value in (("input_tokens", into), ("output_tokens", out)) if value is None)
    return TokenUsage(
        count(into),
        count(out),
        count(get("cache_read")),
        count(get("cache_write")),
        0,
        count(get("reasoning")),
        count(get("input_audio")),
        count(get("output_audio")),
        # An embedding has no output that could be missed.
        missing=()
        if missing == ("output_tokens",) and _KINDS.get(text(get("operation"))) is Kind.EMBEDDING
        else missing,
        reported_pico=None if cost is None else pico(str(cost)),
    )


def _failed(span: Mapping[str, Any]) -> bool:
    status = span.get("status") or {}
    code = status.get("code", status.get("status_code"))
    return code in (2, "STATUS_CODE_ERROR", "ERROR")


def _attributes(given: Any) -> dict[str, Any]:
    """Attributes as a plain mapping, from OTLP's list of typed values too."""
    if isinstance(given, Mapping):
        return dict(given)
    return {each["key"]: _value(each.get("value") or {}) for each in given}


def _value(value: Mapping[str, Any]) -> Any:
    for kind, found in value.items():
        if kind == "intValue":
            return int(found)
        if kind in ("stringValue", "doubleValue", "boolValue"):
            return found
    return None
