"""Hooks for mamba-agents' workflows. They cannot refuse a call: what they are told of has happened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from ...meter import Meter, default_meter
from ...records import CANCELLED, ERROR, OK, Call, Kind, Status
from ...tree import RunTree
from ..tasks import when_task_ends
from .mending import mend_usage
from .runs import FRAMEWORK, Run, current, desk_of, enter, leave
from .told import of_last_run, record_failure, record_messages


class MeterWorkflowHooks:
    """Tells a meter of workflows: `ReActWorkflow(agent, hooks=MeterWorkflowHooks(meter))`, any other `Workflow` too.

    A run for the workflow, a step for each of its steps, and in it the model calls and tools that the messages of the
    agent tell of, failed steps and timeouts included. With a `MeteredModel` and a `MeteredToolset` of the same meter
    each call is recorded when it is made, with its own duration, and counted once.

    A workflow takes one hooks object: give your own to `hooks`, and they are called after these. In
    `on_step_complete(state, step)` they find the step's usage in `state.metadata["usage"]`, and in
    `state.context["usage"]` where the context is a mapping. One object may serve any number of workflows.
    """

    def __init__(self, meter: Meter | None = None, *, hooks: Any = None) -> None:
        self.meter = meter if meter is not None else default_meter()
        self._hooks = hooks
        self._desk = desk_of(self.meter)
        self._warned = False
        self._fenced("mending", mend_usage)

    # ------------------------------------------------------- what a workflow calls, in its own task and in this order

    async def trigger_workflow_start(self, state: Any) -> None:
        self._fenced("workflow_start", self._start, state)
        await self._pass_on("trigger_workflow_start", state)

    async def trigger_iteration_start(self, state: Any, iteration: int) -> None:
        await self._pass_on("trigger_iteration_start", state, iteration)

    async def trigger_step_start(self, state: Any, step_number: int, step_type: str) -> None:
        self._fenced("step_start", self._start_step, state, step_number, step_type)
        await self._pass_on("trigger_step_start", state, step_number, step_type)

    async def trigger_step_complete(self, state: Any, step: Any) -> None:
        self._fenced("step_complete", self._end_step, state, step)
        await self._pass_on("trigger_step_complete", state, step)

    async def trigger_step_error(self, state: Any, step: Any, error: Exception) -> None:
        self._fenced("step_error", self._end_step, state, step, error)
        await self._pass_on("trigger_step_error", state, step, error)

    async def trigger_iteration_complete(self, state: Any, iteration: int) -> None:
        await self._pass_on("trigger_iteration_complete", state, iteration)

    async def trigger_workflow_complete(self, result: Any) -> None:
        self._fenced("workflow_complete", self._end, getattr(result, "state", None), result=result)
        await self._pass_on("trigger_workflow_complete", result)

    async def trigger_workflow_error(self, state: Any, error: Exception) -> None:
        self._fenced("workflow_error", self._end, state, error)
        await self._pass_on("trigger_workflow_error", state, error)

    async def trigger_thought(self, state: Any, thought: str) -> None:
        await self._pass_on("trigger_thought", state, thought)

    async def trigger_action(self, state: Any, tool_name: str, tool_args: Any) -> None:
        await self._pass_on("trigger_action", state, tool_name, tool_args)

    async def trigger_observation(self, state: Any, observation: str, is_error: bool = False) -> None:
        await self._pass_on("trigger_observation", state, observation, is_error)

    async def trigger_compaction(self, result: Any) -> None:
        await self._pass_on("trigger_compaction", result)

    async def _pass_on(self, name: str, *args: Any) -> None:
        """To the user's own hooks; what they raise is theirs to raise, as it is without us."""
        theirs = getattr(self._hooks, name, None)
        if theirs is not None:
            await theirs(*args)

    def _fenced(self, event: str, hook: Any, *args: Any, **named: Any) -> None:
        try:
            hook(*args, **named)
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, event, error)
            if self.meter.plugins.strict:
                raise

    # -------------------------------------------------------------------------------------------- runs and steps

    def _start(self, state: Any) -> Run:
        self._end_timed_out()
        run = Run(self.meter, state)
        run.outer = current.get()
        if self.meter.wants_content:
            run.call.content = getattr(getattr(state, "context", None), "task", None)
        self.meter.open(run.call)
        self._desk.runs[id(state)] = run
        current.set(run)
        enter(run.call)
        run.unwatch = when_task_ends(lambda status: self._lost(run, status))
        self._warn_of_guards()
        return run

    def _start_step(self, state: Any, number: int, kind: str) -> None:
        run = self._desk.runs.get(id(state)) or self._start(state)
        self._close_step(run)
        step = Call(Kind.STEP, f"step {number}", parent=run.call, framework=FRAMEWORK, step=f"step {number}")
        step.step_number = number
        run.step = self.meter.open(step)
        run.requests = 0
        enter(step)
        run.messages, run.release = _listen()

    def _end_step(self, state: Any, step: Any, error: BaseException | None = None) -> None:
        run = self._desk.runs.get(id(state))
        if run is None or run.step is None:
            self._start_step(state, getattr(step, "step_number", 1), str(getattr(step, "step_type", "")))
            run = self._desk.runs[id(state)]
        answer = getattr(step, "agent_result", None)
        messages = _messages_of(answer)
        self._settle(run, messages if messages is not None else run.messages, error)
        usage = self._usage(run)
        self._close_step(run, OK if error is None else ERROR, error)
        _leave_note(state, usage)

    def _settle(self, run: Run, messages: list[Any] | None, error: BaseException | None, over: bool = False) -> None:
        """Record what nobody has seen of a step that is over."""
        if run.release is not None:
            run.release()
            run.release = None
        seen = self._seen_elsewhere(run)
        if messages:
            record_messages(run, of_last_run(messages), answers=not seen)
        if (error is not None or over) and not run.requests and not self._desk.models and not seen:
            record_failure(run, error)

    def _seen_elsewhere(self, run: Run) -> bool:
        """A transport tap or a wrapped client counts the requests of this step."""
        tree = self._tree(run)
        return tree is not None and tree.own.requests > run.requests

    def _close_step(self, run: Run, status: Status = OK, error: BaseException | None = None) -> None:
        step, run.step = run.step, None
        if step is None:
            return
        step.error = error
        leave(step)
        self.meter.close(step, status=status, error_type=None if error is None else type(error).__name__)

    def _end(self, state: Any, error: BaseException | None = None, *, result: Any = None) -> None:
        run = self._desk.runs.get(id(state))
        if run is not None:
            if self.meter.wants_content:
                run.call.response = getattr(result, "output", None)
            run.call.error = error
            name = None if error is None else type(error).__name__
            self._finish(run, OK if error is None else ERROR, name)

    def _finish(self, run: Run, status: Status, error_type: str | None) -> None:
        self._desk.runs.pop(id(run.state), None)
        if run.unwatch is not None:
            run.unwatch()
        if run.step is not None:
            step, run.step = run.step, None
            leave(step)
            self.meter.close(step, status=status, error_type=error_type)
        leave(run.call)
        if current.get() is run:
            current.set(run.outer)
        self.meter.close(run.call, status=status, error_type=error_type)

    # ------------------------------------------------------------------ runs of whose end no hook tells: timeouts

    def _end_timed_out(self) -> None:
        for run in list(self._desk.runs.values()):
            if run.timed_out:
                self._lost(run, ERROR)

    def _lost(self, run: Run, status: Status) -> None:
        if run.call.done:
            return
        error = asyncio.CancelledError() if status is CANCELLED and not run.timed_out else None
        if run.step is not None:
            enter(run.step)
            self._settle(run, run.messages, error, over=True)
        if run.timed_out:
            self._finish(run, ERROR, "TimeoutError")
        else:
            self._finish(run, status, status.value)

    def _tree(self, run: Run) -> RunTree | None:
        """The step that is going on; None when so much has happened in it that the meter no longer has it."""
        try:
            return None if run.step is None else self.meter.tree(run.step.id)
        except LookupError:
            return None

    def _usage(self, run: Run) -> dict[str, Any]:
        tree = self._tree(run)
        if tree is None:
            return {}
        usage = tree.usage
        return {
            "tokens": usage.total_tokens,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "requests": usage.requests,
            "unpriced_requests": usage.unpriced_requests,
            "cost_usd": usage.cost_usd,
            "billed_cost_usd": usage.billed_cost_usd,
        }

    def _warn_of_guards(self) -> None:
        if self.meter.plugins.guarded and not self._desk.models and not self._warned:
            self._warned = True
            logging.getLogger("agent_meter").warning(
                "A guard of this meter cannot stop a workflow through its hooks. Give the agent a metered model, "
                "Agent(MeteredModel(model, meter)), and calls that are denied will not be made."
            )


def _messages_of(result: Any) -> list[Any] | None:
    new_messages = getattr(result, "new_messages", None)
    return list(new_messages()) if callable(new_messages) else None


def _leave_note(state: Any, usage: dict[str, Any]) -> None:
    for place in (getattr(state, "metadata", None), getattr(state, "context", None)):
        if isinstance(place, MutableMapping):
            place["usage"] = usage


def _listen() -> tuple[list[Any] | None, Any]:
    """The messages of the agent's next run in this context, as they come: what a failed one leaves behind."""
    pydantic_ai = sys.modules.get("pydantic_ai")
    if pydantic_ai is None:
        return None, None
    listening = pydantic_ai.capture_run_messages()
    messages = listening.__enter__()
    if messages:
        listening.__exit__(None, None, None)  # somebody else's, and about another run
        return None, None

    def release() -> None:
        with contextlib.suppress(ValueError):  # in another context, which is over
            listening.__exit__(None, None, None)

    return messages, release
