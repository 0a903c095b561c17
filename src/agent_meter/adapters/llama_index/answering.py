"""What a response of LlamaIndex's says: usage, model, the tools asked for.

The provider's own object is in `raw`, whole or as the events of a stream; what an integration puts elsewhere is less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ...errors import BudgetExceeded
from ...records import TokenUsage
from ..estimating import fill, incomplete, missing_input, nothing_counted
from ..failing import UNSEEN, never_answered, told_by
from ..payloads import Pass, read
from ..payloads.fields import Fields, fields, items
from .nodes import Flight
from .withheld import withheld

NO_NOTES: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What `Meter.close` is told. `passes` are billed beside it, and become records of their own."""

    usage: TokenUsage | None = None
    response_model: str | None = None
    response_id: str | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passes: tuple[Pass, ...] = ()
    error_type: str | None = None
    unseen: bool = False  # something was used, and nothing is known of it
    without_usage: bool = False  # the answer came whole, and counted nothing


# A failure of ours: the call was answered all the same.
UNREAD = Answer(notes=("the answer could not be read",), unseen=True)


def answer(flight: Flight, response: Any, *, cut: bool = False) -> Answer:
    """`cut`: the stream ended too early, what there is of it is a part."""
    call = flight.call
    model = call.model if call is not None else None
    provider = model.provider if model is not None else ""
    raw = response.raw
    # The events of a stream are read as one; an answer in one piece is what it is.
    reading = read((flight.told or [raw]) if flight.streamed else raw, provider)
    usage = reading.own_usage
    if usage.missing and nothing_counted(usage):
        usage = _elsewhere(response, usage)
    usage, notes = withheld(flight, usage, response, provider, cut=cut)
    if usage.output_tokens and not usage.input_tokens:
        usage = missing_input(usage)
    silent = False
    if usage.missing and incomplete(usage):
        silent = nothing_counted(usage)
        usage, note = fill(
            usage, flight.asked, flight.params, said(response), model.name if model is not None else "", cut=cut
        )
        notes = (*notes, note)
    return Answer(
        usage,
        reading.response_model,
        reading.response_id,
        reading.tools or tool_names(response),
        notes,
        reading.passes,
        reading.error_type,
        without_usage=silent,
    )


def failed(flight: Flight, error: BaseException) -> Answer:
    """What is known of a call that ended in an error."""
    if flight.last is not None:
        return answer(flight, flight.last, cut=True)
    told = told_by(error)
    if told is not None:
        return Answer(told.own_usage, told.response_model, told.response_id, told.tools, passes=told.passes)
    if isinstance(error, BudgetExceeded) or never_answered(error):
        return Answer()
    return Answer(notes=UNSEEN, unseen=True)


def _elsewhere(response: Any, usage: TokenUsage) -> TokenUsage:
    """Usage that an integration keeps beside `raw`: sums, and no classes."""
    places = [getattr(response, "additional_kwargs", None)]
    places.append(getattr(getattr(response, "message", None), "additional_kwargs", None))
    for place in places:
        if not isinstance(place, Mapping):
            continue
        told = place.get("usage") or place.get("token_usage")
        if told is None and (place.get("prompt_tokens") or place.get("completion_tokens")):
            told = {name: place.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        if told is not None:
            found = read({"usage": told}).usage
            if not nothing_counted(found):
                return msgspec.structs.replace(found, units=usage.units) if usage.units else found
    return usage


# ------------------------------------------------------------------------------------------------ what was said


def said(response: Any) -> str:
    """Everything in an answer that took output tokens and can be seen: text, visible reasoning, tool calls."""
    return "".join(_texts(response))


def _texts(response: Any) -> Iterator[str]:
    message = getattr(response, "message", None)
    if message is None:
        yield getattr(response, "text", None) or ""
        return
    names = set()
    for block in message.blocks:
        kind = getattr(block, "block_type", "")
        if kind == "text":
            yield block.text or ""
        elif kind == "thinking":
            yield block.content or ""
        elif kind == "tool_call":
            names.add(block.tool_name)
            yield f"{block.tool_name}{block.tool_kwargs}"
    for name, arguments in _old_tool_calls(message):
        if name not in names:
            yield f"{name}{arguments}"


def tool_names(response: Any) -> tuple[str, ...]:
    message = getattr(response, "message", None)
    if message is None:
        return ()
    found = [block.tool_name for block in message.blocks if getattr(block, "block_type", "") == "tool_call"]
    if not found:
        if not message.additional_kwargs:
            return ()
        found = [name for name, _ in _old_tool_calls(message)]
    return tuple(name for name in found if name)


def _old_tool_calls(message: Any) -> Iterator[tuple[str, Any]]:
    """Tool calls as integrations kept them before there were blocks for them: in the vendor's own form."""
    extra = message.additional_kwargs
    for call in items(extra.get("tool_calls")) if extra else ():
        f = fields(call)
        function = fields(f.get("function")) if f.get("function") is not None else f
        yield str(function.get("name") or ""), function.get("arguments") or function.get("input") or ""


# -------------------------------------------------------------------------------------------- chunks that tell

# Where a raw event says what was used, in some dialect, or that it is the last one.
_TELLING = (
    "usage", "usage_metadata", "response", "metadata", "message", "x_groq", "data", "meta", "eval_count",
    "finish_reason", "done_reason", "error",
)  # fmt: skip
_KEYS = frozenset(_TELLING)
_WRAPPING = frozenset(("response", "message", "data"))
_names: dict[type, tuple[str, ...]] = {}


def tells(raw: Any) -> bool:
    """Whether a chunk is worth keeping until the answer is whole: it has usage, or says how the answer ended.

    Asked for every chunk: what its class can have at all is looked up once.
    """
    kind = raw.__class__
    if kind is dict:
        return _says(raw)
    names = _names.get(kind)
    if names is None:
        if len(_names) > 1024:
            _names.clear()
        declared = getattr(kind, "__pydantic_fields__", None)
        names = _names[kind] = tuple(n for n in (*_TELLING, "choices") if declared is None or n in declared)
    for name in names:
        value = getattr(raw, name, None)
        if value and _told(name, value):
            return True
    extra: Mapping[str, Any] | None = getattr(raw, "__pydantic_extra__", None)
    return bool(extra) and _says(extra or {})


def _says(raw: Mapping[str, Any]) -> bool:
    if not _KEYS.isdisjoint(raw):
        for name in _TELLING:
            value = raw.get(name)
            if value and _told(name, value):
                return True
    choices = raw.get("choices")
    return bool(choices) and _told("choices", choices)


def _told(name: str, value: Any) -> bool:
    if name == "choices":
        first = value[0]
        reason = first.get("finish_reason") if first.__class__ is dict else getattr(first, "finish_reason", None)
        return reason is not None
    return name not in _WRAPPING or _inner(value)


def _inner(value: Any) -> bool:
    """Whether what an event wraps (a response, a message's start, a chunk) has usage or an end."""
    f: Fields = fields(value)
    if f.get("usage") is not None or f.get("meta") is not None:
        return True
    choices = items(f.get("choices"))
    return bool(choices) and fields(choices[0]).get("finish_reason") is not None
