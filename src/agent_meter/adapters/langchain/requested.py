"""What Anthropic's streams say once, at their start, and langchain-anthropic drops: told by what was asked for.

The time to live of cache writes, the speed and the place of inference decide the price. A stream that did not ask
for anything but the default got the default; one that asked for several is marked as not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...records import FrozenMap, TokenUsage
from ..lifetimes import by_request
from .flights import Flight

PRICED = ("speed", "inference_geo")


def as_asked(flight: Flight, usage: TokenUsage, kept: Mapping[str, Any]) -> tuple[TokenUsage, tuple[str, ...]]:
    """`usage` of a stream, with what its request tells; the notes say what that is."""
    notes: tuple[str, ...] = ()
    details = kept.get("input_token_details") or {}
    if usage.cache_write_tokens and not any(key.startswith("ephemeral_") for key in details):
        usage, notes = by_request(usage, (flight.messages, flight.params))
    about = {name: value for name in PRICED if name not in usage.context and (value := _asked_for(flight, name))}
    if about:
        usage = msgspec.structs.replace(usage, context=FrozenMap({**usage.context, **about}))
        notes += tuple(f"streamed: {name} is what was asked for" for name in about)
    return usage, notes


def _asked_for(flight: Flight, name: str) -> str:
    params = flight.params or {}
    for place in (params, params.get("model_kwargs"), flight.made_with):
        if isinstance(place, Mapping) and isinstance(value := place.get(name), str):
            return value.lower()
    return ""
