"""OpenAI chat completions: `prompt_tokens` includes the cached ones, `completion_tokens` the reasoning."""

from __future__ import annotations

import time
from typing import Any

from ..records import TokenUsage
from .replies import ErrorReply, Reply, split
from .wire import ID, Events, Json, call_id, dumps


def usage_object(usage: TokenUsage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call(reply: Reply, choice: int, place: int, arguments: str) -> Json:
    tool = reply.tool_calls[place]
    number = choice * len(reply.tool_calls) + place
    return {
        "id": call_id("call", number, tool.id),
        "type": "function",
        "function": {"name": tool.name, "arguments": arguments},
    }


def document(reply: Reply, usage: TokenUsage, model: str, choices: int) -> Json:
    answers = []
    for choice in range(choices):
        message: Json = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
        if reply.tool_calls:
            message["content"] = reply.text or None
            message["tool_calls"] = [
                _call(reply, choice, place, dumps(tool.arguments).decode())
                for place, tool in enumerate(reply.tool_calls)
            ]
        answers.append({"index": choice, "message": message, "logprobs": None, "finish_reason": reply.ending})
    return {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": answers,
        "usage": usage_object(usage),
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }


def events(reply: Reply, usage: TokenUsage, model: str, choices: int, include_usage: bool) -> Events:
    out = Events()
    frame: Json = {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }
    tail: Json = {"usage": None} if include_usage else {}

    def say(choice: int, delta: Json, finish: str | None = None, *, piece: bool = False) -> None:
        body = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        out.add({**frame, "choices": [body], **tail}, piece=piece)

    for choice in range(choices):
        first: Any = "" if reply.text or not reply.tool_calls else None
        say(choice, {"role": "assistant", "content": first, "refusal": None})
    for text in reply.pieces:
        for choice in range(choices):
            say(choice, {"content": text}, piece=True)
    for choice in range(choices):
        for place, tool in enumerate(reply.tool_calls):
            say(choice, {"tool_calls": [{"index": place, **_call(reply, choice, place, "")}]})
            for text in split(dumps(tool.arguments).decode(), reply.chunks):
                say(choice, {"tool_calls": [{"index": place, "function": {"arguments": text}}]}, piece=True)
    for choice in range(choices):
        say(choice, {}, reply.ending)
    if include_usage:
        out.add({**frame, "choices": [], "usage": usage_object(usage)})
    out.frames.append(b"data: [DONE]\n\n")
    return out


_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", None),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def error_object(error: ErrorReply) -> Json:
    kind, code = _ERRORS.get(error.status, ("server_error", None))
    message = error.message or f"The loopback provider was told to answer with status {error.status}."
    return {"error": {"message": message, "type": error.type or kind, "param": None, "code": code}}


def error_event(error: ErrorReply) -> bytes:
    return b"data: %s\n\n" % dumps(error_object(error))
