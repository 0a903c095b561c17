"""JSON from files: a document a line, or one document that holds many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

_HOLDERS = ("records", "data", "observations")
_decode = msgspec.json.Decoder().decode


def documents(path: str, problem: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Each JSON object in a file, those in lists and in envelopes one by one; what is no JSON is told to `problem`.

    A file of lines is read line by line, whatever its size; a file that is one document is read whole.
    """
    with open(path, "rb") as file:
        first = file.readline()
        while first and not first.strip().removeprefix(b"\xef\xbb\xbf"):
            first = file.readline()
        if not first:
            return
        try:
            found = _decode(first.removeprefix(b"\xef\xbb\xbf"))
        except msgspec.DecodeError:
            file.seek(0)
            try:
                found = _decode(file.read().removeprefix(b"\xef\xbb\xbf"))
            except msgspec.DecodeError:
                file.seek(0)
                # An object over several lines, and then another: what consoles were written to.
                rest = _concatenated(file, problem) if first.strip() in (b"{", b"[") else _lines(file, problem)
                yield from rest
                return
            yield from _objects(found, problem)
            return
        yield from _objects(found, problem)
        yield from _lines(file, problem, 2)


def _lines(file: Any, problem: Callable[[str], None], start: int = 1) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start):
        if not line.strip():
            continue
        try:
            found = _decode(line)
        except msgspec.DecodeError as error:
            problem(f"line {number}: {error}")
            continue
        yield from _objects(found, problem)


def _concatenated(file: Any, problem: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    import json

    text, at, decode = file.read().decode("utf-8", "replace"), 0, json.JSONDecoder().raw_decode
    while (at := _next_sign(text, at)) < len(text):
        try:
            found, at = decode(text, at)
        except ValueError as error:
            problem(f"after {at:,} characters: {error}")
            return
        yield from _objects(found, problem)


def _next_sign(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _objects(found: Any, problem: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    if isinstance(found, list):
        for each in found:
            yield from _objects(each, problem)
    elif not isinstance(found, dict):
        problem(f"not an object: {found!r}"[:100])
    elif "specversion" not in found and (holder := next((n for n in _HOLDERS if isinstance(found.get(n), list)), None)):
        yield from _objects(found[holder], problem)
    else:
        yield found
