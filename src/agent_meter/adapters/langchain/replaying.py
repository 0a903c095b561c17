"""Replays of text models (`BaseLLM`): LangChain tells nobody of them, and hands the cache no usage to remember.

The callback has read the usage a moment before the answer is cached, in the context in which the cache was asked
first: what the meter records between the two is that call.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.outputs import Generation

from ... import attribution
from ...hookspecs import hookimpl
from ...meter import Meter
from ...records import TOKEN_CLASSES, FrozenMap, Kind, Model, Record, TokenUsage, UsageRecord
from ...tokens import estimate_tokens
from .ambient import Ambient
from .asking import model_of
from .flights import FRAMEWORK

# Beside a text model's cached answer: what the call that was paid for used.
PAID = "agent_meter_paid"
Key = tuple[str, str]
_PLUGIN = "LangChain text cache"
_registering = threading.Lock()


class _Awaited:
    """A miss of a text model, until its answer comes to be kept."""

    __slots__ = ("key", "meter", "misses", "records")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.key: Key = ("", "")
        self.misses = 0
        self.records: list[UsageRecord] = []  # two are as bad as many: which one it was is not known


_awaited: ContextVar[_Awaited | None] = ContextVar("agent_meter_awaited", default=None)


class _Recorded:
    """Hears what the meter records while the answer to a miss is on its way."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        awaited = _awaited.get()
        if awaited is None or awaited.meter is not self._meter or len(awaited.records) > 1:
            return
        if type(record) is UsageRecord and record.kind is Kind.LLM:
            awaited.records.append(record)


def await_answer(meter: Meter, key: Key) -> None:
    with _registering:
        if _PLUGIN not in meter.plugins.names():
            meter.register(_Recorded(meter), _PLUGIN)
    awaited = _awaited.get()
    if awaited is None or awaited.records or awaited.meter is not meter:
        awaited = _Awaited(meter)
        _awaited.set(awaited)
    awaited.key = key
    awaited.misses += 1


def paid_for(key: Key) -> dict[str, Any] | None:
    """What the call used whose answer is to be kept; `None` where that is not certain, as in a batch."""
    awaited = _awaited.get()
    _awaited.set(None)
    if awaited is None or awaited.key != key or awaited.misses != 1 or len(awaited.records) != 1:
        return None
    record = awaited.records[0]
    usage = record.usage
    if usage is None or record.estimated or record.framework != FRAMEWORK:
        return None
    paid: dict[str, Any] = {name: count for name in TOKEN_CLASSES if (count := getattr(usage, name))}
    return {**paid, "context": dict(usage.context), "response_model": record.response_model}


def record_replay(around: Ambient, prompt: str, llm_string: str, found: Sequence[Generation]) -> UsageRecord:
    """One record of an answer that was paid for before: no guard is asked, for it costs nothing."""
    model, parent = _model(llm_string), around.parent
    whose = around.call(Kind.LLM, model)
    paid = next((info[PAID] for one in found if (info := one.generation_info) and PAID in info), None)
    used = _guess(prompt, found, model) if paid is None else _read(paid)
    facts: dict[str, Any] = {name: value for name in attribution.NAMES if (value := getattr(whose, name))}
    facts.update(whose.tags)
    facts.update((name, getattr(used, name)) for name in (*TOKEN_CLASSES, "missing", "context"))
    token = None if parent is None else attribution.running.set(parent)
    try:
        return around.meter.record_usage(
            model=model.name,
            provider=model.provider,
            cached=True,
            response_model=None if paid is None else paid.get("response_model"),
            **facts,
        )
    finally:
        if token is not None:
            attribution.running.reset(token)


def _read(paid: Mapping[str, Any]) -> TokenUsage:
    counts: dict[str, Any] = {name: int(paid.get(name) or 0) for name in TOKEN_CLASSES}
    return TokenUsage(**counts, context=FrozenMap(paid.get("context") or {}))


def _guess(prompt: str, found: Sequence[Generation], model: Model) -> TokenUsage:
    answer = "".join(one.text for one in found)
    return TokenUsage(
        estimate_tokens(prompt, model.name),
        estimate_tokens(answer, model.name),
        missing=("input_tokens", "output_tokens"),
    )


def _model(llm_string: str) -> Model:
    """The model that a text model's key names: `str()` of its sorted parameters."""
    from ast import literal_eval

    try:
        params = dict(literal_eval(llm_string))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        params = {}
    return model_of(None, {}, params)
