"""Tokens that no provider counted: a stream without usage, an answer that was cut off.

Only arithmetic on characters: nothing is loaded, nobody waits. What comes of it is always marked as estimated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...records import TokenUsage
from ..estimating import also_missing, fill
from .flights import Flight, Flights

# What an integration says of an answer that came to its end. Until then usage in a stream is a running total.
FINISHED = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")


def unfinished(usage: TokenUsage, about: Mapping[str, Any]) -> TokenUsage:
    """Usage seen before an answer was over is a lower bound of its output."""
    if any(about.get(name) for name in FINISHED):
        return usage
    return also_missing(usage, ("output_tokens",))


def complete(
    flight: Flight, usage: TokenUsage, said: str, cut: bool, notes: tuple[str, ...] = ()
) -> tuple[TokenUsage, tuple[str, ...]]:
    """Fill in what the provider did not count, and say so."""
    model = flight.call.model.name if flight.call.model else ""
    usage, note = fill(usage, flight.messages, flight.params, said, model, cut=cut)
    return usage, (*notes, note)


def said(choices: Sequence[Any]) -> str:
    """Everything in an answer that took output tokens and can be seen: text, visible reasoning, tool calls."""
    return "".join(text for choice in choices for text in _texts(choice))


def _texts(choice: Any) -> Iterator[str]:
    message = choice.message
    yield choice.text or ""
    content = message.content
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            for name in ("thinking", "reasoning"):
                if isinstance(text := block.get(name), str):
                    yield text
    if isinstance(text := message.additional_kwargs.get("reasoning_content"), str):
        yield text
    for call in (*(getattr(message, "tool_calls", None) or ()), *(getattr(message, "invalid_tool_calls", None) or ())):
        yield f"{call.get('name')}{call.get('args')}"


def warn_of_stream(flights: Flights, flight: Flight) -> None:
    """A stream came without usage: once for each model, say what it means and how it is mended."""
    if flights.first_warning(flight.call.model):
        logging.getLogger("agent_meter").warning(
            "%s streams its answers without usage, so their tokens and cost are estimated. Ask for the numbers: "
            "stream_usage=True, where the client has it (ChatOpenAI and those built on it, ChatAnthropic).",
            flight.call.model or "A model",
        )
