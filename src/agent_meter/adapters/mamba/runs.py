"""The workflow runs that are going on, and what has been counted of each, so that nothing is counted twice."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ... import attribution
from ...meter import Meter
from ...records import Call, Kind, Model

FRAMEWORK = "mamba-agents"


class Run:
    """One run of a workflow. `state` is the workflow's own, and says when a run is over of which no hook tells."""

    def __init__(self, meter: Meter, state: Any) -> None:
        self.meter = meter
        self.state = state
        self.call = Call(Kind.RUN, _name(state), framework=FRAMEWORK)
        self.step: Call | None = None
        self.outer: Run | None = None
        self.model = Model()  # the one that answered last
        self.requests = 0  # that a metered model made
        self.answers: dict[int, Any] = {}  # by identity, kept so that no other answer gets the same one
        self.answer_ids: set[str] = set()
        self.tools: set[str] = set()  # ids of tool calls that were counted
        self.messages: list[Any] | None = None  # of the run of the agent in this step, as far as it came
        self.release: Callable[[], None] | None = None
        self.unwatch: Callable[[], None] | None = None

    @property
    def timed_out(self) -> bool:
        """The workflow has given up. Hooks tell of every other failure, and the run is over by then."""
        return bool(getattr(self.state, "is_failed", False))

    def count(self, response: Any) -> bool:
        """Note an answer as counted; False when it was before."""
        identity = getattr(response, "provider_response_id", None)
        if id(response) in self.answers or (identity and identity in self.answer_ids):
            return False
        self.answers[id(response)] = response
        if identity:
            self.answer_ids.add(identity)
        return True


class Desk:
    """What the hooks, models and toolsets of one meter know together."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}  # by the identity of the state, which the run keeps
        self.models: weakref.WeakSet[Any] = weakref.WeakSet()


_desks: weakref.WeakKeyDictionary[Meter, Desk] = weakref.WeakKeyDictionary()
_lock = threading.RLock()

current: ContextVar[Run | None] = ContextVar("agent_meter_mamba_run", default=None)
# The meters that count the request which is being made in this context: of nested models the outermost counts.
counting: ContextVar[tuple[Meter, ...]] = ContextVar("agent_meter_mamba_counting", default=())


def desk_of(meter: Meter) -> Desk:
    with _lock:
        desk = _desks.get(meter)
        if desk is None:
            desk = _desks[meter] = Desk()
        return desk


def run_of(meter: Meter) -> Run | None:
    """The workflow run of this context, if this meter's hooks have told of one that is not over."""
    run = current.get()
    return run if run is not None and run.meter is meter and not run.call.done else None


def enter(call: Call) -> None:
    attribution.running.set(call)


def leave(call: Call) -> None:
    if attribution.running.get() is call:
        attribution.running.set(call.parent)


def _name(state: Any) -> str:
    kind = type(getattr(state, "context", None)).__name__
    return "react" if kind == "ReActState" else "workflow"
