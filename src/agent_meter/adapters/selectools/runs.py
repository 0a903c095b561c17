"""What is going on in selectools: runs, the model call each of them waits for, its tools.

One `Desk` a meter, shared by its observers and providers, so that what both see is counted once. The observer
announces a call with the very list of messages that the provider is then asked with: that list joins the two, in
whatever thread or task they run.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from ... import attribution
from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter
from ...records import Call, Kind, Status, TokenUsage
from ..failing import UNSEEN, never_answered
from .stats import CUT_OFF, NO_USAGE, STREAMED, Prompt, estimated, is_silent, model_of, read

FRAMEWORK = "selectools"
SWEEP_AT = 256  # runs that are known; those that the meter gave up are let go of then


class Flight:
    """One model call: announced by an observer, or made by a provider, or both. It has one `Call`, and one end."""

    __slots__ = ("attempt", "cached", "call", "done", "meter", "prompt", "run", "said", "started", "taken", "tools")

    def __init__(self, meter: Meter, run: Run | None, prompt: Prompt, attempt: int = 1) -> None:
        self.meter = meter
        self.run = run
        self.prompt = prompt
        self.attempt = attempt
        self.started = meter.monotonic()
        self.call: Call | None = None
        self.taken = False  # a metered provider opens and ends it
        self.cached = False
        self.done = False
        self.said: list[str] = []
        self.tools: list[str] = []

    def make(self, provider: str = "", *, unguarded: bool = False) -> Call:
        """The call, not opened yet. `unguarded`: it is only told of, and nobody could stop it."""
        call = Call(Kind.LLM, model=model_of(provider, self.prompt.model), framework=FRAMEWORK)
        call.attempt, call.unguarded = self.attempt, unguarded
        run, here = self.run, attribution.running.get()
        if run is not None and run.meter is self.meter:
            # What a tool asks a provider by itself is the tool's; all else that is not announced is the step's.
            inside = not self.taken and here is not None and here.run_id == run.call.id and not here.done
            call.parent = here if inside else run.holder
        if self.meter.wants_content:
            call.content = self.prompt.messages
        self.call = call
        return call

    def _opened(self) -> Call:
        """The call of a flight that nobody has opened: it began when it was announced."""
        call = self.call
        if call is None:
            call = self.meter.open(self.make(unguarded=True))
            late, call.started = call.started - self.started, self.started
            if call.started_at is not None:
                call.started_at -= timedelta(seconds=late)
        return call

    # ----------------------------------------------------------------------------------------------- its end

    def answered(self, stats: Any, said: str, tools: Sequence[str] = ()) -> None:
        """It was answered, and counted; `said` is the answer as far as it is known."""
        call = self._end()
        if call is None:
            return
        usage: TokenUsage | None
        provider, name = str(getattr(stats, "provider", "") or ""), str(getattr(stats, "model", "") or "")
        asked = call.model.name if call.model else ""
        if provider and (call.model is None or call.model.provider != provider):
            call.model = model_of(provider, asked or name)
            call.rates = self.meter.rates(call.model)
        try:
            usage, notes = estimated(self.prompt, said, NO_USAGE) if is_silent(stats) else read(stats)
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "answer", error)
            usage, notes = None, ("the answer could not be read",)
        call.response = said
        self.meter.close(
            call,
            usage,
            response_model=name if name and name != asked else None,
            cached=self.cached,
            tools=tuple(tools),
            notes=notes,
        )

    def streamed(self, said: str, tools: Sequence[str] = (), error: BaseException | None = None) -> None:
        """It was streamed, to its end or to an error: selectools never says what a stream used."""
        call = self._end()
        if call is None:
            return
        usage: TokenUsage | None
        call.streamed, call.response, call.error = True, said, error
        try:
            usage, notes = estimated(self.prompt, said, STREAMED if error is None else CUT_OFF)
        except Exception as failure:
            self.meter.plugins.failed(FRAMEWORK, "answer", failure)
            usage, notes = None, ("the answer could not be read",)
        self.meter.close(
            call,
            usage,
            status=status_of(error),
            error_type=None if error is None else error_name(error),
            tools=tuple(tools),
            notes=notes,
        )

    def failed(self, error: BaseException | None, name: str = "ProviderError") -> None:
        """It ended without an answer. Without an `error`, nobody has said why."""
        call = self._end()
        if call is None:
            return
        call.error = error
        known = error is not None and (isinstance(error, BudgetExceeded) or never_answered(error))
        self.meter.close(
            call,
            status=Status.ERROR if error is None else status_of(error),
            error_type=name if error is None else error_name(error),
            estimated=not known,
            notes=() if known else UNSEEN,
        )

    def _end(self) -> Call | None:
        if self.done:
            return None
        self.done = True
        return self._opened()


class Run:
    """One run of an agent or of a graph, as far as it has been told."""

    def __init__(self, meter: Meter, run_id: str, owner: object, name: str, *, graph: bool = False) -> None:
        self.id = run_id
        self.meter = meter
        self.owner = owner  # of two observers of one meter, the one that tells
        self.graph = graph
        self.call = Call(Kind.RUN, name, framework=FRAMEWORK)
        self.step: Call | None = None
        self.flight: Flight | None = None
        self.waiting: tuple[Flight, Any, str] | None = None  # answered; which tools it asked for is seen next
        self.attempts = 0
        self.status = Status.OK
        self.error_type: str | None = None
        self.tools: dict[tuple[str, str], list[Call]] = {}
        self.told: Counter[str] = Counter()  # calls by tool that events have told of
        self.outer: Run | None = None
        self.unwatch: Callable[[], None] | None = None
        self.lost: Callable[[Status], None] = lambda status: None  # it is over, and no event has said so
        self.lock = threading.RLock()

    @property
    def holder(self) -> Call | None:
        """What a call of this run belongs to."""
        if self.step is not None and not self.step.done:
            return self.step
        return None if self.call.done else self.call


class Desk:
    """What the observers and providers of one meter know together."""

    def __init__(self, meter: Meter) -> None:
        self.runs: dict[str, Run] = {}
        self.announced: dict[int, Flight] = {}  # by the identity of the list of messages, which the flight keeps
        self.providers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.lock = threading.RLock()
        self.warned = False

    def announce(self, flight: Flight) -> None:
        with self.lock:
            self.announced[id(flight.prompt.messages)] = flight

    def take(self, messages: object) -> Flight | None:
        """The call that was announced with these messages, if no provider has taken it yet."""
        with self.lock:
            flight = self.announced.pop(id(messages), None)
            if flight is None or flight.done:
                return None
            flight.taken = True
            return flight

    def withdraw(self, flight: Flight) -> None:
        with self.lock:
            key = id(flight.prompt.messages)
            if self.announced.get(key) is flight:
                del self.announced[key]

    def add(self, run: Run) -> None:
        with self.lock:
            if len(self.runs) >= SWEEP_AT:
                for lost in [known for known in self.runs.values() if known.call.done]:
                    del self.runs[lost.id]
                for flight in [flight for flight in self.announced.values() if flight.run and flight.run.call.done]:
                    self.withdraw(flight)
            self.runs[run.id] = run

    def drop(self, run: Run) -> None:
        with self.lock:
            self.runs.pop(run.id, None)


_desks: weakref.WeakKeyDictionary[Meter, Desk] = weakref.WeakKeyDictionary()
_desks_lock = threading.RLock()

# The run of this context: what a provider is asked without having been announced belongs to it.
current: ContextVar[Run | None] = ContextVar("agent_meter_selectools_run", default=None)


def desk_of(meter: Meter) -> Desk:
    with _desks_lock:
        desk = _desks.get(meter)
        if desk is None:
            desk = _desks[meter] = Desk(meter)
        return desk


def enter(call: Call) -> None:
    """What is opened in this context from now on belongs to `call`, until `leave`."""
    attribution.running.set(call)


def leave(call: Call) -> None:
    if attribution.running.get() is call:
        attribution.running.set(call.parent)


def error_name(error: BaseException) -> str:
    """The error that was met first: selectools wraps those of SDKs and of tools in its own."""
    for _ in range(8):
        inner = getattr(error, "error", None) or error.__cause__
        if not isinstance(inner, BaseException) or type(error).__name__ not in _WRAPPERS:
            break
        error = inner
    return type(error).__name__


_WRAPPERS = frozenset(("ProviderError", "ToolExecutionError"))
