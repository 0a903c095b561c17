"""AgentObserver: be told of every model call and tool call, in whichever framework it happens.

This adapter cannot refuse a call: guards do that (`meter_admit_call`). What an observer raises is counted in
`meter.health()` and goes no further.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ..hookspecs import hookimpl
from ..records import Call, Kind, Record, RunRecord, Status, ToolRecord, UsageRecord

if TYPE_CHECKING:
    import asyncio

    from ..meter import Meter


class AgentObserver:
    """Override what you want to hear, as `def` or as `async def`; then `meter.observe(Mine())`.

    The names and the order of arguments are those of the seed documents. `run_id` is the run around the call, or the
    call's own id where there is none. `duration_ms` is milliseconds. `messages`, `response` and `result` are `None`
    unless the class says `wants_content = True`; content is never stored.

    An `async def` method runs as a task of the running event loop, or, in synchronous code, on a loop in a thread of
    its own. `await observer.adrain()` or `observer.drain()` waits for what is still on its way: an event loop that
    closes earlier takes its events with it, which is counted in `meter.health()`.
    """

    wants_content = False
    _meter: Meter
    _open_calls: dict[str, Call]
    _tasks: set[Any]

    # ------------------------------------------------------------------------------------------ the events

    def on_run_start(self, run_id: str, messages: Any, system_prompt: str) -> Any:
        """A run of an agent begins."""

    def on_run_end(self, run_id: str, result: RunRecord) -> Any:
        """It has ended; `result.usage` are the totals of its own calls."""

    def on_llm_start(self, run_id: str, messages: Any, model: str, system_prompt: str) -> Any:
        """An admitted model call is on its way."""

    def on_llm_end(self, run_id: str, response: Any, usage: UsageRecord) -> Any:
        """It was answered. `on_usage` follows with the same numbers: count one of the two."""

    def on_llm_error(self, run_id: str, error: BaseException | str, usage: UsageRecord) -> Any:
        """It failed, was cancelled or was given up; `error` is the exception, or its name where that is all."""

    def on_usage(self, run_id: str, usage: UsageRecord) -> Any:
        """A model call has ended: once for each, whatever its status, cached replays and embeddings included.

        Denied calls used nothing and are not told. `usage.cost_usd` is the list price (`Decimal`), `None` when
        unpriced. A call that was given up and answers after all is told again, and `usage.corrects` is what was told.
        """

    def on_cache_hit(self, run_id: str, model: str, response: Any) -> Any:
        """A model call was answered from a cache; `on_usage` follows with `usage.cached`."""

    def on_tool_start(self, run_id: str, call_id: str, tool_name: str, tool_args: Mapping[str, Any]) -> Any:
        """A tool begins."""

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

    # -------------------------------------------------------------------------------------------- the hooks

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self.__dict__.setdefault("_open_calls", {})
        self.__dict__.setdefault("_tasks", set())
        self._meter = meter

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        self._open_calls[call.id] = call
        run_id = call.run_id or call.id
        content = call.content if self.wants_content else None
        if call.kind is Kind.RUN:
            self._tell(self.on_run_start, run_id, content, "")
        elif call.kind is Kind.TOOL:
            self._tell(self.on_tool_start, run_id, call.call_id or call.id, call.name, call.params)
        elif call.kind is not Kind.STEP:
            model = call.model.name if call.model else ""
            self._tell(self.on_llm_start, run_id, content, model, "")

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
                self._tell(self.on_tool_end, run_id, call_id, record.name, response, milliseconds)
            elif record.status is not Status.DENIED and not record.paused:
                self._tell(self.on_tool_error, run_id, call_id, record.name, error, record.params, milliseconds)
        elif record.kind is Kind.RUN:
            self._tell(self.on_run_end, run_id, record)

    def _usage(self, record: UsageRecord, run_id: str, response: Any, error: BaseException | str) -> None:
        if record.status is Status.DENIED:
            return
        if record.status is Status.OK:
            self._tell(self.on_llm_end, run_id, response, record)
        else:
            self._tell(self.on_llm_error, run_id, error, record)
        if record.cached:
            self._tell(self.on_cache_hit, run_id, record.model, response)
        self._tell(self.on_usage, run_id, record)

    # -------------------------------------------------------------------------------------------- delivery

    def _tell(self, method: Any, *args: Any) -> None:
        """One event; a method that raises is counted under its own name, and the next event is still told."""
        try:
            answer = method(*args)
            if inspect.iscoroutine(answer):
                self._send(method.__name__, answer)
        except Exception as error:
            self._failed(method.__name__, error)
            if self._meter.plugins.strict:
                raise

    def _failed(self, event: str, error: BaseException) -> None:
        self._meter.plugins.failed(type(self).__name__, event, error)

    def _send(self, event: str, answer: Coroutine[Any, Any, Any]) -> None:
        import asyncio

        async def deliver() -> None:
            try:
                await answer
            except asyncio.CancelledError as error:
                self._failed(event, error)
                raise
            except Exception as error:
                self._failed(event, error)

        try:
            task = asyncio.get_running_loop().create_task(deliver())
        except RuntimeError:
            sent = asyncio.run_coroutine_threadsafe(deliver(), _background_loop())
            self._tasks.add(sent)
            sent.add_done_callback(self._tasks.discard)
        else:
            self._tasks.add(task)  # the loop keeps weak references only
            task.add_done_callback(self._tasks.discard)

    def drain(self, timeout: float | None = 10.0) -> None:
        """Wait for the `async def` events that synchronous code has sent; `TimeoutError` after `timeout` seconds."""
        from concurrent.futures import Future, wait

        _, late = wait([sent for sent in list(self._tasks) if isinstance(sent, Future)], timeout)
        if late:
            raise TimeoutError(f"{len(late)} events of {type(self).__name__} are still on their way after {timeout} s")

    async def adrain(self, timeout: float | None = 10.0) -> None:
        """Wait for all `async def` events, those of this event loop too; `TimeoutError` after `timeout` seconds."""
        import asyncio

        loop = asyncio.get_running_loop()
        waiting = [
            sent if isinstance(sent, asyncio.Task) else asyncio.wrap_future(sent)
            for sent in list(self._tasks)
            if not isinstance(sent, asyncio.Task) or sent.get_loop() is loop
        ]
        late = (await asyncio.wait(waiting, timeout=timeout))[1] if waiting else ()
        if late:
            raise TimeoutError(f"{len(late)} events of {type(self).__name__} are still on their way after {timeout} s")

    @hookimpl
    def meter_shutdown(self) -> None:
        self.drain()


_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.RLock()


def _background_loop() -> asyncio.AbstractEventLoop:
    """One daemon thread with an event loop, for the async events of synchronous programs; started on first use."""
    global _loop
    import asyncio

    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="agent_meter observers", daemon=True).start()
        return _loop


def _after_fork() -> None:
    global _loop, _loop_lock
    _loop, _loop_lock = None, threading.RLock()  # threads do not follow into a forked process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
