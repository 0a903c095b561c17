"""AgentObserver: the events that a meter can truthfully send, by the names of the seed documents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ...hookspecs import hookimpl
from ...records import (
    CANCELLED,
    DENIED,
    ERROR,
    OK,
    RUN,
    STEP,
    TOOL,
    Call,
    Denial,
    Record,
    RunRecord,
    ToolRecord,
    UsageRecord,
    dollars,
)
from .delivery import Delivery
from .seed_events import SeedEvents

if TYPE_CHECKING:
    from ...meter import Meter

RETRIES_KEPT = 1000  # failed calls whose next attempt may come


class AgentObserver(Delivery, SeedEvents):
    """Override what you want to hear, as `def` or as `async def`; then `meter.observe(Mine())`.

    The names and the order of arguments are those of the seed documents. `run_id` is the run around the call, or the
    call's own id where there is none. `duration_ms` is milliseconds. `messages`, `response`, `chunk` and `result` of a
    tool are `None` unless the class says `wants_content = True`; content is never stored.

    An `async def` method runs as a task of the running event loop, or, in synchronous code, on a loop in a thread of
    its own; `drain()` and `await adrain()` wait for it. The seed's other events are no-ops here (`SeedEvents`).
    """

    _open_calls: dict[str, Call]
    _iterations: dict[str, int]
    _numbers: dict[str, int]
    _failures: OrderedDict[tuple[str, str], str]

    # ------------------------------------------------------------------------------------------ the events

    def on_run_start(self, run_id: str, messages: Any, system_prompt: str) -> Any:
        """A run of an agent begins."""

    def on_run_end(self, run_id: str, result: RunRecord) -> Any:
        """It has ended, however; `result.status` says how, `result.usage` are the totals of its own calls."""

    def on_error(self, run_id: str, error: BaseException | str, context: Mapping[str, Any]) -> Any:
        """A run failed; `on_run_end` follows. `context` names it: `run`, `agent`, `iteration`, `duration_ms`."""

    def on_cancelled(self, run_id: str, iteration: int, reason: str) -> Any:
        """A run was stopped from outside, in its `iteration`-th step; `on_run_end` follows."""

    def on_iteration_start(self, run_id: str, iteration: int, messages: Any) -> Any:
        """A step begins: the `iteration`-th of its run, from 1, or the number that its framework gave it."""

    def on_iteration_end(self, run_id: str, iteration: int, response: Any) -> Any:
        """It has ended, however."""

    def on_llm_start(self, run_id: str, messages: Any, model: str, system_prompt: str) -> Any:
        """An admitted model call is on its way."""

    def on_llm_end(self, run_id: str, response: Any, usage: UsageRecord) -> Any:
        """It was answered. `on_usage` follows with the same numbers: count one of the two."""

    def on_llm_error(self, run_id: str, error: BaseException | str, usage: UsageRecord) -> Any:
        """It failed, was cancelled or was given up; `error` is the exception, or its name where that is all."""

    def on_llm_retry(
        self, run_id: str, attempt: int, max_retries: int | None, error: str | None, backoff_seconds: float | None
    ) -> Any:
        """The `attempt`-th attempt has failed, with an `error` of that name, and the next one begins.

        Also the requests that a client made again by itself, where a transport tap saw them: these are told when the
        call has ended, with the seconds that it waited. `max_retries` is `None`, and so is `backoff_seconds` of
        others: that is between the caller and its retry policy.
        """

    def on_usage(self, run_id: str, usage: UsageRecord) -> Any:
        """A model call has ended: once for each, whatever its status, cached replays and embeddings included.

        Denied calls used nothing and are not told. `usage.cost_usd` is the list price (`Decimal`), `None` when
        unpriced. A call that was given up and answers after all is told again, and `usage.corrects` is what was told.
        """

    def on_cache_hit(self, run_id: str, model: str, response: Any) -> Any:
        """A model call was answered from a cache; `on_usage` follows with `usage.cached`."""

    def on_tool_start(self, run_id: str, call_id: str, tool_name: str, tool_args: Mapping[str, Any]) -> Any:
        """A tool begins."""

    def on_tool_chunk(self, run_id: str, call_id: str, tool_name: str, chunk: Any) -> Any:
        """A tool of an own loop has produced another chunk."""

    def on_tool_end(self, run_id: str, call_id: str, tool_name: str, result: Any, duration_ms: float) -> Any:
        """It succeeded."""

    def on_tool_error(
        self,
        run_id: str,
        call_id: str,
        tool_name: str,
        error: BaseException | str,
        tool_args: Mapping[str, Any],
        duration_ms: float,
    ) -> Any:
        """It failed; `error` is the exception, or its name where that is all."""

    def on_policy_decision(
        self, run_id: str, tool_name: str, decision: str, reason: str, tool_args: Mapping[str, Any]
    ) -> Any:
        """A guard has refused a tool call; `decision` is "deny"."""

    def on_budget_exceeded(self, run_id: str, reason: str, tokens_used: int, cost_used: Any) -> Any:
        """A model or tool call was refused before it was made.

        `tokens_used` and `cost_used` (US dollars, `Decimal`) are what its run had used so far, sub-agents included;
        where there is no run, what the meter has counted in this process. The one in which a budget counts is the
        budget's own.
        """

    # -------------------------------------------------------------------------------------------- the hooks

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        for name in ("_open_calls", "_iterations", "_numbers"):
            self.__dict__.setdefault(name, {})
        self.__dict__.setdefault("_failures", OrderedDict())
        self._start(meter)

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        self._open_calls[call.id] = call
        kind, run_id = call.kind, call.run_id or call.id
        content = call.content if self.wants_content else None
        if kind is RUN:
            self._tell("on_run_start", self.on_run_start, run_id, content, "")
        elif kind is TOOL:
            call_id = call.call_id or call.id
            self._tell("on_tool_start", self.on_tool_start, run_id, call_id, call.name, call.params)
        elif kind is STEP:
            self._tell("on_iteration_start", self.on_iteration_start, run_id, self._next(call), content)
        else:
            model = call.model.name if call.model else ""
            if call.attempt > 1:
                parent = call.parent.id if call.parent is not None else ""
                failure = self._failures.pop((parent, model), None)
                self._tell("on_llm_retry", self.on_llm_retry, run_id, call.attempt - 1, None, failure, None)
            self._tell("on_llm_start", self.on_llm_start, run_id, content, model, "")

    @hookimpl
    def meter_record(self, record: Record) -> None:
        call = self._open_calls.pop(record.id, None)
        response = call.response if call is not None and self.wants_content else None
        error = (call.error if call is not None else None) or record.error_type or str(record.status)
        run_id = record.run_id or record.id
        if isinstance(record, UsageRecord):
            self._usage(record, run_id, response, error)
        elif isinstance(record, ToolRecord):
            call_id, milliseconds = record.call_id or record.id, record.duration * 1000
            if record.success:
                self._tell("on_tool_end", self.on_tool_end, run_id, call_id, record.name, response, milliseconds)
            elif record.status is not DENIED and not record.paused:
                told = (run_id, call_id, record.name, error, record.params, milliseconds)
                self._tell("on_tool_error", self.on_tool_error, *told)
        elif record.kind is STEP:
            number = self._numbers.pop(record.id, record.step_number or 1)
            self._tell("on_iteration_end", self.on_iteration_end, run_id, number, response)
        else:
            self._ended(record, run_id, error)

    def _usage(self, record: UsageRecord, run_id: str, response: Any, error: BaseException | str) -> None:
        if record.status is DENIED:
            return
        for number, (failed, following) in enumerate(pairwise(record.attempts), 1):
            told = (run_id, number, None, failed.error_type, following.waited)
            self._tell("on_llm_retry", self.on_llm_retry, *told)
        if record.status is OK:
            self._tell("on_llm_end", self.on_llm_end, run_id, response, record)
        else:
            if record.status is ERROR and record.parent_id is not None:
                self._failures[record.parent_id, record.request_model] = record.error_type or "error"
                if len(self._failures) > RETRIES_KEPT:
                    self._failures.popitem(last=False)
            self._tell("on_llm_error", self.on_llm_error, run_id, error, record)
        if record.cached:
            self._tell("on_cache_hit", self.on_cache_hit, run_id, record.model, response)
        self._tell("on_usage", self.on_usage, run_id, record)

    def _ended(self, record: RunRecord, run_id: str, error: BaseException | str) -> None:
        iteration = self._iterations.pop(run_id, 0)
        if record.status is ERROR:
            context = {
                "run": record.name,
                "agent": record.agent,
                "iteration": iteration,
                "duration_ms": record.duration * 1000,
            }
            self._tell("on_error", self.on_error, run_id, error, context)
        elif record.status is CANCELLED:
            self._tell("on_cancelled", self.on_cancelled, run_id, iteration, record.error_type or "cancelled")
        self._tell("on_run_end", self.on_run_end, run_id, record)

    def _next(self, step: Call) -> int:
        """The number of a step that begins, for its end too."""
        run = step.run_id
        before = self._iterations.get(run, 0) if run else 0
        number = self._numbers[step.id] = step.step_number or before + 1
        if run and run in self._open_calls:
            self._iterations[run] = number
        return number

    # ------------------------------------------------------------------------------ what is no record

    def hear_event(self, event: str, *about: Any) -> None:
        """What the meter or an own loop tells beside calls and records; the meter calls it."""
        if event == "denied":
            self._denied(*about)
        elif event == "chunk":
            call, chunk = about
            told = (call.run_id or call.id, call.call_id or call.id, call.name, chunk if self.wants_content else None)
            self._tell("on_tool_chunk", self.on_tool_chunk, *told)
        else:
            self._tell(event, getattr(self, event, None), *about)

    def _denied(self, call: Call, denial: Denial) -> None:
        run_id = call.run_id or call.id
        if call.kind is TOOL:
            decided = (run_id, call.name, "deny", denial.reason, call.params)
            self._tell("on_policy_decision", self.on_policy_decision, *decided)
        accounts = self._meter.accounts  # a store would be I/O on the caller's path
        try:
            used = accounts.run(call.run_id).usage if call.run_id else accounts.usage()
        except LookupError:
            used = accounts.usage()
        tokens, cost = used.total_tokens, used.cost_usd
        if denial.used is not None and denial.unit == "tokens":
            tokens = denial.used
        elif denial.used is not None and denial.unit == "usd_pico":
            cost = dollars(denial.used)
        self._tell("on_budget_exceeded", self.on_budget_exceeded, run_id, denial.reason, tokens, cost)
