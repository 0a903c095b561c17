"""Anthropic messages: `input_tokens` excludes cache reads and writes; writes are split by time to live."""

from __future__ import annotations

from ..records import TokenUsage
from .replies import ErrorReply, Reply, split
from .wire import ID, Events, Json, call_id, dumps

_EMPTY: dict[str, Json] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _input_object(usage: TokenUsage) -> Json:
    return {
        "input_tokens": usage.uncached_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
    }


def _split_object(usage: TokenUsage) -> Json:
    return {
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    }


def _output_object(usage: TokenUsage) -> Json:
    thinking = {"thinking_tokens": usage.reasoning_tokens}
    return {"output_tokens": usage.output_tokens, "output_tokens_details": thinking}


def _blocks(reply: Reply) -> list[Json]:
    blocks: list[Json] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": "bG9vcGJhY2s="})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for number, tool in enumerate(reply.tool_calls):
        name = call_id("toolu", number, tool.id)
        blocks.append({"type": "tool_use", "id": name, "name": tool.name, "input": dict(tool.arguments)})
    return blocks


def _message(model: str, content: list[Json], stop: str | None, usage: Json) -> Json:
    return {
        "id": f"msg_{ID}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {**usage, "service_tier": "standard"},
    }


def document(reply: Reply, usage: TokenUsage, model: str) -> Json:
    counts = {**_input_object(usage), **_split_object(usage), **_output_object(usage)}
    return _message(model, _blocks(reply), _STOPS[reply.ending], counts)


def events(reply: Reply, usage: TokenUsage, model: str) -> Events:
    """As the provider does it: the split by time to live comes in the first event and in no other."""
    out = Events()

    def say(name: str, fields: Json, *, piece: bool = False) -> None:
        out.add({"type": name, **fields}, name, piece=piece)

    opening = {**_input_object(usage), **_split_object(usage), "output_tokens": min(1, usage.output_tokens)}
    say("message_start", {"message": _message(model, [], None, opening)})
    for index, block in enumerate(_blocks(reply)):
        kind = block["type"]
        say("content_block_start", {"index": index, "content_block": {**block, **_EMPTY[kind]}})
        if index == 0:
            say("ping", {})
        if kind == "text":
            for text in reply.pieces:
                delta = {"type": "text_delta", "text": text}
                say("content_block_delta", {"index": index, "delta": delta}, piece=True)
        elif kind == "thinking":
            delta = {"type": "thinking_delta", "thinking": block["thinking"]}
            say("content_block_delta", {"index": index, "delta": delta})
            delta = {"type": "signature_delta", "signature": block["signature"]}
            say("content_block_delta", {"index": index, "delta": delta})
        else:
            for text in split(dumps(block["input"]).decode(), reply.chunks):
                delta = {"type": "input_json_delta", "partial_json": text}
                say("content_block_delta", {"index": index, "delta": delta}, piece=True)
        say("content_block_stop", {"index": index})
    stop = {"stop_reason": _STOPS[reply.ending], "stop_sequence": None}
    say("message_delta", {"delta": stop, "usage": {**_input_object(usage), **_output_object(usage)}})
    say("message_stop", {})
    return out


_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_object(error: ErrorReply) -> Json:
    message = error.message or f"The loopback provider was told to answer with status {error.status}."
    kind = error.type or _ERRORS.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{ID}"}


def error_event(error: ErrorReply) -> bytes:
    return b"event: error\ndata: %s\n\n" % dumps(error_object(error))
