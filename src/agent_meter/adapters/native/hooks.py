"""WorkflowHooks: callbacks on runs and steps, by the names of the seed documents."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ...hookspecs import hookimpl
from ...records import CANCELLED, DENIED, OK, RUN, STEP, TOOL, Call, Record, RunRecord, ToolRecord
from ...usage import AgentUsage
from .delivery import Delivery
from .workflow import WorkflowResult, WorkflowState, WorkflowStep

if TYPE_CHECKING:
    from ...meter import Meter
    from ...tree import RunTree

Hook = Callable[..., Any] | None
_ABOUT_STEPS = ("on_step_complete", "on_step_error", "on_iteration_complete")
_ABOUT_RUNS = ("on_workflow_complete", "on_workflow_error")


class WorkflowHooks(Delivery):
    """Callbacks, `def` or `async def`, on every run and step that a meter sees: `meter.observe(WorkflowHooks(…))`.

        def log_usage(state, step):
            print(f"Step {step.step_number} used {state.context['usage']['tokens']} tokens")

        meter.observe(WorkflowHooks(on_step_complete=log_usage))

    `state.context["usage"]` is the step's own: every model call counts in the nearest step around it. In
    `on_workflow_complete` and `on_workflow_error` it is the whole run's, sub-agents included. Tools are actions
    (`on_action`) and what they answer observations; thoughts and compactions are told by own loops
    (`run.thought(…)`, `meter.tell("on_compaction", …)`). Content is asked for when there is somebody to give it to:
    an `on_observation`, or `wants_content=True`.

    What a callback raises is counted in `meter.health()`, and the run goes on. `trigger_…` are for frameworks that
    dispatch hooks themselves.
    """

    def __init__(
        self,
        on_workflow_start: Hook = None,
        on_workflow_complete: Hook = None,
        on_workflow_error: Hook = None,
        on_step_start: Hook = None,
        on_step_complete: Hook = None,
        on_step_error: Hook = None,
        on_iteration_start: Hook = None,
        on_iteration_complete: Hook = None,
        on_thought: Hook = None,
        on_action: Hook = None,
        on_observation: Hook = None,
        on_compaction: Hook = None,
        *,
        wants_content: bool | None = None,
    ) -> None:
        self.on_workflow_start = on_workflow_start
        self.on_workflow_complete = on_workflow_complete
        self.on_workflow_error = on_workflow_error
        self.on_step_start = on_step_start
        self.on_step_complete = on_step_complete
        self.on_step_error = on_step_error
        self.on_iteration_start = on_iteration_start
        self.on_iteration_complete = on_iteration_complete
        self.on_thought = on_thought
        self.on_action = on_action
        self.on_observation = on_observation
        self.on_compaction = on_compaction
        self.wants_content = on_observation is not None if wants_content is None else wants_content
        self._states: dict[str, WorkflowState] = {}
        self._calls: dict[str, Call] = {}
        self._numbers: dict[str, int] = {}
        self._lock = threading.RLock()

    # -------------------------------------------------------------------------------------------- the hooks

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._start(meter)

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        kind = call.kind
        if kind is RUN:
            state = WorkflowState(run_id=call.id, name=call.name)
            with self._lock:
                self._states[call.id], self._calls[call.id] = state, call
            self._tell("on_workflow_start", self.on_workflow_start, state)
        elif kind is STEP:
            self._step_begins(call)
        elif kind is TOOL:
            self._calls[call.id] = call
            state = self._state(call.run_id)
            state.current_action = {"tool": call.name, "args": call.params}
            self._tell("on_action", self.on_action, state, call.name, call.params)

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if isinstance(record, ToolRecord):
            self._observed(record)
        elif isinstance(record, RunRecord):
            if record.kind is STEP:
                self._step_ended(record)
            else:
                self._run_ended(record)

    def hear_event(self, event: str, *about: Any) -> None:
        """What an own loop tells: thoughts and compactions."""
        if event == "on_thought":
            run_id, thought = about
            state = self._state(run_id)
            state.current_thought = thought
            self._tell("on_thought", self.on_thought, state, thought)
        elif event == "on_compaction":
            self._tell("on_compaction", self.on_compaction, *about)

    # ----------------------------------------------------------------------------------------- steps, tools

    def _step_begins(self, call: Call) -> None:
        with self._lock:
            state = self._state(call.run_id)
            number = call.step_number or state.iteration_count + 1
            state.current_step = number
            state.iteration_count += 1
            self._calls[call.id], self._numbers[call.id] = call, number
        self._tell("on_iteration_start", self.on_iteration_start, state, number)
        self._tell("on_step_start", self.on_step_start, state, number, _type(call.name, number))

    def _step_ended(self, record: RunRecord) -> None:
        with self._lock:
            call = self._calls.pop(record.id, None)
            state = self._state(record.run_id)
            number = self._numbers.pop(record.id, record.step_number or 1)
        content = call if self.wants_content else None
        usage = self._used(record, _ABOUT_STEPS, _of_step)
        step = WorkflowStep(
            number,
            _type(record.name, number),
            record.name,
            input_data=None if content is None else content.content,
            output_data=None if content is None else content.response,
            error=_error(record, call),
            started_at=record.started_at,
            completed_at=record.started_at + timedelta(seconds=record.duration),
            metadata={**record.tags, "id": record.id, "status": str(record.status)},
            usage=usage,
        )
        with self._lock:
            state.add_step(step)
            now = state.with_usage(_summary(usage))
        if record.status is OK:
            self._tell("on_step_complete", self.on_step_complete, now, step)
        else:
            self._tell("on_step_error", self.on_step_error, now, step, step.error)
        self._tell("on_iteration_complete", self.on_iteration_complete, now, number)

    def _observed(self, record: ToolRecord) -> None:
        call = self._calls.pop(record.id, None)
        if record.status is DENIED or record.paused:
            return
        answer = call.response if call is not None and self.wants_content else None
        if answer is None and not record.success:
            error = call.error if call is not None and self.wants_content else None
            answer = record.error_type if error is None else f"{type(error).__name__}: {error}"
        observation = "" if answer is None else _text(answer)
        state = self._state(record.run_id)
        state.current_observation = observation
        self._tell("on_observation", self.on_observation, state, observation, not record.success)

    def _run_ended(self, record: RunRecord) -> None:
        with self._lock:
            state = self._states.pop(record.id, None) or WorkflowState(run_id=record.id, name=record.name)
            call = self._calls.pop(record.id, None)
        state.is_complete = record.status is OK
        state.is_failed = not state.is_complete
        now = state.with_usage(_summary(self._used(record, _ABOUT_RUNS, lambda tree: tree.usage)))
        if record.status is OK:
            output = call.response if call is not None and self.wants_content else None
            result = WorkflowResult.ok(output, now, record.duration)
            self._tell("on_workflow_complete", self.on_workflow_complete, result)
        else:
            self._tell("on_workflow_error", self.on_workflow_error, now, _error(record, call))

    def _state(self, run_id: str | None) -> WorkflowState:
        """The state of a run; a step or a tool that stands alone has one of its own."""
        return self._states.get(run_id or "") or WorkflowState(run_id=run_id or "")

    def _used(self, record: RunRecord, events: tuple[str, ...], part: Callable[[RunTree], AgentUsage]) -> AgentUsage:
        """What a step or a run has used; walking its tree is left out where nobody listens."""
        if all(getattr(self, event) is None for event in events):
            return record.usage
        try:
            return part(self._meter.accounts.run(record.id))
        except LookupError:  # more than 10,000 runs and steps since it began
            return record.usage

    # -------------------------------------------------------------------- for frameworks that dispatch themselves

    async def _trigger(self, event: str, *args: Any) -> None:
        hook = getattr(self, event)
        if hook is None:
            return
        try:
            answer = hook(*args)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:
            self._failed(event, error)

    async def trigger_workflow_start(self, state: Any) -> None:
        await self._trigger("on_workflow_start", state)

    async def trigger_workflow_complete(self, result: Any) -> None:
        await self._trigger("on_workflow_complete", result)

    async def trigger_workflow_error(self, state: Any, error: Any) -> None:
        await self._trigger("on_workflow_error", state, error)

    async def trigger_step_start(self, state: Any, step_number: int, step_type: str) -> None:
        await self._trigger("on_step_start", state, step_number, step_type)

    async def trigger_step_complete(self, state: Any, step: Any) -> None:
        await self._trigger("on_step_complete", state, step)

    async def trigger_step_error(self, state: Any, step: Any, error: Any) -> None:
        await self._trigger("on_step_error", state, step, error)

    async def trigger_iteration_start(self, state: Any, iteration: int) -> None:
        await self._trigger("on_iteration_start", state, iteration)

    async def trigger_iteration_complete(self, state: Any, iteration: int) -> None:
        await self._trigger("on_iteration_complete", state, iteration)

    async def trigger_thought(self, state: Any, thought: str) -> None:
        await self._trigger("on_thought", state, thought)

    async def trigger_action(self, state: Any, tool_name: str, tool_args: Mapping[str, Any] | str) -> None:
        await self._trigger("on_action", state, tool_name, tool_args)

    async def trigger_observation(self, state: Any, observation: str, is_error: bool = False) -> None:
        await self._trigger("on_observation", state, observation, is_error)

    async def trigger_compaction(self, result: Any) -> None:
        await self._trigger("on_compaction", result)


ReActHooks = WorkflowHooks  # the seed documents have two classes: one with the four callbacks on reasoning, one without


def _text(answer: Any) -> str:
    """A tool's answer as text; frameworks wrap it in a message."""
    content = getattr(answer, "content", answer)
    return content if isinstance(content, str) else str(answer)


def _type(name: str, number: int) -> str:
    return "step" if name in ("", "step", f"step {number}") else name


def _error(record: RunRecord, call: Call | None) -> BaseException | str | None:
    if record.status is OK:
        return None
    error = None if call is None else call.error
    if error is None and record.status is CANCELLED:
        return record.error_type or "cancelled"
    return error or record.error_type or str(record.status)


def _of_step(tree: RunTree) -> AgentUsage:
    """What counts in this step: its own calls, and those of the tools and runs below it that no step is nearer to."""
    totals = tree.own.totals.copy()
    waiting = [child for child in tree.children if child.kind != STEP]
    while waiting:
        below = waiting.pop()
        totals.merge(below.own.totals)
        waiting += [child for child in below.children if child.kind != STEP]
    return AgentUsage.snapshot(totals)


def _summary(usage: AgentUsage) -> dict[str, Any]:
    """The `usage` of the seed's sample; money is `Decimal` US dollars."""
    return {
        "tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "embedding_tokens": usage.embedding_tokens,
        "requests": usage.requests,
        "unpriced_requests": usage.unpriced_requests,
        "cost_usd": usage.cost_usd,
        "billed_cost_usd": usage.billed_cost_usd,
        "tool_usage": usage.tool_usage,
    }
