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

# The last model call that was opened in this context while a transport tap was on. Adapters do nothing for it: open
# the call in the context in which its request will be sent, and `Meter.open` announces it (see `joining`).
announced: ContextVar[Call | None] = ContextVar("agent_meter_announced", default=None)


class _Frame:
    """One entered scope of a context. `gone` when it was left from elsewhere than it was entered."""

    __slots__ = ("gone", "inside", "outer", "token")

    def __init__(self, inside: Attribution, outer: _Frame | None) -> None:
        self.inside = inside
        self.outer = outer
        self.gone = False
        self.token: Token[_Frame | None] = _scope.set(self)


_scope: ContextVar[_Frame | None] = ContextVar("agent_meter_scope", default=None)


def _innermost() -> _Frame | None:
    frame = _scope.get()
    while frame is not None and frame.gone:
        frame = frame.outer
    return frame


def current() -> Attribution:
    """What the scopes around the caller say."""
    frame = _innermost()
    return NOBODY if frame is None else frame.inside


class Scope:
    """One `with` block's attribution. What an inner scope names wins; what it leaves out stays.

    `unsaid` are tags that the scopes around it name and that do not hold inside.
    """

    __slots__ = ("_frames", "_names", "_tags", "_unsaid")

    def __init__(
        self, names: Mapping[str, object], tags: Mapping[str, object], unsaid: frozenset[str] = frozenset()
    ) -> None:
        self._names = {name: str(value) for name, value in names.items() if value is not None}
        self._tags = {name: str(value) for name, value in tags.items() if value is not None}
        self._unsaid = unsaid
        self._frames: list[_Frame] = []

    def __enter__(self) -> Attribution:
        outer = _innermost()
        around = NOBODY if outer is None else outer.inside
        tags = around.tags
        if self._tags or not self._unsaid.isdisjoint(tags):
            kept = {name: value for name, value in tags.items() if name not in self._unsaid}
            tags = FrozenMap({**kept, **self._tags})
        named = {name: self._names.get(name, getattr(around, name)) for name in NAMES}
        frame = _Frame(Attribution(**named, tags=tags or EMPTY), outer)
        self._frames.append(frame)
        return frame.inside

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        frame = _scope.get()
        if frame is None or frame not in self._frames:
            # A generator may end while a scope of its consumer is open …
            self._frames.pop().gone = True
            return
        self._frames.remove(frame)  # the same scope may be open in several tasks at once
        try:
            _scope.reset(frame.token)
        except ValueError:
            # … or in another context than it began in, which cannot be cleaned from here.
            _scope.set(frame.outer)
            frame.gone = True


def inside(named: Mapping[str, object]) -> Scope | None:
    """A scope in which what a call says itself is not overruled by the scopes around the call; None: nothing said."""
    said = {name for name, value in named.items() if value is not None}
    if not said:
        return None
    return Scope(dict.fromkeys(said.intersection(NAMES), ""), {}, frozenset(said.difference(NAMES)))


def complete(call: Call) -> None:
    """Say whose call it is: an explicit scope first, then what the adapter knows, then the parent's answer."""
    parent = call.parent
    if parent is None and _scope.get() is None:  # a plain call: there is nothing around it
        return
    scope = current()
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
    """Add what a plugin or the caller knows; what is known already stays."""
    tags = _put(call, answers, overrule=False)
    if tags:
        call.tags = FrozenMap({**tags, **call.tags})


def overrule(call: Call, named: Mapping[str, object]) -> None:
    """Put what is said of this very call in the place of what is said around it."""
    tags = _put(call, named, overrule=True)
    if tags:
        call.tags = FrozenMap({**call.tags, **tags})


def _put(call: Call, named: Mapping[str, object], *, overrule: bool) -> dict[str, str]:
    """Set the names that attribution knows; the rest are tags."""
    if not isinstance(named, Mapping):
        raise TypeError(f"attribution is a mapping of names to values, not {named!r}")
    tags = {}
    for name, value in named.items():
        if value is None:
            continue
        if name not in NAMES:
            tags[str(name)] = str(value)
        elif overrule or not getattr(call, name):
            setattr(call, name, str(value))
    return tags
