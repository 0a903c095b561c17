"""Pause an agent, stop a run or a task, let it go on: from this process or, over a shared shelf, from another one.

A control is seen at the next call: that call is refused as a budget refuses it, with `BudgetExceeded`, and what is
on its way is not touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .hookspecs import hookimpl
from .records import Call, Denial
from .shelf import Document, MemoryShelf, Shelf

EVERY = "*"
_KINDS = ("agent", "run", "task")
_KEPT = 1_000  # stopped runs and tasks; the oldest is forgotten first, its process has ended long ago


class Control(msgspec.Struct, frozen=True):
    """`kind` is agent, run or task; `name` is whose it is, "*" for every agent."""

    kind: str
    name: str
    reason: str = ""
    by: str = ""
    at: str = ""  # ISO 8601, UTC
    agent: str = ""  # of a task: the agent whose task it is; "" for anybody's

    def __str__(self) -> str:
        whose = f" of {self.agent}" if self.agent else ""
        word = "paused" if self.kind == "agent" else "stopped"
        name = "every agent" if self.name == EVERY else f"{self.kind} {self.name}{whose}"
        return f"{name}: {word} {self.at} by {self.by or 'hand'}{f': {self.reason}' if self.reason else ''}"


class Controls:
    """What is paused and stopped; a plugin that refuses the calls of it.

    `critical` agents are never paused, nor is a call with the tag `critical=True`; stopping a run or a task stops
    theirs too. `plug_in` is called once, with these controls, when there is something to refuse: a meter whose
    shelf nobody else reaches pays for no guard before.
    """

    def __init__(
        self,
        shelf: Shelf | None = None,
        *,
        critical: Iterable[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        plug_in: Callable[[Controls], object] | None = None,
    ) -> None:
        self.shelf = shelf if shelf is not None else MemoryShelf()
        self.critical = set(critical)
        self._now = now
        self._plug_in = plug_in
        self._lock = threading.RLock()
        self._read: Document | None = None
        self._any = False
        self._agents: Mapping[str, Control] = {}
        self._runs: Mapping[str, Control] = {}
        self._tasks: Mapping[tuple[str, str], Control] = {}

    # --------------------------------------------------------------------------------------------- by hand

    def pause(self, agent: str = EVERY, *, reason: str = "", by: str = "") -> Control:
        """Refuse the calls of an agent, or of every agent that is not critical, until `resume`."""
        return self._put("agent", agent, reason, by)

    def stop(
        self, run: str | None = None, *, task: str | None = None, agent: str = "", reason: str = "", by: str = ""
    ) -> Control:
        """Refuse every further call of a run (with the runs inside it) or of a task."""
        if (run is None) == (task is None):
            raise ValueError(f"stop one run or one task; got run={run!r}, task={task!r}")
        return self._put("task" if run is None else "run", str(run if task is None else task), reason, by, agent)

    def stop_task(self, task: str, agent: str, *, reason: str = "", by: str = "") -> Control:
        return self._put("task", task, reason, by, agent)

    def resume(self, name: str = EVERY) -> list[Control]:
        """Let an agent, a run or a task of this name go on; without a name everything. What was let go."""

        def update(document: Document) -> list[Control]:
            held = [_control(one) for one in document.get("controls", ())]
            freed = [one for one in held if name in (EVERY, one.name) or (name == one.agent and one.kind == "task")]
            document["controls"] = [msgspec.to_builtins(one) for one in held if one not in freed]
            return freed

        return self.shelf.change(update)

    def __iter__(self) -> Iterator[Control]:
        return iter([_control(one) for one in self.shelf.read().get("controls", ())])

    def __len__(self) -> int:
        return len(self.shelf.read().get("controls", ()))

    def _put(self, kind: str, name: str, reason: str, by: str, agent: str = "") -> Control:
        control = Control(kind, name, reason, by, self._now().isoformat(timespec="seconds"), agent)

        def update(document: Document) -> None:
            held = [_control(one) for one in document.get("controls", ())]
            held = [one for one in held if (one.kind, one.name, one.agent) != (kind, name, agent)][-_KEPT + 1 :]
            document["controls"] = [msgspec.to_builtins(one) for one in (*held, control)]

        self.shelf.change(update)
        self.guard()
        return control

    def guard(self) -> None:
        """Be asked before every call from now on; without a `plug_in`, whoever made the controls registers them."""
        with self._lock:
            plug_in, self._plug_in = self._plug_in, None
            if plug_in is not None:
                plug_in(self)

    # -------------------------------------------------------------------------------------------- the guard

    @hookimpl(tryfirst=True)
    def meter_admit_call(self, call: Call) -> Denial | None:
        try:
            document = self.shelf.read()
            if document is not self._read:
                self._index(document)
        except Exception:
            # What was paused stays paused, whatever has become of the shelf; else the failure is told and counted.
            denial = self._verdict(call)
            if denial is None:
                raise
            return denial
        return self._verdict(call) if self._any else None

    @hookimpl
    def meter_shutdown(self) -> None:
        if callable(close := getattr(self.shelf, "close", None)):
            close()

    def _verdict(self, call: Call) -> Denial | None:
        if self._runs:
            around: Call | None = call
            while around is not None:
                control = self._runs.get(around.id) or self._runs.get(around.run_id or "")
                if control is not None:
                    return _denial(control, f"agent-meter resume {control.name}")
                around = around.parent
        if self._tasks and call.task:
            control = self._tasks.get((call.task, call.agent)) or self._tasks.get((call.task, ""))
            if control is not None:
                return _denial(control, f"agent-meter resume {control.name}")
        if self._agents:
            control = self._agents.get(call.agent) or self._agents.get(EVERY)
            if control is not None and call.agent not in self.critical and not is_critical(call):
                return _denial(control, f"agent-meter resume {call.agent if control.name != EVERY else ''}".rstrip())
        return None

    def _index(self, document: Document) -> None:
        held = [_control(one) for one in document.get("controls", ())]
        self._agents = {one.name: one for one in held if one.kind == "agent"}
        self._runs = {one.name: one for one in held if one.kind == "run"}
        self._tasks = {(one.name, one.agent): one for one in held if one.kind == "task"}
        self._any = bool(held)
        self._read = document


def is_critical(call: Call) -> bool:
    """Whether whoever made the call said so: `meter.scope(agent="billing", critical=True)`."""
    return str(call.tags.get("critical", "")).lower() in ("true", "1", "yes")


def _control(told: Mapping[str, Any]) -> Control:
    return msgspec.convert(told, Control, strict=False)


def _denial(control: Control, remedy: str) -> Denial:
    return Denial(f"{control}; to go on: {remedy}", "controls")
