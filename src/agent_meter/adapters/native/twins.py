"""AsyncAgentObserver: an `async def a_on_…` beside each event."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .observer import AgentObserver

EVENTS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(getattr(AgentObserver, name)).parameters)[1:]
    for name in sorted(dir(AgentObserver))
    if name.startswith("on_")
}


class AsyncAgentObserver(AgentObserver):
    """An `AgentObserver` with an `async def` twin of each event: `a_on_usage` beside `on_usage`, the same arguments.

    Both are told, the plain one first. `blocking` is selectools' word: there, True makes a run wait for each twin. A
    meter never lets a run wait: `drain()` or `await adrain()` when you must.
    """

    blocking = False

    def _tell(self, event: str, method: Callable[..., Any] | None, *args: Any) -> None:
        try:
            super()._tell(event, method, *args)
        finally:
            twin = getattr(type(self), f"a_{event}", None)
            if twin is not None and twin is not getattr(AsyncAgentObserver, f"a_{event}", None):
                super()._tell(f"a_{event}", getattr(self, f"a_{event}"), *args)


def _twin(event: str) -> Callable[..., Any]:
    async def twin(self: AsyncAgentObserver, *args: Any, **named: Any) -> None:
        return None

    plain = getattr(AgentObserver, event)
    twin.__name__, twin.__doc__ = f"a_{event}", plain.__doc__
    twin.__qualname__ = f"AsyncAgentObserver.a_{event}"
    twin.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    return twin


for _event in EVENTS:
    setattr(AsyncAgentObserver, f"a_{_event}", _twin(_event))
