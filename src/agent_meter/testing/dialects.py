"""From an answer of a script to the bytes of one dialect."""

from __future__ import annotations

import msgspec

from ..records import TokenUsage
from . import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from .replies import Answer, Cut, ErrorReply, Hang, Reply, count_tokens
from .request import Dialect, Request
from .server import Sending
from .wire import LAST_CHUNK, STREAM_HEAD, Events, Json, chunked, dumps, stamp, whole

ENDPOINTS: dict[str, Dialect] = {
    "/chat/completions": "openai.chat",
    "/responses": "openai.responses",
    "/embeddings": "openai.embeddings",
    "/messages": "anthropic.messages",
}
_ENCODINGS_KEPT = 32  # an answer that is served to ever new models must not grow without end


def dialect_of(path: str) -> Dialect | None:
    """By the end of the path, so that prefixes (API versions, deployments) are as free as with gateways."""
    return next((dialect for ending, dialect in ENDPOINTS.items() if path.endswith(ending)), None)


def usage_of(reply: Reply, request: Request) -> TokenUsage:
    """What the answer reports, as far as the request's dialect can say it."""
    asked = request.input_tokens if reply.input_tokens is None else 0
    if request.dialect == "openai.embeddings":
        return TokenUsage(asked if reply.input_tokens is None else reply.input_tokens)
    usage = reply.usage(asked, _length(reply) * request.choices if reply.output_tokens is None else 0)
    if request.dialect != "anthropic.messages":
        return msgspec.structs.replace(usage, cache_write_1h_tokens=0)
    return usage


def _length(reply: Reply) -> int:
    said = [reply.text, reply.thinking]
    for tool in reply.tool_calls:
        said += [tool.name, dumps(tool.arguments).decode()]
    return count_tokens("".join(said))


def encode(answer: Answer, request: Request, usage: TokenUsage, response_id: str) -> Sending:
    """The bytes of an answer; `usage` is that of the reply inside it."""
    if isinstance(answer, Hang):
        return Sending((), before=answer.seconds, close=True)
    if isinstance(answer, ErrorReply):
        return Sending((stamp(_error(answer, request.dialect), response_id),))
    reply = answer.told if isinstance(answer, Cut) else answer
    model = reply.model or request.model
    streams = request.stream and request.dialect != "openai.embeddings"
    if isinstance(answer, Cut):
        parts, close = _cut(answer, request, usage, model, streams)
    else:
        key = (
            request.dialect,
            model,
            streams,
            request.choices,
            request.include_usage,
            usage,
            bool(reply.chunk_delay),
        )
        # Vectors depend on what was sent, so only answers that do not are kept.
        kept = None if request.dialect == "openai.embeddings" else reply._encoded.get(key)
        if kept is None:
            kept = _complete(reply, request, usage, model, streams)
            if len(reply._encoded) < _ENCODINGS_KEPT:
                reply._encoded[key] = kept
        parts, close = kept, False
    stamped = tuple([stamp(part, response_id) for part in parts])
    return Sending(stamped, reply.delay, reply.chunk_delay, close)


def _complete(reply: Reply, request: Request, usage: TokenUsage, model: str, streams: bool) -> list[bytes]:
    if not streams:
        return [whole(200, dumps(_document(reply, request, usage, model)))]
    frames = [chunked(frame) for frame in _events(reply, request, usage, model).frames]
    if reply.chunk_delay:
        return [STREAM_HEAD + frames[0], *frames[1:], LAST_CHUNK]
    # One write: still one chunk an event for the client's parser, without a system call for each.
    return [b"".join([STREAM_HEAD, *frames, LAST_CHUNK])]


def _cut(cut: Cut, request: Request, usage: TokenUsage, model: str, streams: bool) -> tuple[list[bytes], bool]:
    reply = cut.told
    if not streams:
        if cut.error:
            return [_error(cut.error, request.dialect)], False
        response = whole(200, dumps(_document(reply, request, usage, model)))
        head = response.index(b"\r\n\r\n") + 4
        return [response[: (head + len(response)) // 2]], True
    frames = [chunked(frame) for frame in _events(reply, request, usage, model).upto(cut.after_chunks)]
    if cut.error:
        frames += [chunked(_error_event(cut.error, request.dialect)), LAST_CHUNK]
    parts = [STREAM_HEAD + frames[0], *frames[1:]]
    return (parts if reply.chunk_delay else [b"".join(parts)]), cut.error is None


def _document(reply: Reply, request: Request, usage: TokenUsage, model: str) -> Json:
    match request.dialect:
        case "openai.chat":
            return openai_chat.document(reply, usage, model, request.choices)
        case "openai.responses":
            return openai_responses.document(reply, usage, model)
        case "anthropic.messages":
            return anthropic_messages.document(reply, usage, model)
        case "openai.embeddings":
            return openai_embeddings.document(usage, model, request.body)


def _events(reply: Reply, request: Request, usage: TokenUsage, model: str) -> Events:
    match request.dialect:
        case "openai.responses":
            return openai_responses.events(reply, usage, model)
        case "anthropic.messages":
            return anthropic_messages.events(reply, usage, model)
        case _:
            return openai_chat.events(reply, usage, model, request.choices, request.include_usage)


def error_response(error: ErrorReply, dialect: Dialect | None) -> Sending:
    return Sending((_error(error, dialect),))


def _error(error: ErrorReply, dialect: Dialect | None) -> bytes:
    room = anthropic_messages if dialect == "anthropic.messages" else openai_chat
    fields: list[tuple[str, str]] = []
    if error.retry_after is not None:
        fields.append(("retry-after", str(-int(-error.retry_after // 1))))
        fields.append(("retry-after-ms", str(max(1, round(error.retry_after * 1000)))))
    if error.should_retry is not None:
        fields.append(("x-should-retry", str(error.should_retry).lower()))
    return whole(error.status, dumps(room.error_object(error)), *fields)


def _error_event(error: ErrorReply, dialect: Dialect) -> bytes:
    if dialect == "anthropic.messages":
        return anthropic_messages.error_event(error)
    if dialect == "openai.responses":
        return openai_responses.error_event(error)
    return openai_chat.error_event(error)
