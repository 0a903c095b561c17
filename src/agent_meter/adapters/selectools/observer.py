"""An observer of selectools' agents and graphs. It cannot refuse a call: selectools swallows what observers raise."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ... import attribution
from ...meter import Meter, default_meter
from ...records import ABANDONED, CANCELLED, DENIED, EMPTY, ERROR, OK, Call, FrozenMap, Kind, Status
from ..tasks import when_task_ends
from .reconcile import tools_of, untold
from .runs import FRAMEWORK, Flight, Run, current, desk_of, enter, error_name, leave
from .stats import Prompt

F = TypeVar("F", bound=Callable[..., None])


def event(method: F) -> F:
    """An event of selectools; what goes wrong in here is counted, for selectools would not even log it."""

    @functools.wraps(method)
    def told(self: MeterObserver, *args: Any, **named: Any) -> None:
        try:
            method(self, *args, **named)
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, method.__name__, error)
            if self.meter.plugins.strict:
                raise

    return told  # type: ignore[return-value]


class MeterObserver:
    """Tells a meter what selectools' agents do: `AgentConfig(observers=[MeterObserver(meter)])`.

    Every model call becomes one record: with its attempt number, replays from selectools' cache as `cached`, failed
    attempts as errors, streams with estimated usage (selectools drops theirs; `wire=True` reads it where it arrives).
    Tools, runs, iterations (as steps) and graphs are recorded too. One observer may serve any number of agents, clones
    and threads.

    To refuse calls, and to see those of which selectools tells no observer, wrap the provider in `MeteredProvider`.
    """

    def __init__(self, meter: Meter | None = None, *, wire: bool = False) -> None:
        self.meter = meter if meter is not None else default_meter()
        self._desk = desk_of(self.meter)
        if wire:
            from ..wire import keep_on

            keep_on(self.meter)

    # -------------------------------------------------------------------------------------------------- runs

    @event
    def on_run_start(self, run_id: str, messages: Any, system_prompt: Any = "") -> None:
        self._begin(run_id, "agent", messages)

    @event
    def on_run_end(self, run_id: str, result: Any) -> None:
        run = self._known(run_id)
        if run is None:
            return
        self._settle(run)
        self._reconcile(run, result)
        if self.meter.wants_content:
            run.call.response = result
        self._end(run, run.status, run.error_type)

    @event
    def on_error(self, run_id: str, error: BaseException, context: Any = None) -> None:
        run = self._known(run_id)
        if run is None:
            return
        self._settle(run, error)
        run.call.error = error
        self._end(run, ERROR, error_name(error))

    @event
    def on_cancelled(self, run_id: str, iteration: int, reason: str) -> None:
        run = self._known(run_id)
        if run is not None:
            run.status, run.error_type = CANCELLED, "cancelled"

    @event
    def on_budget_exceeded(self, run_id: str, reason: str, tokens_used: int, cost_used: float) -> None:
        """selectools' own limits, `max_total_tokens` and `max_cost_usd`."""
        run = self._known(run_id)
        if run is not None:
            run.status, run.error_type = ERROR, "BudgetExceededError"

    @event
    def on_session_load(self, run_id: str, session_id: str, message_count: int) -> None:
        run = self._known(run_id)
        if run is not None and not run.call.session:
            run.call.session = str(session_id)

    @event
    def on_iteration_start(self, run_id: str, iteration: int, messages: Any = ()) -> None:
        run = self._known(run_id)
        if run is not None:
            self._end_step(run)
            self._begin_step(run, f"step {iteration}", iteration)

    @event
    def on_iteration_end(self, run_id: str, iteration: int, response: str = "") -> None:
        run = self._known(run_id)
        if run is not None:
            self._settle(run)
            self._end_step(run)

    # ------------------------------------------------------------------------------------------- model calls

    @event
    def on_llm_start(self, run_id: str, messages: Any, model: str, system_prompt: str = "") -> None:
        run = self._known(run_id) or self._begin(run_id, "agent", messages)
        if run is None:
            return
        self._settle(run)
        run.attempts += 1
        prompt = Prompt(str(model), str(system_prompt or ""), messages)
        flight = run.flight = Flight(self.meter, run, prompt, run.attempts)
        if self._desk.providers:
            self._desk.announce(flight)  # a metered provider is about to open it, and may refuse
        else:
            self._warn_of_guards()
            self.meter.open(flight.make(unguarded=True))

    @event
    def on_llm_end(self, run_id: str, response: str, usage: Any = None) -> None:
        run = self._known(run_id)
        flight = None if run is None else run.flight
        if run is None or flight is None:
            return
        flight.said = [str(response or "")] if not flight.taken else flight.said
        if usage is None:
            self._ended(run, flight)
            if not flight.taken:
                flight.streamed("".join(flight.said))

    @event
    def on_cache_hit(self, run_id: str, model: str, response: str = "") -> None:
        run = self._known(run_id)
        if run is not None and run.flight is not None:
            run.flight.cached = True

    @event
    def on_usage(self, run_id: str, usage: Any) -> None:
        """The only event that counts; `on_llm_end` says the same numbers before it."""
        run = self._known(run_id)
        flight = None if run is None else run.flight
        if self._deaf(run_id):
            return
        if run is None or flight is None:
            # Told of a call that nobody announced, by an agent that was joined halfway.
            prompt = Prompt(str(getattr(usage, "model", "") or ""), "", ())
            Flight(self.meter, run, prompt).answered(usage, "")
            return
        self._ended(run, flight)
        if not flight.taken:
            run.waiting = (flight, usage, "".join(flight.said))

    @event
    def on_llm_retry(
        self, run_id: str, attempt: int, max_retries: int, error: BaseException, backoff_seconds: float = 0.0
    ) -> None:
        run = self._known(run_id)
        if run is not None and run.flight is not None:
            flight, run.flight = run.flight, None
            self._failed(flight, error)

    # ------------------------------------------------------------------------------------------------- tools

    @event
    def on_tool_start(self, run_id: str, call_id: str, tool_name: str, tool_args: Any = None) -> None:
        run = self._known(run_id) or self._begin(run_id, "agent", None)
        if run is None:
            return
        self._settle(run, asked_for=tool_name)
        call = self._tool_call(run, tool_name, tool_args)
        call.call_id = call_id or ""
        self.meter.open(call)
        with run.lock:
            run.tools.setdefault((call.call_id, tool_name), []).append(call)
        enter(call)

    @event
    def on_tool_chunk(self, run_id: str, call_id: str, tool_name: str, chunk: Any = None) -> None:
        call = self._tool(run_id, call_id, tool_name)
        if call is not None:
            call.chunk_count += 1

    @event
    def on_tool_end(
        self, run_id: str, call_id: str, tool_name: str, result: Any = None, duration_ms: float = 0.0
    ) -> None:
        call = self._tool(run_id, call_id, tool_name, take=True)
        if call is not None:
            call.response = result
            self.meter.close(call)

    @event
    def on_tool_error(
        self,
        run_id: str,
        call_id: str,
        tool_name: str,
        error: BaseException,
        tool_args: Any = None,
        duration_ms: float = 0.0,
    ) -> None:
        call = self._tool(run_id, call_id, tool_name, take=True)
        if call is not None:
            call.error = error
            self.meter.close(call, status=ERROR, error_type=error_name(error))

    @event
    def on_policy_decision(
        self, run_id: str, tool_name: str, decision: str, reason: str = "", tool_args: Any = None
    ) -> None:
        run = self._known(run_id)
        if run is None:
            return
        self._settle(run, asked_for=tool_name)
        if str(decision) == "deny":
            run.told[tool_name] += 1
            call = self._tool_call(run, tool_name, tool_args)
            self.meter.close(self.meter.open(call), status=DENIED, error_type="PolicyDenied")

    # ------------------------------------------------------------------------------------------------ graphs

    @event
    def on_graph_start(self, run_id: str, graph_name: str, entry_node: str, state: Any = None) -> None:
        self._begin(run_id, str(graph_name or "graph"), None, graph=True)

    @event
    def on_graph_end(self, run_id: str, graph_name: str, steps: int, total_duration_ms: float) -> None:
        run = self._known(run_id)
        if run is not None:
            self._end(run, OK, None)

    @event
    def on_graph_error(self, run_id: str, graph_name: str, node_name: str, error: BaseException) -> None:
        run = self._known(run_id)
        if run is not None:
            run.call.error = error
            self._end(run, ERROR, error_name(error))

    @event
    def on_node_start(self, run_id: str, node_name: str, step: int) -> None:
        run = self._known(run_id)
        if run is not None:
            self._end_step(run)
            self._begin_step(run, str(node_name), step)

    @event
    def on_node_end(self, run_id: str, node_name: str, step: int, duration_ms: float) -> None:
        run = self._known(run_id)
        if run is not None:
            self._end_step(run)

    def __getattr__(self, name: str) -> Any:
        """selectools calls whatever it has to tell; the other events are nothing to a meter."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)

    # -------------------------------------------------------------------------------------- what they all do

    def _known(self, run_id: str) -> Run | None:
        run = self._desk.runs.get(run_id)
        return run if run is not None and run.owner is self else None

    def _deaf(self, run_id: str) -> bool:
        """Another observer of this meter tells of this run."""
        run = self._desk.runs.get(run_id)
        return run is not None and run.owner is not self

    def _begin(self, run_id: str, name: str, messages: Any, *, graph: bool = False) -> Run | None:
        if self._deaf(run_id):
            return None
        run = Run(self.meter, run_id, self, name, graph=graph)
        outer = run.outer = current.get()
        if outer is not None and outer.graph and outer.meter is self.meter:
            run.call.parent = outer.holder
        if self.meter.wants_content:
            run.call.content = messages
        self.meter.open(run.call)
        self._desk.add(run)
        current.set(run)
        run.lost = functools.partial(self._lost, run)
        run.unwatch = when_task_ends(run.lost)
        return run

    def _end(self, run: Run, status: Status, error_type: str | None) -> None:
        self._desk.drop(run)
        if run.unwatch is not None:
            run.unwatch()
        with run.lock:
            left = [call for calls in run.tools.values() for call in calls]
            run.tools = {}
        for call in left:
            self.meter.close(call, status=ABANDONED, error_type="abandoned")
        self._end_step(run, status, error_type)
        if current.get() is run:
            current.set(run.outer)
        self.meter.close(run.call, status=status, error_type=error_type)

    def _lost(self, run: Run, status: Status) -> None:
        if not run.call.done:
            self._settle(run, asyncio.CancelledError() if status is CANCELLED else None)
            self._end(run, status, status.value)

    def _begin_step(self, run: Run, name: str, number: int) -> None:
        step = Call(Kind.STEP, name, parent=run.call, framework=FRAMEWORK, step=name)
        step.step_number = number
        run.step = self.meter.open(step)

    def _end_step(self, run: Run, status: Status = OK, error_type: str | None = None) -> None:
        step, run.step = run.step, None
        if step is not None:
            self.meter.close(step, status=status, error_type=error_type)

    def _ended(self, run: Run, flight: Flight) -> None:
        run.flight, run.attempts = None, 0
        run.status, run.error_type = OK, None
        self._desk.withdraw(flight)

    def _failed(self, flight: Flight, error: BaseException | None) -> None:
        self._desk.withdraw(flight)
        if not flight.taken:
            flight.failed(error)

    def _settle(self, run: Run, error: BaseException | None = None, *, asked_for: str = "") -> None:
        """What selectools said of the last call is complete now: the tools it asked for are in the conversation."""
        waiting, run.waiting = run.waiting, None
        if waiting is not None:
            flight, usage, said = waiting
            asked = tools_of(flight.prompt.messages, flight.prompt.count) or ([asked_for] if asked_for else [])
            flight.answered(usage, said, asked)
        unended, run.flight = run.flight, None
        if unended is not None:
            # It began and has no end: retries are used up, of which there is no event, or an error ended it.
            self._failed(unended, error)
            run.status, run.error_type = ERROR, error_name(error) if error is not None else "ProviderError"

    def _tool(self, run_id: str, call_id: str, name: str, *, take: bool = False) -> Call | None:
        """The open call of a tool. Ids may be empty or repeated: the one of this context, else the oldest."""
        run = self._known(run_id)
        if run is None:
            return None
        with run.lock:
            calls = run.tools.get((call_id or "", name))
            if not calls:
                return None
            here = attribution.running.get()
            call = here if here in calls else calls[0]
            assert call is not None
            if take:
                calls.remove(call)
                if not calls:
                    del run.tools[call_id or "", name]
                run.told[name] += 1
        if take:
            leave(call)
        return call

    def _tool_call(self, run: Run, name: str, params: Any) -> Call:
        """A tool call of a run: told of, and not to be stopped from here."""
        call = Call(Kind.TOOL, name, parent=run.holder, framework=FRAMEWORK)
        call.params = dict(params) if isinstance(params, Mapping) else EMPTY
        call.unguarded = True
        return call

    def _reconcile(self, run: Run, result: Any) -> None:
        """Tools that were asked for and did not run: unknown ones, malformed, denied, or answered from a cache."""
        for found in untold(result, run.told):
            call = self._tool_call(run, found.name, found.params)
            call.tags = FrozenMap(found.tags) if found.tags else EMPTY
            self.meter.close(self.meter.open(call), status=found.status, error_type=found.error_type)

    def _warn_of_guards(self) -> None:
        if self.meter.plugins.guarded and not self._desk.warned:
            self._desk.warned = True
            logging.getLogger("agent_meter").warning(
                "A guard of this meter cannot stop selectools: it swallows what observers raise. Wrap the provider, "
                "MeteredProvider(provider, meter), and calls that are denied will not be made."
            )


def _nothing(*_: Any, **__: Any) -> None:
    return None
