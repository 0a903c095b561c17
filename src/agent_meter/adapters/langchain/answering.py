"""What an `LLMResult` says: usage, model, tools asked for, and whether it came from LangChain's cache.

Read at once and kept by nobody: LangChain's in-memory cache writes into the very objects later (the first hit adds
`total_cost: 0` to the message of the original call).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, GenerationChunk, LLMResult

from ...errors import BudgetExceeded
from ...records import EMPTY, TokenUsage
from ..estimating import incomplete, missing_input, nothing_counted
from ..failing import UNSEEN, never_answered, told_by
from ..payloads import Pass, from_langchain
from .estimating import complete, said, unfinished
from .flights import Flight
from .hosted import BESIDE, BILLED_BESIDE, with_fees, with_unseen_passes
from .requested import as_asked
from .withheld import KEEPING_BACK, withheld

# `MeteredCache` marks its hits so; see the cache wrapper.
HIT = "agent_meter_cache_hit"
NO_NOTES: tuple[str, ...] = ()
ON_THE_FIRST = ("sent in one request with other prompts; the usage of all is on the first of them",)
# Whose integrations turn running totals into differences themselves.
SUBTRACTING = frozenset(("google_genai", "google_vertexai", "perplexity"))
OWN_ID = "lc_run--"  # LangChain's stand-in for a message without an id of its provider


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What `Meter.close` is told. `passes` are billed beside it, and become records of their own."""

    usage: TokenUsage | None = None
    response_model: str | None = None
    response_id: str | None = None
    tools: tuple[str, ...] = ()
    cached: bool = False
    notes: tuple[str, ...] = ()
    passes: tuple[Pass, ...] = ()
    unseen: bool = False  # something was used, and nothing is known of it
    without_usage: bool = False  # the answer came whole, and counted nothing
    streamed: bool = False  # said by the form of the answer, where nobody told of tokens


# A failure of ours: the call was answered all the same.
UNREAD = Answer(notes=("the answer could not be read",), unseen=True)


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
        if flight.heard and flight.provider not in SUBTRACTING and not flight.said_once(kept):
            kept = _not_running_totals(flight.usages(), kept)
    reading = from_langchain(kept, about, output, flight.provider)
    usage, notes = reading.own_usage, NO_NOTES
    if message.content.__class__ is list or message.additional_kwargs:
        usage = with_fees(usage, choices)
        if not reading.passes:
            usage = with_unseen_passes(usage, choices)
            notes = (BILLED_BESIDE,) if BESIDE in usage.missing else NO_NOTES
    if flight.heard and kept and about.get("model_provider") == "anthropic":
        usage, more = as_asked(flight, usage, kept)
        notes += more
    if flight.provider in KEEPING_BACK and not cached:
        usage, more = withheld(flight, usage, choices)
        notes += more
    if usage.output_tokens and not usage.input_tokens and not cached:
        usage = missing_input(usage)
    if cut:
        usage = unfinished(usage, about)
    silent = nothing_counted(usage)
    if incomplete(usage) and not _on_the_wire(flight):
        usage, notes = complete(flight, usage, said(choices), cut, notes)
    identity = reading.response_id or message.id
    if identity is not None and identity.startswith(OWN_ID):
        identity = None
    tools = () if len(choices) == 1 and not _asks_for_tools(message) else tuple(_tool_names(choices))
    return Answer(usage, reading.response_model, identity, tools, cached, notes, reading.passes, without_usage=silent)


def failed(flight: Flight, error: BaseException, response: LLMResult | None) -> Answer:
    """What is known of a call that ended in an error."""
    # Where nothing was streamed, what LangChain calls the response describes the error.
    if response is not None and flight.heard and any(response.generations):
        return read(flight, response, cut=True)
    told = told_by(error)
    if told is not None:
        return Answer(told.own_usage, told.response_model, told.response_id, told.tools, passes=told.passes)
    if isinstance(error, BudgetExceeded) or never_answered(error):
        return Answer()
    return Answer(notes=UNSEEN, unseen=True)


def _text_answer(flight: Flight, output: Mapping[str, Any], first: Any, cut: bool) -> Answer:
    """Text models: usage is in `llm_output`; of prompts sent as one request, the first run carries all of it."""
    if first is None and not output:
        return Answer()
    about = getattr(first, "generation_info", None) or EMPTY
    cached = bool(about.get(HIT))
    reading = from_langchain(None, about, output, flight.provider)
    usage, notes, silent = reading.usage, NO_NOTES, False
    if incomplete(usage):
        batch = flight.batch
        if batch is not None and batch.flights[0] is not flight and output.get("token_usage") == {}:
            return Answer(TokenUsage(), reading.response_model, notes=ON_THE_FIRST)
        silent = nothing_counted(usage)
        if not _on_the_wire(flight):
            usage, notes = complete(flight, usage, getattr(first, "text", "") or "", cut)
    return Answer(
        usage,
        reading.response_model,
        reading.response_id,
        cached=cached,
        notes=notes,
        without_usage=silent,
        streamed=isinstance(first, GenerationChunk),
    )


def _on_the_wire(flight: Flight) -> bool:
    """A transport tap has seen what was used, and its numbers will count: there is nothing to estimate."""
    wire = flight.call.wire
    return wire is not None and wire.counted


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
    if flight.heard:
        return False
    identity = first.message.id
    if kept and kept.get("total_cost") == 0 and "total_cost" in kept:
        own = f"{OWN_ID}{UUID(int=flight.key)}"
        foreign = bool(identity and identity.startswith(OWN_ID) and not identity.startswith(own))
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

    They are running totals if neither side ever falls, and the sum of all is what LangChain made of them.
    """
    inputs = [usage.get("input_tokens") or 0 for usage in usages]
    if sum(inputs) != kept.get("input_tokens"):
        return kept
    inputs = [count for count in inputs if count]
    if len(inputs) < 2 or any(later < earlier for earlier, later in pairwise(inputs)):
        return kept
    last = dict(usages[-1])
    outputs = [usage.get("output_tokens") or 0 for usage in usages]
    if not last.get("input_tokens") or any(later < earlier for earlier, later in pairwise(outputs)):
        return kept
    if len(outputs) > 2 and set(outputs) == {1}:
        last["output_tokens"] = sum(outputs)  # the input repeated, the output counted up one by one
    return last


def _asks_for_tools(message: Any) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls or message.invalid_tool_calls)


def _tool_names(choices: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for choice in choices:
        message = choice.message
        if _asks_for_tools(message):
            names += [call["name"] or "" for call in (*message.tool_calls, *message.invalid_tool_calls)]
    return names
