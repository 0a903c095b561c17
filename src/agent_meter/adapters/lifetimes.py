"""How long a prompt cache was asked to keep what is written to it, which decides the price of the writes.

Anthropic says it once, at the start of a stream, and frameworks drop that: then the request tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..records import TokenUsage
from .estimating import also_missing
from .payloads.fields import fields

HOUR = "1h"
FIVE_MINUTES = "5m"
HOUR_TOKENS = "cache_write_1h_tokens"
AS_ASKED = "streamed: the time to live of cache writes is what was asked for"
UNSEEN = "streamed: how many cache writes live for an hour was not seen"
_DEEPEST = 8


def by_request(usage: TokenUsage, asked: Any) -> tuple[TokenUsage, tuple[str, ...]]:
    """`usage` with the cache writes that live for an hour: all, if nothing else was asked for, else missing."""
    lives = times_to_live(asked)
    if lives == {HOUR}:
        return msgspec.structs.replace(usage, cache_write_1h_tokens=usage.cache_write_tokens), (AS_ASKED,)
    if HOUR in lives:
        return also_missing(usage, (HOUR_TOKENS,)), (UNSEEN,)
    return usage, ()


def times_to_live(asked: Any) -> set[str]:
    """The `ttl` of every `cache_control` in messages, tools and parameters; five minutes where none is named."""
    return set(_times_to_live(asked, 0))


def _times_to_live(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST or value is None:
        return
    if isinstance(value, Mapping):
        control = value.get("cache_control")
        if control is not None:
            yield _life(control)
        for inner in value.values():
            if isinstance(inner, (Mapping, list)):
                yield from _times_to_live(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _times_to_live(inner, depth + 1)
    elif hasattr(value, "additional_kwargs"):  # a message: LlamaIndex's has blocks
        yield from _times_to_live(value.additional_kwargs, depth + 1)
        yield from _times_to_live(getattr(value, "blocks", None) or getattr(value, "content", None), depth + 1)
    elif (control := getattr(value, "cache_control", None)) is not None:  # a cache point among its blocks
        yield _life(control)


def _life(control: Any) -> str:
    return str(fields(control).get("ttl") or FIVE_MINUTES)
