"""A used-up budget lets replays pass: where LangChain is about to look into a cache, the refusal waits for a miss.

LangChain tells of a call before it asks its cache, and asks the model's rate limiter after it: the one place between a
miss and the request. A refused call of a model with a cache goes on without a hold, and a gate in front of the model's
own limiter, or of none, refuses it there. Streams look into no cache and are refused at once, as is everything that
does not go through LangChain's own `generate`.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter

from ...meter import Meter
from ...records import Call, Denial
from .fence import denial_for_langchain

_ASKING = (BaseChatModel.generate.__code__, BaseChatModel.agenerate.__code__)
_DEEPEST = 16  # frames between LangChain's `generate` and a handler


class _Pending(NamedTuple):
    meter: Meter
    call: Call
    denial: Denial


_pending: ContextVar[_Pending | None] = ContextVar("agent_meter_reprieve", default=None)


class Gate(BaseRateLimiter):
    """Refuses what was only let through for the cache; then asks the user's own limiter."""

    def __init__(self, inner: BaseRateLimiter | None) -> None:
        self.inner = inner

    def acquire(self, *, blocking: bool = True) -> bool:
        _refuse()
        return self.inner is None or self.inner.acquire(blocking=blocking)

    async def aacquire(self, *, blocking: bool = True) -> bool:
        _refuse()
        return self.inner is None or await self.inner.aacquire(blocking=blocking)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.inner,)


def _itself(limiter: Any) -> Any:
    return limiter


def _refuse() -> None:
    pending = _pending.get()
    if pending is None or pending.call.done:
        return
    _pending.set(None)
    meter, call, denial = pending
    meter.budgets.count_denied(denial)
    meter.plugins.tell("denied", call, denial)
    raise denial_for_langchain(denial)


def reprieve(meter: Meter, call: Call, denial: Denial) -> bool:
    """Whether a refused call may go on as far as the cache."""
    budget = meter.budgets.get(denial.budget) if denial.budget else None
    if budget is None or (budget.money == "list" and denial.unit == "usd_pico"):
        return False  # a stranger's guard says no to replays too; at list price they cost something
    model = _asking()
    if model is None or model.cache is False:
        return False
    if not isinstance(model.cache, BaseCache) and get_llm_cache() is None:
        return False
    if type(model)._generate_with_cache is not BaseChatModel._generate_with_cache:
        return False
    if type(model)._agenerate_with_cache is not BaseChatModel._agenerate_with_cache:
        return False
    if not isinstance(model.rate_limiter, Gate):
        model.rate_limiter = Gate(model.rate_limiter)
        if not isinstance(model.rate_limiter, Gate):
            return False
    meter.budgets.count_denied(denial, -1)
    _pending.set(_Pending(meter, call, denial))
    return True


def _asking() -> BaseChatModel | None:
    """The model in whose `generate` we are, for one prompt."""
    frame = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        if frame.f_code in _ASKING:
            model, messages = frame.f_locals.get("self"), frame.f_locals.get("messages")
            return (
                model
                if isinstance(model, BaseChatModel) and isinstance(messages, list) and len(messages) == 1
                else None
            )
        frame = frame.f_back  # type: ignore[assignment]
    return None
