"""What an integration was told and does not pass on, so that a number which looks whole is not taken for it.

Told by the integration and by what was asked: an answer never shows what its client dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...records import TokenUsage
from ..estimating import also_missing, missing_input
from ..lifetimes import by_request
from ..payloads.fields import fields
from .nodes import Flight

Finding = tuple[TokenUsage, tuple[str, ...]]


def withheld(flight: Flight, usage: TokenUsage, response: Any, provider: str, *, cut: bool) -> Finding:
    """`usage` with the classes that the integration keeps to itself as missing; the notes say why."""
    if cut and "output_tokens" not in usage.missing:
        usage = also_missing(usage, ("output_tokens",))  # seen before the answer was over: a lower bound
    look = KEEPING_BACK.get(provider)
    return (usage, ()) if look is None else look(flight, usage, response)


def _anthropic(flight: Flight, usage: TokenUsage, response: Any) -> Finding:
    """Of a stream's start, where Anthropic says the most, the integration keeps the uncached input alone."""
    if not flight.streamed or not usage.output_tokens:
        return usage, ()
    notes: tuple[str, ...] = ()
    told = fields(fields(flight.told[-1] if flight.told else response.raw).get("usage"))
    if told.get("cache_read_input_tokens") is None and told.get("cache_creation_input_tokens") is None:
        usage = missing_input(usage)  # what the cache held is part of it
        notes = ("llama-index-llms-anthropic does not tell what a stream read from the prompt cache, and wrote to it",)
    if usage.cache_write_tokens and not usage.cache_write_1h_tokens:
        usage, found = by_request(usage, (flight.asked, flight.params, _own(flight)))
        notes += found
    return usage, notes


def _own(flight: Flight) -> Any:
    """What the model object itself asks for in every call."""
    instance = flight.node.instance
    extra = getattr(instance, "additional_kwargs", None)
    index = getattr(instance, "cache_idx", None)
    return (extra, {"cache_control": {"ttl": "5m"}} if index is not None else None)


def _google(flight: Flight, usage: TokenUsage, response: Any) -> Finding:
    """The last event of a stream says the most, and is dropped when it has no text."""
    if not flight.streamed or not usage.output_tokens:
        return usage, ()
    if fields(response.raw).get("finish_reason") is not None:
        return usage, ()
    note = "llama-index-llms-google-genai dropped the last event of the stream, and its usage"
    return also_missing(usage, ("output_tokens",)), (note,)


KEEPING_BACK: Mapping[str, Callable[[Flight, TokenUsage, Any], Finding]] = {
    "anthropic": _anthropic,
    "google_genai": _google,
}
