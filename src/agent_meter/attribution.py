"""Whose call is this: `with meter.scope(agent="researcher", user="u1", team="search"): ...`.

A scope is a context variable, so it follows `await`, asyncio tasks and every executor that copies contexts
(LangChain's does; a bare `ThreadPoolExecutor` does not: wrap the function in `contextvars.copy_context().run`).
It belongs to the context and not to one meter: whose call it is does not depend on who counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType

from .records import EMPTY, NOBODY, Attribution, Call, FrozenMap

NAMES = ("agent", "task", "user", "session", "step")

# The innermost call that a `with` block of this context holds open: the parent of what is opened next.
running: ContextVar[Call | None] = ContextVar("agent_meter_running", default=None)

_scope: ContextVar[Attribution] = ContextVar("agent_meter_scope", default=NOBODY)

current = _scope.get


class Scope:
    """One `with` block's attribution. What an inner scope names wins; what it leaves out stays."""

    __slots__ = ("_names", "_tags", "_tokens")

    def __init__(self, names: dict[str, object], tags: dict[str, object]) -> None:
        self._names = {name: str(value) for name, value in names.items() if value is not None}
        self._tags = {name: str(value) for name, value in tags.items() if value is not None}
        self._tokens: list[tuple[Token[Attribution], Attribution]] = []

    def __enter__(self) -> Attribution:
        outer = _scope.get()
        tags = FrozenMap({**outer.tags, **self._tags}) if self._tags else outer.tags
        named = {name: self._names.get(name, getattr(outer, name)) for name in NAMES}
        inner = Attribution(**named, tags=tags or EMPTY)
        self._tokens.append((_scope.set(inner), outer))
        return inner

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, outer = self._tokens.pop()
        try:
            _scope.reset(token)
        except ValueError:
            # An async generator may be finished in another context than it was started in.
            _scope.set(outer)


def complete(call: Call) -> None:
    """Say whose call it is: an explicit scope first, then what the adapter knows, then the parent's answer."""
    scope, parent = _scope.get(), call.parent
    if scope is not NOBODY:
        for name in NAMES:
            if value := getattr(scope, name):
                setattr(call, name, value)
    if parent is not None:
        for name in NAMES:
            if not getattr(call, name) and (value := getattr(parent, name)):
                setattr(call, name, value)
        if parent.tags and parent.tags != call.tags:
            call.tags = FrozenMap({**parent.tags, **call.tags})
    if scope.tags:
        call.tags = FrozenMap({**call.tags, **scope.tags}) if call.tags else scope.tags


def fill(call: Call, answers: Mapping[str, object]) -> None:
    """Add what a plugin knows; what is known already stays."""
    tags = {}
    for name, value in answers.items():
        if value is None:
            continue
        if name not in NAMES:
            tags[name] = str(value)
        elif not getattr(call, name):
            setattr(call, name, str(value))
    if tags:
        call.tags = FrozenMap({**tags, **call.tags})
