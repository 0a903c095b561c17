"""`with metering() as run:` meters everything that LangChain does inside the block, without passing callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from langchain_core.tracers.context import register_configure_hook

from ...handles import RunHandle
from ...meter import Meter, default_meter
from .callback import MeterCallback

# One hook for the life of the process. A hook per use would stay registered and slow every later call down.
_attached: ContextVar[MeterCallback | None] = ContextVar("agent_meter_langchain", default=None)
register_configure_hook(_attached, inheritable=True)


@contextmanager
def metering(meter: Meter | None = None, name: str = "metering", **attribution: object) -> Iterator[RunHandle]:
    """One run around whatever LangChain does in the block; `run.usage` is its own snapshot, also while it goes on.

    `attribution` is agent, task, user, session, or tags of your own. Calls in threads that do not copy the context
    are not seen. Blocks of one meter nest, and each counts what is inside; in a block of another meter, that one alone
    counts.
    """
    meter = meter if meter is not None else default_meter()
    token = _attached.set(MeterCallback(meter))
    try:
        with meter.run(name, **attribution) as run:
            yield run
    finally:
        try:
            _attached.reset(token)
        except ValueError:  # a generator that is closed in another context than it began in
            _attached.set(None)
