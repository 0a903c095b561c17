"""One HTTP request for a model call, and what came back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ...records import EMPTY, Attempt, Call
from ..failing import unreached
from ..payloads import Reading, read
from .decoding import decoder
from .endpoints import Endpoint
from .scanning import LOOK_AFTER, AwsEvents, Events, Lines, Unheard, Whole, first_words

if TYPE_CHECKING:
    from .asking import Asked

# The last events of the vendors' streams.
LAST_WORDS = (
    b"[DONE]",
    b"message_stop",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b'"done":true',
    b'"done": true',
    b"message-end",
    b"stream-end",
    b"interaction.complete",
    b"nvocationMetrics",
)
_clock = time.perf_counter


class Exchange:
    """One HTTP request for a model call, from before it is sent to the end of its answer.

    `calls` are those that it is an answer to.
    """

    __slots__ = (
        "_heard",
        "_reading",
        "_said_all",
        "asked",
        "began",
        "body",
        "calls",
        "cut",
        "ended",
        "endpoint",
        "error_type",
        "failed_to",
        "first_byte",
        "headers",
        "request",
        "retry_after",
        "status",
        "unreached",
        "waited",
    )

    def __init__(self, endpoint: Endpoint, asked: Asked) -> None:
        self.endpoint = endpoint
        self.asked = asked
        self.calls: list[Call] = []
        self.request: Any = None  # the body that was sent, until the answer is there
        self.body: Whole | None = None
        self.began = _clock()
        self.first_byte: float | None = None
        self.ended: float | None = None
        self.status: int | None = None
        self.retry_after: float | None = None
        self.headers: Mapping[str, str] = EMPTY
        self.error_type: str | None = None
        self.unreached = False
        self.cut = False  # the body failed, or was closed before its end
        self.waited = 0.0
        self.failed_to: Callable[[str, Exception], None] | None = None
        self._reading: Reading | None = None
        self._said_all = False
        self._heard = 0

    # ------------------------------------------------------------------------------------- told by a transport

    def head(self, status: int, headers: Mapping[str, str], encoding: str | None = None) -> None:
        """The answer begins. `headers` are asked for in lower case; `encoding` is given if it is not as they say."""
        self.first_byte = _clock()
        self.status = status
        if status >= 300:
            self.retry_after = _seconds(headers)
        kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
        if "bedrock" in self.endpoint.dialect:
            self.headers = {name: value for name, value in headers.items() if "bedrock" in name.lower()}
        if encoding is None:
            encoding = headers.get("content-encoding") or ""
        decode = decoder(encoding) if encoding else None
        dialect = self.endpoint.dialect
        if status >= 300:
            self.body = Whole(decode)
        elif kind == "text/event-stream":
            self.body = Events(decode, dialect)
        elif kind == "application/vnd.amazon.eventstream":
            self.body = AwsEvents(decode, dialect)
        elif kind in ("application/x-ndjson", "application/stream+json", "application/jsonl"):
            self.body = Lines(decode, dialect)
        elif kind.startswith(("audio/", "image/", "video/", "application/octet-stream")):
            self.body = Unheard(decode)
        else:
            self.body = Whole(decode)
        if self.body.streams:
            for call in self.calls:
                call.streamed = True
            self._until_first_token(self.body, decode is not None)

    def _until_first_token(self, body: Whole, compressed: bool) -> None:
        words = () if compressed else first_words(self.endpoint.dialect)
        plain = body.feed

        def feed(chunk: bytes) -> None:
            if not words or any(
                word in chunk and (word[-1:] != b'"' or chunk[chunk.find(word) + len(word) :][:1] != b'"')
                for word in words
            ):
                body.feed = plain
                for call in self.calls:
                    if call.first_token_at is None and call.joining is not None:
                        call.first_token_at = call.joining.clock()
            plain(chunk)

        body.feed = feed

    def hear(self, chunk: bytes) -> None:
        """Another piece of the body. Raises nothing."""
        body = self.body
        if body is None:
            return
        body.feed(chunk)
        self._heard += 1
        if not self._heard % LOOK_AFTER:
            self.look()

    def look(self) -> Whole:
        """Sort what has gathered; the body to go on with. Raises nothing."""
        assert self.body is not None
        try:
            self.body.look()
        except Exception as error:
            return self.unreadable(error)
        return self.body

    def end(self) -> None:
        """The body came to its end."""
        if self.ended is not None:
            return
        self.ended = _clock()
        for call in self.calls:
            wire = call.wire
            if wire is not None and wire.on_end is not None:
                wire.on_end(self)
        self.request = None

    def closed(self) -> None:
        """The client has had enough."""
        if self.ended is None:
            self.cut = True
            self.end()

    def failed(self, error: BaseException) -> None:
        """No answer came, or its body failed."""
        if self.ended is None:
            self.error_type = type(error).__name__
            self.unreached = self.status is None and unreached(error)
            self.cut = self.status is not None
            self.end()

    def begins(self, status: int, headers: Mapping[str, str], encoding: str | None = None) -> None:
        """`head`, fenced."""
        try:
            self.head(status, headers, encoding)
        except Exception as error:
            self.unreadable(error)

    def said(self, content: bytes) -> None:
        """The whole body at once, decoded."""
        self.hear(content)
        self.end()

    def unreadable(self, error: Exception) -> Whole:
        """The body cannot be read on the side; it passes all the same."""
        self.complain("body", error)
        self.body = Unheard()
        return self.body

    def complain(self, what: str, error: Exception) -> None:
        if self.failed_to is not None:
            self.failed_to(what, error)

    # --------------------------------------------------------------------------------------- asked by the joining

    @property
    def answered(self) -> bool:
        """The provider has begun to answer, and the body has not failed. A client that has had enough was answered."""
        return self.status is not None and self.status < 300 and self.error_type is None

    @property
    def refused(self) -> bool:
        return self.unreached or (self.status is not None and self.status >= 300)

    @property
    def finished(self) -> bool:
        """All of the answer came. Some clients close a stream after its last event, before its end."""
        return self.ended is not None and (not self.cut or (self.error_type is None and self._said_all))

    def attempt(self) -> Attempt:
        error_type = self.error_type
        if error_type is None and self.status is not None:
            reading = self.reading()
            error_type = reading.error_type if reading is not None else None
            if error_type is None and self.status >= 300:
                error_type = f"HTTP {self.status}"
        return Attempt(
            self.status,
            (self.ended or _clock()) - self.began,
            self.retry_after,
            error_type,
            self.waited,
            None if self.first_byte is None else self.first_byte - self.began,
        )

    def reading(self) -> Reading | None:
        """What the body says, as far as it has come. Read once, when it is whole."""
        if self._reading is not None:
            return self._reading
        body = self.body
        if body is None:
            return None
        try:
            kept = body.kept()
            self._said_all = body.streams and any(word in kept[-4096:] for word in LAST_WORDS)
            if self.ended is None or self.cut:
                kept = b"" if not body.streams and kept[:1] == b"{" else kept  # half a document
            found = read(kept, self.endpoint.provider, api=self.endpoint.dialect, headers=self.headers or None)
        except Exception as error:  # a body that is too long, or not what its headers say
            found = Reading()
            self.complain("body", error)
        if body.content and self.status is not None and self.status < 300 and "output_tokens" in found.usage.missing:
            # Each event that carried text was a token at least.
            usage = found.usage
            found = replace(found, usage=replace(usage, output_tokens=max(usage.output_tokens, body.content)))
        if self.ended is not None:
            self._reading = found
            self.body = None
        return found


def _seconds(headers: Mapping[str, str]) -> float | None:
    """How long the provider asks to wait."""
    try:
        if millis := headers.get("retry-after-ms"):
            return float(millis) / 1000
        if not (word := headers.get("retry-after")):
            return None
        if word.strip().replace(".", "", 1).isdecimal():
            return float(word)
        return max(0.0, (parsedate_to_datetime(word) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def since(exchanges: Iterable[object], now: float) -> float:
    """How long the client waited since the attempt before."""
    ends = [e.ended for e in exchanges if isinstance(e, Exchange) and e.ended is not None]
    return max(0.0, now - max(ends)) if ends else 0.0
