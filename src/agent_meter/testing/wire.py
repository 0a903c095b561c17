"""Bytes that all dialects share: JSON, server-sent events, HTTP framing.

An answer is encoded once and sent many times, so everything that differs from one request to the next is the
response id. It stands in the bytes as a marker of the same length, for then the chunk sizes stay right.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

ID = "id-of-this-loopback-call"  # 24 characters, as every id that replaces it
_ID = ID.encode()


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def call_id(prefix: str, number: int, given: str | None) -> str:
    return given or f"{prefix}_{ID}_{number}"


class Events:
    """A stream of server-sent events in the making.

    `pieces` are the places of those that carry a piece of the answer (text or tool arguments), for only these
    are counted where a stream is to be cut.
    """

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.pieces: list[int] = []

    def add(self, data: Json, name: str | None = None, *, piece: bool = False) -> None:
        if piece:
            self.pieces.append(len(self.frames))
        head = b"event: %s\n" % name.encode() if name else b""
        self.frames.append(head + b"data: %s\n\n" % dumps(data))

    def upto(self, after: int) -> list[bytes]:
        """The events before piece number `after`, counted from 0; never more than up to the last piece."""
        if not self.pieces:
            return self.frames[:1]
        if after < len(self.pieces):
            return self.frames[: self.pieces[after]]
        return self.frames[: self.pieces[-1] + 1]


def chunked(data: bytes) -> bytes:
    """One chunk of HTTP's chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def stamp(data: bytes, response_id: str) -> bytes:
    return data.replace(_ID, response_id.encode())


def head(status: int, content_type: str, *fields: tuple[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"content-type: {content_type}"]
    lines += [f"x-request-id: req_{ID}", f"request-id: req_{ID}"]  # OpenAI's name for it, and Anthropic's
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 410: "Gone",
    413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable", 529: "Overloaded",
}  # fmt: skip


def whole(status: int, body: bytes, *fields: tuple[str, str]) -> bytes:
    """A complete JSON response."""
    return head(status, "application/json", ("content-length", str(len(body))), *fields) + body


STREAM_HEAD = head(
    200, "text/event-stream; charset=utf-8", ("cache-control", "no-cache"), ("transfer-encoding", "chunked")
)
