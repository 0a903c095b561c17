"""Bodies, read on the side as they pass: what can carry usage is kept, the rest is counted and let go.

A chunk costs one append. What has gathered is looked at every `LOOK_AFTER` chunks: an event that only carries text is
let go. What is kept is parsed once, when the call is closed, by the readers of `payloads`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import msgspec

LOOK_AFTER = 64  # chunks
MOST_KEPT = 1 << 24  # bytes of one body that are held at once: more than any answer of text
FEW = 64  # events of text that are kept of a stream in words that nobody here knows


class TooLong(ValueError):
    """A body that is not held in memory: nothing is read of it."""


class Whole:
    """A body that is one document: its chunks are kept, and parsed at the end."""

    streams = False

    def __init__(self, decode: Callable[[bytes], bytes] | None = None) -> None:
        self.chunks: list[bytes] = []
        self.content = 0
        self.feed: Callable[[bytes], None] = self.chunks.append
        self._decode = decode

    def as_it_is(self) -> None:
        """It is decoded already."""
        self._decode = None

    def look(self) -> None:
        """Called every `LOOK_AFTER` chunks. Raises `TooLong`."""
        size = sum(map(len, self.chunks))
        if size > MOST_KEPT:
            raise TooLong(f"a body of more than {size:,} bytes, of which {MOST_KEPT:,} are held at most")

    def kept(self) -> bytes:
        data = b"".join(self.chunks)
        return data if self._decode is None else self._decode(data)


def _nothing(chunk: bytes) -> None: ...


class Unheard(Whole):
    """A body that is no document at all, such as sound."""

    def __init__(self, decode: Callable[[bytes], bytes] | None = None) -> None:
        super().__init__(decode)
        self.feed = _nothing


class Events(Whole):
    """A body that is a stream of events. `content` counts those that carried text: one token each, at least."""

    streams = True
    between = b"\n\n"

    def __init__(self, decode: Callable[[bytes], bytes] | None = None, dialect: str = "") -> None:
        super().__init__(decode)
        self._worth = _WORTH.get(dialect, _unknown)
        self._number = 0
        # Each with its place in the stream.
        self._events: list[tuple[int, bytes]] = []
        self._usage: list[tuple[int, bytes]] = []  # running totals: the last that counts wins
        self._other: list[tuple[int, bytes]] = []
        self._last = (0, b"")
        self._rest = b""
        self._held = 0

    def look(self) -> None:
        """Sort what has gathered into what is kept and what is not."""
        chunks = self.chunks
        if not chunks:
            return
        data = b"".join(chunks)
        chunks.clear()
        if self._decode is not None:
            data = self._decode(data)
        worth, number, content = self._worth, self._number, 0
        event = b""
        for event in self._split(self._rest + data if self._rest else data):
            number += 1
            value = worth(event)
            if value == DROP:
                content += 1
                if self._events:
                    continue
            if (event and value != DROP) or not self._events:
                content += self._keep(number, event, value)
        self._number = number
        self.content += content
        if event:
            self._last = (number, event)
        if self._held + len(self._rest) > MOST_KEPT:
            raise TooLong(f"a stream of which more than {MOST_KEPT:,} bytes would have to be held")

    def _keep(self, number: int, event: bytes, worth: int) -> int:
        """Put an event where it belongs; 1 if it carried text."""
        if worth == KEEP or not self._events:
            self._events.append((number, event))
            self._held += len(event)
            return 0
        if worth == TOTAL:
            self._usage.append((number, event))
            if len(self._usage) > FEW:
                self._usage = [last_that_counts(self._usage), (number, event)]
            return 1
        if worth == PERHAPS:
            self._other.append((number, event))
            if len(self._other) > 2 * FEW:
                del self._other[FEW:-FEW]
            return 1
        return 0

    def _split(self, data: bytes) -> list[bytes]:
        if b"\r" in data:
            held = data[-1:] if data.endswith(b"\r") else b""  # half a line end
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        events = data.split(self.between)
        self._rest = events.pop()
        return events

    def kept(self) -> bytes:
        self.look()
        found = sorted({*self._events, *self._other, *self._usage, self._last})
        return self.between.join([*(event for _, event in found), self._rest]) + self.between


class Lines(Events):
    """A document a line: Ollama, Cohere's first version."""

    between = b"\n"


class AwsEvents(Events):
    """AWS's binary frames, each with its length in front."""

    between = b""

    def _split(self, data: bytes) -> list[bytes]:
        found, at = [], 0
        while at + 16 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            if length < 16:
                raise ValueError(f"a frame of {length} bytes in an AWS event stream")
            if at + length > len(data):
                break
            found.append(data[at : at + length])
            at += length
        self._rest = data[at:]
        return found


# ------------------------------------------------------------------------------------------------ what is worth keeping

KEEP, TOTAL, PERHAPS, DROP, SKIP = range(5)  # the last one carries no text either


class _Delta(msgspec.Struct, gc=False):
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: Any = None
    delta: _Delta | None = None


class _Chunk(msgspec.Struct, gc=False):
    """Of a chat's chunk, what decides whether it is kept: decoding these alone is cheaper than to look for words."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_chunk = msgspec.json.Decoder(_Chunk).decode


def _chat(event: bytes) -> int:
    try:
        told = _chunk(event[6:] if event[:6] == b"data: " else event[event.find(b"data:") + 5 :])
    except (msgspec.DecodeError, UnicodeError):
        return SKIP if b"[DONE]" in event[:14] or event[:1] == b":" or not event.strip() else KEEP
    choices = told.choices
    if not choices or told.error is not None or told.x_groq is not None:
        return KEEP
    for choice in choices:
        if choice.finish_reason is not None:
            return KEEP
        delta = choice.delta
        if delta is not None and (delta.tool_calls or delta.function_call) and b'"name"' in event:
            return KEEP
    return DROP if told.usage is None else TOTAL


def _anthropic(event: bytes) -> int:
    head = event[:90]
    if b"content_block_delta" in head:
        return DROP
    return SKIP if b"content_block_stop" in head or b"ping" in head else KEEP


def _responses(event: bytes) -> int:
    if b".delta" in (head := event[:90]):
        return DROP
    if b"output_item.done" in head or (b"response.c" in head and b"content_part" not in head and b"code_" not in head):
        return KEEP
    if b"response.failed" in head or b"response.incomplete" in head or b"error" in head:
        return KEEP
    return SKIP if b"response." in head else KEEP


def _gemini(event: bytes) -> int:
    if b"unctionCall" in event or b"roundingMetadata" in event or b"inishReason" in event or b'"error"' in event:
        return KEEP
    return TOTAL if b"sageMetadata" in event else DROP


def _interactions(event: bytes) -> int:
    return DROP if b".delta" in event[:120] else KEEP


def _converse(event: bytes) -> int:
    if b"contentBlockDelta" in event[:160]:
        return DROP
    return SKIP if b"contentBlockStop" in event[:160] else KEEP


def _invoke(event: bytes) -> int:
    """The model's own events are in base64 inside."""
    start = event.find(b'"bytes":"')
    if start < 0:
        return KEEP
    end = event.find(b'"', start + 9)
    try:
        inner = b64decode(event[start + 9 : end])
    except ValueError:
        return KEEP
    if inner.startswith(b'{"type":"content_block_delta"') or b'"content_block_delta"' in inner[:80]:
        return DROP
    if b"nvocationMetrics" in inner or b'"type":"' in inner[:60] or b"contentBlockStart" in inner:
        return KEEP
    return DROP if b"contentBlockDelta" in inner[:80] else PERHAPS


def _ollama(event: bytes) -> int:
    if b'"done":true' in event or b'"done": true' in event or b"tool_calls" in event or b'"error"' in event:
        return KEEP
    return DROP


def _cohere(event: bytes) -> int:
    return DROP if b"content-delta" in event[:120] or b"text-generation" in event[:400] else KEEP


def _unknown(event: bytes) -> int:
    return TOTAL if b'sage"' in event or b"oken" in event else PERHAPS


_WORTH: dict[str, Callable[[bytes], int]] = {
    "openai.chat": _chat,
    "openai.completions": _chat,
    "anthropic.messages": _anthropic,
    "openai.responses": _responses,
    "gemini.generateContent": _gemini,
    "gemini.interactions": _interactions,
    "bedrock.converse": _converse,
    "bedrock.invoke": _invoke,
    "ollama.chat": _ollama,
    "cohere.chat": _cohere,
}


def last_that_counts(events: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    """Of running totals the last one that is not empty: some servers end with zeros."""
    for placed in reversed(events):
        numbers = placed[1].rpartition(b"sage")[2].split(b":")
        if any(number.lstrip()[:1] in _DIGITS for number in numbers[1:] if number.strip()):
            return placed
    return events[-1]


_DIGITS = tuple(b"%d" % digit for digit in range(1, 10))


def first_words(dialect: str) -> tuple[bytes, ...]:
    """What an event that carries text has in it, in these words."""
    return _TEXT.get(dialect, ())


_TEXT: dict[str, tuple[bytes, ...]] = {
    "openai.chat": (b'"content":"', b'"content": "', b'"tool_calls"', b'"reasoning', b'"text":"'),
    "openai.completions": (b'"text":', ),
    "anthropic.messages": (b"content_block_delta", b'"completion":'),
    "openai.responses": (b".delta",),
    "gemini.generateContent": (b"candidates",),
    "gemini.interactions": (b".delta",),
    "bedrock.converse": (b"contentBlockDelta",),
    "bedrock.invoke": (b"chunk",),
    "ollama.chat": (b"{",),
    "cohere.chat": (b"content-delta", b"text-generation"),
}  # fmt: skip
