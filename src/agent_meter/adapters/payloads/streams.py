"""Streams: from the bytes on the wire to events, and from events to the one answer that they make.

Each dialect is folded into the body that it would have been without streaming, so that one reader reads both.
Usage in many chunks is a running total: the last one wins, nothing is ever added up. A stream that was cut is
read as far as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from . import anthropic, google, others
from .fields import CUT, Fields, fields, items, number, text

Fold = Callable[[list[Fields]], Fields]

CONVERSE = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop")
TITAN = ("inputTextTokenCount", "totalOutputTextTokenCount", "outputText")


# ------------------------------------------------------------------------------------------------ the wire


def parse(data: str | bytes | bytearray | memoryview) -> Any:
    """A recorded answer: a JSON body, or the list of events of an SSE, NDJSON or AWS event stream.

    `None` for what is none of these (audio, an empty body).
    """
    if not isinstance(data, str):
        data = bytes(data)
        if data[:1] == b"\0":
            return list(aws_events(data))
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError):
        pass
    words = data if isinstance(data, str) else data.decode("utf-8", "replace")
    if "data:" in words and words.lstrip()[:1] not in ("{", "["):
        return list(sse_events(words))
    return list(json_values(words)) or None


def sse_events(words: str) -> Iterator[Any]:
    """The JSON of each server-sent event. What is no JSON (`[DONE]`, a comment, a cut last event) is left out."""
    lines: list[str] = []
    for line in (*words.splitlines(), ""):
        if line.startswith("data:"):
            lines.append(line[5:].lstrip())
        elif not line and lines:
            try:
                yield msgspec.json.decode("\n".join(lines))
            except (msgspec.DecodeError, UnicodeError):
                # Some servers leave out the blank line between events.
                for one in lines:
                    yield from json_values(one)
            lines = []


def json_values(words: str) -> Iterator[Any]:
    """JSON values one after the other, a line each, or as the elements of an array that may have been cut."""
    import json

    decode = json.JSONDecoder().raw_decode
    at = 0
    while at < len(words):
        if words[at] in " \t\r\n,[]":
            at += 1
            continue
        try:
            value, at = decode(words, at)
        except (ValueError, RecursionError):
            at = words.find("\n", at) + 1 or len(words)
        else:
            if not isinstance(value, (int, float, str)):
                yield value


def aws_events(data: bytes) -> Iterator[Any]:
    """The events of an `application/vnd.amazon.eventstream`, in the shape that boto3 gives them.

    A message is: its length, the headers' length, a checksum (4 bytes each), headers, payload, a checksum.
    """
    at = 0
    while at + 16 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 16 or at + length > len(data):
            return
        split = at + 12 + int.from_bytes(data[at + 4 : at + 8], "big")
        headers = dict(_aws_headers(data[at + 12 : split]))
        payload = data[split : at + length - 4]
        try:
            value = msgspec.json.decode(payload) if payload else {}
        except (msgspec.DecodeError, UnicodeError):
            value = {}
        if headers.get(":message-type", "event") == "event":
            yield {headers.get(":event-type", ""): value}
        else:
            kind = headers.get(":exception-type") or headers.get(":error-code") or "error"
            yield {"error": {"type": kind}}
        at += length


def _aws_headers(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        size = data[at]
        name = data[at + 1 : at + 1 + size].decode("ascii", "replace")
        at += 1 + size
        if at >= len(data) or data[at] != 7:  # not a string: nothing that is read here
            return
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield name, data[at + 3 : at + 3 + length].decode("utf-8", "replace")
        at += 3 + length


# ----------------------------------------------------------------------------------------------- one answer


def fold(events: Sequence[object]) -> Fields:
    """The body that a list of stream events amounts to."""
    seen = [_bare(fields(event)) for event in events]
    for event in seen:
        how = kind_of(event)
        if how is not None:
            return how(seen)
    return _last_told(seen)


def _bare(event: Fields) -> Fields:
    """An event out of the wrapping that some SDKs (Mistral's) give it."""
    if event.get("choices") is None and event.get("type") is None:
        inner = event.get("data")
        if inner is not None and fields(inner).get("choices") is not None:
            return fields(inner)
    return event


def kind_of(event: Fields) -> Fold | None:
    """How a stream with this event in it is folded; `None` when the event does not tell."""
    get = event.get
    kind = get("type")
    if isinstance(kind, str):
        if kind.startswith(("message_", "content_block_")):
            return anthropic.fold
        if kind.startswith("response."):
            return fold_responses
        if kind in ("message-start", "message-end", "content-start", "content-delta", "tool-call-start"):
            return others.fold_cohere
    named = get("event_type")
    if isinstance(named, str):
        if named.startswith(("interaction.", "step.", "content.")):
            return google.fold_interaction
        if named in ("stream-start", "text-generation", "stream-end", "tool-calls-generation"):
            return others.fold_cohere
    if get("choices") is not None or get("x_groq") is not None:
        return fold_chat
    if get("candidates") is not None or google.pick(event, "usageMetadata", "usage_metadata") is not None:
        return google.fold
    if any(get(name) is not None for name in CONVERSE) or fields(get("metadata")).get("usage") is not None:
        return others.fold_converse
    if get("chunk") is not None:
        return fold_invoke
    if isinstance(get("done"), bool):
        return others.fold_ollama
    if any(get(name) is not None for name in TITAN) or get("generation") is not None:
        return _merged
    return None


def fold_chat(events: list[Fields]) -> Fields:
    """Chat and text completion chunks; Groq's usage is in `x_groq`."""
    whole: dict[str, object] = {}
    calls: dict[tuple[object, object], dict[str, object]] = {}
    usage: object = None
    started = ended = False
    for event in events:
        for name in ("id", "model", "service_tier"):
            if text(value := event.get(name)):
                whole[name] = value
        u = event.get("usage")
        if u is None:
            u = fields(event.get("x_groq")).get("usage")
        if u is not None and (usage is None or _counts(u)):
            usage = u
            ended = ended or not event.get("choices")  # a chunk of usage alone is the last one
        if event.get("error") is not None:
            whole["error"] = event.get("error")
        for choice in items(event.get("choices")):
            c = fields(choice)
            started = True
            ended = ended or c.get("finish_reason") is not None
            for part in (c.get("delta"), c.get("message")):
                _collect_calls(fields(part), c.get("index"), calls)
    whole["choices"] = [{"message": {"tool_calls": list(calls.values())}}]
    whole["usage"] = usage
    whole[CUT] = started and not ended
    return whole


def _collect_calls(part: Fields, choice: object, calls: dict[tuple[object, object], dict[str, object]]) -> None:
    """Tool calls arrive in pieces under an index; some gateways give each call index 0 and a new id."""
    pieces = items(part.get("tool_calls"))
    old = part.get("function_call")
    for place, piece in enumerate(pieces):
        p = fields(piece)
        index = p.get("index")
        key = (str(choice), str(place if index is None else index))
        known = calls.get(key)
        new_id = text(p.get("id"))
        if known is not None and new_id and known["id"] not in (None, new_id):
            key = (key[0], new_id)
            known = calls.get(key)
        name = text(fields(p.get("function") or p.get("custom")).get("name"))
        if known is None:
            calls[key] = {"id": new_id, "function": {"name": name}}
        elif name and fields(known["function"]).get("name") is None:
            known["function"] = {"name": name}
    if old is not None and (name := text(fields(old).get("name"))):
        calls.setdefault((str(choice), "function_call"), {"id": None, "function": {"name": name}})


def _counts(u: object) -> bool:
    """Whether a usage object holds any count above zero: an empty one does not undo what was said before."""
    f = fields(u)
    return any(number(f.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


def fold_responses(events: list[Fields]) -> Fields:
    """Events of the Responses API: the last response is the answer, finished, failed or cut short."""
    whole: dict[str, object] = {"object": "response"}
    done: list[object] = []
    for event in events:
        told = event.get("response")
        if told is not None:
            f = fields(told)
            for name in ("id", "model", "usage", "service_tier", "output", "tool_usage", "status", "error"):
                if (value := f.get(name)) is not None:
                    whole[name] = value
        kind = event.get("type")
        if kind == "response.output_item.done" and (item := event.get("item")) is not None:
            done.append(item)
        elif kind == "error":
            whole["error"] = event.get("error") or {"type": event.get("code")}
    if not whole.get("output"):
        whole["output"] = done
    return whole


def fold_invoke(events: list[Fields]) -> Fields:
    """Bedrock's invoke stream: the model's own events, each as bytes in a chunk."""
    inner: list[object] = []
    error: object = None
    metrics: object = None
    for event in events:
        error = event.get("error") or error
        data = fields(event.get("chunk")).get("bytes")
        value = parse(_bytes(data))
        if isinstance(value, dict):
            inner.append(value)
            metrics = value.get("amazon-bedrock-invocationMetrics") or metrics
    whole = fold(inner)
    return _Over(whole, {"error": error, "amazon-bedrock-invocationMetrics": metrics})


def _bytes(data: object) -> bytes:
    """The bytes of a chunk: as boto3 gives them, or as base64 on the wire. What is neither is empty."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    from base64 import b64decode

    try:
        return b64decode(data) if isinstance(data, str) else b""
    except ValueError:
        return b""


def _merged(events: list[Fields]) -> Fields:
    """Events whose counts come in any of them (Titan, Llama): the last of each."""
    names = (*TITAN, "prompt_token_count", "generation_token_count")
    whole: dict[str, object] = {}
    for event in events:
        for name in names:
            if (value := event.get(name)) is not None:
                whole[name] = value
    return whole


def _last_told(events: list[Fields]) -> Fields:
    """A stream of no known kind: the last event that has usage, else the last one; an error is kept."""
    told = [e for e in events if e.get("usage") is not None]
    failed = next((e.get("error") for e in reversed(events) if e.get("error") is not None), None)
    last: Fields = told[-1] if told else events[-1] if events else {}
    return last if failed is None else _Over(last, {"error": failed})


class _Over:
    """One mapping laid over another; `None` covers nothing."""

    __slots__ = ("_above", "_below")

    def __init__(self, below: Fields, above: dict[str, object]) -> None:
        self._below = below
        self._above = above

    def get(self, name: str, /) -> Any:
        value = self._above.get(name)
        return self._below.get(name) if value is None else value
