"""An observer that writes down every event with its arguments by name."""

from __future__ import annotations

import inspect
from typing import Any

from agent_meter import AgentObserver, TokenUsage

EVENTS = [name for name in vars(AgentObserver) if name.startswith("on_")]  # those that a meter sends
USAGE = TokenUsage(30, 15)


class Listener(AgentObserver):
    """Writes down every event with its arguments by name."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    def last(self, name: str) -> dict[str, Any]:
        return next(arguments for event, arguments in reversed(self.heard) if event == name)


def _listening(name: str) -> Any:
    signature = inspect.signature(getattr(AgentObserver, name))

    def event(self: Any, *args: Any) -> None:
        self.heard.append((name, dict(list(signature.bind(self, *args).arguments.items())[1:])))

    return event


for _name in EVENTS:
    setattr(Listener, _name, _listening(_name))


class CuriousListener(Listener):
    wants_content = True
