"""Tokens that no provider counted: a stream without usage, an answer that was cut off.

Only arithmetic on characters: nothing is loaded, nobody waits. What comes of it is always marked as estimated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ...records import TokenUsage
from ...tokens import estimate_prompt, estimate_tokens
from .flights import Flight, Flights

NO_USAGE = "the answer carried no usage; tokens are estimated"
NO_INPUT = "the answer did not count its prompt; input tokens are estimated"
CUT_OFF = "the answer was cut off; tokens are estimated"
# What an integration says of an answer that came to its end. Until then usage in a stream is a running total.
FINISHED = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
INPUT_CLASSES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


def missing_input(usage: TokenUsage) -> TokenUsage:
    """No prompt has no tokens: langchain-anthropic loses the input of streams that name it only at their start."""
    return _also_missing(usage, INPUT_CLASSES)


def unfinished(usage: TokenUsage, about: Mapping[str, Any]) -> TokenUsage:
    """Usage seen before an answer was over is a lower bound of its output."""
    if any(about.get(name) for name in FINISHED):
        return usage
    return _also_missing(usage, ("output_tokens",))


def _also_missing(usage: TokenUsage, names: Sequence[str]) -> TokenUsage:
    found = tuple(name for name in names if name not in usage.missing)
    return msgspec.structs.replace(usage, missing=(*usage.missing, *found)) if found else usage


def incomplete(usage: TokenUsage) -> bool:
    return "input_tokens" in usage.missing or "output_tokens" in usage.missing


def nothing_counted(usage: TokenUsage) -> bool:
    return "input_tokens" in usage.missing and "output_tokens" in usage.missing


def complete(
    flight: Flight, usage: TokenUsage, said: str, cut: bool, notes: tuple[str, ...] = ()
) -> tuple[TokenUsage, tuple[str, ...]]:
    """Fill in what the provider did not count, and say so; what it did count is never lowered."""
    missing = usage.missing
    model = flight.call.model.name if flight.call.model else ""
    prompt, completion = usage.input_tokens, usage.output_tokens
    if "input_tokens" in missing:
        prompt = max(prompt, prompt_tokens(flight.messages, model, flight.params))
    if "output_tokens" in missing:
        completion = max(completion, estimate_tokens(said, model))
    note = CUT_OFF if cut else NO_USAGE if "output_tokens" in missing else NO_INPUT
    return msgspec.structs.replace(usage, input_tokens=prompt, output_tokens=completion), (*notes, note)


def prompt_tokens(asked: Any, model: str, params: Mapping[str, Any] | None = None) -> int:
    """About how many tokens a prompt is: a string or messages, with the tools that the parameters declare."""
    tools = (params or {}).get("tools") or (params or {}).get("functions")
    return estimate_prompt(asked, model, tools)


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
