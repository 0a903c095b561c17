"""How an event reaches a method that may be `def` or `async def`, and what happens when it fails."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ...hookspecs import hookimpl

if TYPE_CHECKING:
    import asyncio

    from ...meter import Meter


class Delivery:
    """Tells events one after the other, and fences each.

    A coroutine runs as a task of the running event loop, or, in synchronous code, on a loop in a thread of its own.
    `await observer.adrain()` or `observer.drain()` waits for what is still on its way: an event loop that closes
    earlier takes its events with it, which is counted in `meter.health()`.
    """

    wants_content = False
    _meter: Meter
    _tasks: set[Any]

    def _start(self, meter: Meter) -> None:
        # Not in __init__: subclasses need not call it.
        self.__dict__.setdefault("_tasks", set())
        self._meter = meter

    def _tell(self, event: str, method: Callable[..., Any] | None, *args: Any) -> None:
        """One event; a method that raises is counted under its own name, and the next event is still told."""
        if method is None:
            return
        try:
            answer = method(*args)
            if inspect.iscoroutine(answer):
                self._send(event, answer)
        except Exception as error:
            self._failed(event, error)
            if self._meter.plugins.strict:
                raise

    def _failed(self, event: str, error: BaseException) -> None:
        meter = self.__dict__.get("_meter")
        if meter is not None:
            meter.plugins.failed(type(self).__name__, event, error)
            return
        import logging  # no meter watches it: a framework calls it directly

        name = type(self).__name__
        logging.getLogger("agent_meter").warning("%s failed in %s; the run goes on", name, event, exc_info=error)

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
