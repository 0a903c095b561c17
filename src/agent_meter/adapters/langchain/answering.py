"""What an `LLMResult` says: usage, model, tools asked for, and whether it came from LangChain's cache.

Read at once and kept by nobody: LangChain's in-memory cache writes into the very objects later (facts: the first
hit adds `total_cost: 0` to the message of the original call).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from ...records import EMPTY, TokenUsage
from ...tokens import estimate_tokens
from ..payloads import from_langchain
from .flights import Flight

# `MeteredCache` marks its hits so; see the cache wrapper.
HIT = "agent_meter_cache_hit"
NO_NOTES: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What `Meter.close` is told."""

    usage: TokenUsage | None = None
    response_model: str | None = None
    response_id: str | None = None
    tools: tuple[str, ...] = ()
    cached: bool = False
    notes: tuple[str, ...] = ()


def read(flight: Flight, result: LLMResult, *, cut: bool = False) -> Answer:
    """`cut`: the answer ended in an error, what there is of it is a part."""
    output: Mapping[str, Any] = result.llm_output or EMPTY
    choices = result.generations[0] if result.generations else ()
    first: Any = choices[0] if choices else None
    if not isinstance(first, ChatGeneration):
        return _text_answer(flight, output, first, cut)
    message = first.message
    kept: Mapping[str, Any] | None = getattr(message, "usage_metadata", None)
    about: Mapping[str, Any] = message.response_metadata or EMPTY
    cached = _is_hit(flight, first, kept, about, output)
    if kept:
        if len(choices) > 1:
            kept = _of_choices(choices, kept)
        if flight.usages is not None and len(flight.usages) > 1:
            kept = _not_running_totals(flight.usages, kept)
    reading = from_langchain(kept, about, output, flight.provider)
    tools = tuple(_tool_names(choices))
    usage, notes = reading.usage, NO_NOTES
    if usage.output_tokens and not usage.input_tokens and not cached:
        usage = _without_input(usage)
    if _incomplete(usage):
        usage, notes = _estimate(flight, usage, "".join(_texts(choices)), cut)
    return Answer(usage, reading.response_model, reading.response_id or message.id, tools, cached, notes)


def _text_answer(flight: Flight, output: Mapping[str, Any], first: Any, cut: bool) -> Answer:
    """Text models: usage is in `llm_output`; of a batch sent as one call, the first run carries all of it."""
    if first is None and not output:
        return Answer()
    about = getattr(first, "generation_info", None) or EMPTY
    cached = bool(about.get(HIT))
    reading = from_langchain(None, about, output, flight.provider)
    usage, notes = reading.usage, NO_NOTES
    if _incomplete(usage):
        if output.get("token_usage") == {}:
            return Answer(TokenUsage(), reading.response_model, notes=("usage is on the first run of the batch",))
        usage, notes = _estimate(flight, usage, getattr(first, "text", "") or "", cut)
    return Answer(usage, reading.response_model, reading.response_id, (), cached, notes)


def _is_hit(
    flight: Flight,
    first: ChatGeneration,
    kept: Mapping[str, Any] | None,
    about: Mapping[str, Any],
    output: Mapping[str, Any],
) -> bool:
    """LangChain's cache answered: it says `total_cost: 0` and carries the message of another run, or a bare text.

    A hit never streams. A provider that reports a cost of 0 by itself has an `llm_output`, or this run's own id.
    """
    info = first.generation_info
    if info and info.get(HIT):
        return True
    if flight.chunks:
        return False
    identity = first.message.id
    if kept and kept.get("total_cost") == 0 and "total_cost" in kept:
        own = f"lc_run--{flight.run_id}"
        foreign = bool(identity and identity.startswith("lc_run--") and not identity.startswith(own))
        return foreign or not output
    return identity is None and not kept and not about and not output


def _of_choices(choices: Sequence[Any], kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """n > 1: each choice repeats the usage of the whole response; where they differ, they are parts of it."""
    all_kept = [usage for choice in choices if (usage := getattr(choice.message, "usage_metadata", None))]
    if all(usage == kept for usage in all_kept):
        return kept
    return {name: sum(usage.get(name) or 0 for usage in all_kept) for name in ("input_tokens", "output_tokens")}


def _not_running_totals(usages: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """Some servers send the total so far with every chunk, and LangChain adds them up: then the last one is right.

    They are running totals if inputs never fall, and the sum of all is what LangChain made of them.
    """
    inputs = [usage.get("input_tokens") or 0 for usage in usages]
    if sum(inputs) != kept.get("input_tokens"):
        return kept
    inputs = [count for count in inputs if count]
    if len(inputs) < 2 or any(later < earlier for earlier, later in pairwise(inputs)):
        return kept
    last = dict(usages[-1])
    outputs = [usage.get("output_tokens") or 0 for usage in usages]
    if len(outputs) > 2 and set(outputs) == {1}:
        last["output_tokens"] = sum(outputs)  # the input repeated, the output counted up one by one
    return last


def _tool_names(choices: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for choice in choices:
        message = choice.message
        if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
            names += [call["name"] or "" for call in (*message.tool_calls, *message.invalid_tool_calls)]
    return names


def never_answered(error: BaseException) -> bool:
    """The provider refused (an HTTP error status) or could not be reached: nothing was used, nothing is billed.

    Any other error may have come after a paid answer, which the client could not read.
    """
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(status, int) and status >= 400:
            return True
    return any(kind.__name__ in _UNREACHED for kind in type(error).__mro__)


# openai, anthropic, httpx, botocore, requests, the standard library; a time-out is unreached too: nothing answered.
_UNREACHED = frozenset(
    (
        "APIConnectionError",
        "TransportError",
        "ConnectionError",
        "EndpointConnectionError",
        "ConnectTimeout",
        "TimeoutError",
    )
)


def _texts(choices: Sequence[Any]) -> list[str]:
    texts = []
    for choice in choices:
        texts.append(choice.text or "")
        texts += [f"{call.get('name')}{call.get('args')}" for call in getattr(choice.message, "tool_calls", None) or ()]
    return texts


def _without_input(usage: TokenUsage) -> TokenUsage:
    """No prompt has no tokens: langchain-anthropic loses the input of streams that name it only at their start."""
    lost = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
    missing = (*usage.missing, *(name for name in lost if name not in usage.missing))
    return msgspec.structs.replace(usage, missing=missing)


def _incomplete(usage: TokenUsage) -> bool:
    return "input_tokens" in usage.missing or "output_tokens" in usage.missing


def _estimate(flight: Flight, usage: TokenUsage, answer: str, cut: bool) -> tuple[TokenUsage, tuple[str, ...]]:
    """The provider did not say, or not to the end: count what is known, and say so."""
    missing = usage.missing
    model = flight.call.model.name if flight.call.model else ""
    prompt = usage.input_tokens
    if "input_tokens" in missing:
        prompt = estimate_tokens(_asked(flight.messages), model)
    completion = usage.output_tokens
    if "output_tokens" in missing:
        completion = estimate_tokens(answer, model) if answer else 0
    note = (
        "the answer was cut off; tokens are estimated" if cut else "the answer carried no usage; tokens are estimated"
    )
    return msgspec.structs.replace(usage, input_tokens=prompt, output_tokens=completion), (note,)


def _asked(messages: Any) -> str:
    """The text of a prompt: a string, or messages."""
    if isinstance(messages, str):
        return messages
    texts = []
    for message in messages or ():
        content = getattr(message, "content", message)
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [part if isinstance(part, str) else str(part.get("text") or "") for part in content]
    return "\n".join(texts)
