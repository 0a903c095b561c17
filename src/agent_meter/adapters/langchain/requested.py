"""What Anthropic's streams say once, at their start, and langchain-anthropic drops: told by what was asked for.

The time to live of cache writes, the speed and the place of inference decide the price. A stream that did not ask
for anything but the default got the default; one that asked for several is marked as not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ...records import FrozenMap, TokenUsage
from .flights import Flight

HOUR = "1h"
HOUR_TOKENS = "cache_write_1h_tokens"
AS_ASKED = "streamed: {} is what was asked for"
PRICED = ("speed", "inference_geo")
_DEEPEST = 8


def as_asked(flight: Flight, usage: TokenUsage, kept: Mapping[str, Any]) -> tuple[TokenUsage, tuple[str, ...]]:
    """`usage` of a stream, with what its request tells; the notes say what that is."""
    changes: dict[str, Any] = {}
    notes: list[str] = []
    details = kept.get("input_token_details") or {}
    if usage.cache_write_tokens and not any(key.startswith("ephemeral_") for key in details):
        lives = times_to_live((flight.messages, flight.params))
        if lives == {HOUR}:
            changes[HOUR_TOKENS] = usage.cache_write_tokens
            notes.append(AS_ASKED.format("the time to live of cache writes"))
        elif HOUR in lives:
            changes["missing"] = (*usage.missing, HOUR_TOKENS)
            notes.append("streamed: how many cache writes live for an hour was not seen")
    about = {name: value for name in PRICED if name not in usage.context and (value := _asked_for(flight, name))}
    if about:
        changes["context"] = FrozenMap({**usage.context, **about})
        notes += [AS_ASKED.format(name) for name in about]
    return (msgspec.structs.replace(usage, **changes), tuple(notes)) if changes else (usage, ())


def times_to_live(asked: Any) -> set[str]:
    return set(_times_to_live(asked, 0))


def _times_to_live(value: Any, depth: int) -> Iterator[str]:
    """The `ttl` of every `cache_control` in messages, tools and parameters; five minutes where none is named."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        control = value.get("cache_control")
        if isinstance(control, dict):
            yield str(control.get("ttl") or "5m")
        for inner in value.values():
            if isinstance(inner, (dict, list)):
                yield from _times_to_live(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _times_to_live(inner, depth + 1)
    elif hasattr(value, "additional_kwargs"):  # a message
        yield from _times_to_live(value.content, depth + 1)
        yield from _times_to_live(value.additional_kwargs, depth + 1)


def _asked_for(flight: Flight, name: str) -> str:
    params = flight.params or {}
    for place in (params, params.get("model_kwargs"), flight.made_with):
        if isinstance(place, Mapping) and isinstance(value := place.get(name), str):
            return value.lower()
    return ""
