"""The one event that only came because we asked for it is taken out again: the application sees what it saw before."""

from __future__ import annotations

import msgspec

_FINISHED = (b'"finish_reason":"', b'"finish_reason": "')
_EMPTY = (b'"choices":[]', b'"choices": []')


class Swallow:
    """Takes the last event of a chat stream out, the one with usage and without choices.

    It comes after the one that says why the answer ended. Until then every byte passes at once; from there on, an event
    passes when it is whole.
    """

    def __init__(self) -> None:
        self._tail = b""  # of an event that is not whole yet; it has passed
        self._held = b""  # the same, which has not
        self._ending = False

    def feed(self, chunk: bytes) -> bytes:
        """What of this chunk passes now."""
        if self._ending:
            return self._without(self._held + chunk, 0)
        data = self._tail + chunk
        whole = _whole(data)
        if not whole:
            self._tail = data
            return chunk
        if any(word in data[:whole] for word in _FINISHED):
            self._ending = True
            return self._without(data, len(self._tail))
        self._tail = data[whole:]
        return chunk

    def rest(self) -> bytes:
        """What is held when the stream ends."""
        held, self._held = self._held, b""
        return held

    def _without(self, data: bytes, passed: int) -> bytes:
        """`data` without the event; so much of its beginning has passed already. An unfinished event is held."""
        out, at = b"", 0
        while end := _whole(data, at, first=True):
            event = data[at:end]
            if at < passed or not is_extra(event):
                out += data[max(at, passed) : end]
            at = end
        self._held = data[at:]
        return out


def _whole(data: bytes, at: int = 0, *, first: bool = False) -> int:
    """Where the last (or the first) whole event ends; 0 if there is none."""
    ends = [
        found + len(between)
        for between in (b"\n\n", b"\r\n\r\n")
        if (found := data.find(between, at) if first else data.rfind(between, at)) >= 0
    ]
    return (min(ends) if first else max(ends)) if ends else 0


def is_extra(event: bytes) -> bool:
    if not any(word in event for word in _EMPTY):
        return False
    try:
        told = msgspec.json.decode(event.strip().removeprefix(b"data:"))
    except (msgspec.DecodeError, UnicodeError):
        return False
    return isinstance(told, dict) and told.get("choices") == [] and bool(told.get("usage"))
