"""The one place where LlamaIndex can be refused a call: its rate limiter, whose exceptions reach the caller.

A gate stands in front of the user's own limiter, or of none. It belongs to no meter and holds nothing: it asks
whoever is registered when it is passed. Copies and pickles of a model get the user's own limiter back, and a new gate
with their first call.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index_instrumentation.span import active_span_id

from .touched import Touched

# Those who are asked. Replaced as a whole: it is read without a lock.
guards: tuple[Guard, ...] = ()
_gated = Touched()


class Guard(Protocol):
    """Raises `BudgetExceeded` when what is about to be sent under a span must not be."""

    def admit(self, span_id: str) -> None: ...

    async def aadmit(self, span_id: str) -> None: ...

    def missed(self, span_id: str | None) -> None: ...

    async def amissed(self, span_id: str | None) -> None: ...


def _inner(limiter: Any) -> Any:
    return limiter


class Gate(BaseRateLimiter):
    """Asks the registered meters, then the user's own limiter."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def acquire(self, num_tokens: int = 0) -> None:
        span_id = active_span_id.get() or ""
        for guard in guards:
            guard.admit(span_id)
        if self.inner is not None:
            self.inner.acquire(num_tokens)

    async def async_acquire(self, num_tokens: int = 0) -> None:
        span_id = active_span_id.get() or ""
        for guard in guards:
            await guard.aadmit(span_id)
        if self.inner is not None:
            await self.inner.async_acquire(num_tokens)

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"Gate({self.inner!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Else LlamaIndex drops the field from what it pickles or copies, and the user's limiter with it.
        return _inner, (self.inner,)


def attach(instance: Any) -> None:
    """Put a gate in front of a model's limiter, before the model reads it."""
    limiter = getattr(instance, "rate_limiter", None)
    if type(limiter) is Gate:
        return
    with suppress(AttributeError, TypeError, ValueError):  # a model of its own kind, which has no such field
        instance.rate_limiter = Gate(limiter)
        _gated.add(instance)


def detach_all() -> None:
    """Give every model its own limiter back."""
    for instance, _ in _gated.take():
        limiter = instance.rate_limiter
        if type(limiter) is Gate:
            with suppress(AttributeError, TypeError, ValueError):
                instance.rate_limiter = limiter.inner
