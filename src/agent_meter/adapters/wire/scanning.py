"""Bodies, read on the side as they pass: what can carry usage is kept, the rest is counted and let go.

A chunk costs one append. What has gathered is looked at every `LOOK_AT` bytes: an event that only carries text is
dropped unparsed. What is kept is parsed once, when the call is closed, by the readers of `payloads`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

LOOK_AT = 1 << 16
MOST_KEPT = 1 << 24  # bytes of one body that are held at once: more than any answer of text
FEW = 64  # events of text that are kept of a stream in words that nobody here knows


class TooLong(ValueError):
    """A body that is not held in memory: nothing is read of it."""


class Whole:
    """A body that is one document: its chunks are kept, and parsed at the end."""

    streams = False

    def __init__(self, decode: Callable[[bytes], bytes] | None = None) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.content = 0
        self._decode = decode
        self.feed = self._feed

    def _feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > MOST_KEPT:
            self.chunks.clear()
        else:
            self.chunks.append(chunk)

    def as_it_is(self) -> None:
        """It is decoded already."""
        self._decode = None

    def kept(self) -> bytes:
        if self.size > MOST_KEPT:
            raise TooLong(f"a body of {self.size:,} bytes, of which {MOST_KEPT:,} are held at most")
        data = b"".join(self.chunks)
        return data if self._decode is None else self._decode(data)


class Unheard(Whole):
    """A body that is no document at all, such as sound: counted."""

    def _feed(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def kept(self) -> bytes:
        return b""


class Events(Whole):
    """A body that is a stream of events. `content` counts those that carried text: one token each, at least."""

    streams = True
    between = b"\n\n"

    def __init__(self, decode: Callable[[bytes], bytes] | None = None, dialect: str = "") -> None:
        super().__init__(decode)
        self._worth = _WORTH.get(dialect, _unknown)
        # Each with its place in the stream.
        self._events: list[tuple[int, bytes]] = []
        self._usage: list[tuple[int, bytes]] = []  # running totals: the last that counts wins
        self._other: list[tuple[int, bytes]] = []
        self._last = (0, b"")
        self._rest = b""
        self._gathered = 0
        self._held = 0

    def _feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._gathered += len(chunk)
        if self._gathered > LOOK_AT:
            self.look()

    def look(self) -> None:
        """Sort what has gathered into what is kept and what is not."""
        chunks = self.chunks
        if not chunks:
            return
        data = b"".join(chunks)
        chunks.clear()
        self.size += len(data)
        self._gathered = 0
        if self._decode is not None:
            data = self._decode(data)
        for event in self._split(self._rest + data if self._rest else data):
            self._sort(event)
        if self._held + len(self._rest) > MOST_KEPT:
            raise TooLong(f"a stream of which more than {MOST_KEPT:,} bytes would have to be held")

    def _split(self, data: bytes) -> list[bytes]:
        if b"\r" in data:
            held = data[-1:] if data.endswith(b"\r") else b""  # half a line end
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        events = data.split(self.between)
        self._rest = events.pop()
        return events

    def _sort(self, event: bytes) -> None:
        if not event or event == b"\n":
            return
        worth = self._worth(event) if self._events else KEEP
        placed = self._last = (self._last[0] + 1, event)
        if worth == KEEP:
            self._events.append(placed)
            self._held += len(event)
            return
        self.content += worth != SKIP
        if worth == TOTAL:
            self._usage.append(placed)
            if len(self._usage) > FEW:
                self._usage = [last_that_counts(self._usage), placed]
        elif worth == PERHAPS:
            self._other.append(placed)
            if len(self._other) > 2 * FEW:
                del self._other[FEW:-FEW]

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


def _chat(event: bytes) -> int:
    if (
        b'"name"' in event
        or b'finish_reason":"' in event
        or b'finish_reason": "' in event
        or b'"error"' in event
        or b"x_groq" in event
        or b'"choices":[]' in event
        or b'"choices": []' in event
    ):
        return KEEP
    if b'"usage":{' in event or b'"usage": {' in event:
        return TOTAL
    return SKIP if b"[DONE]" in event[:14] or event[:1] == b":" else DROP


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
