"""Settling shared budgets behind the caller's back: whoever ends a call does not wait for a disk or a network.

What is on its way here is held in the counters all the while, so that nothing can be overspent; a process that dies
with it is charged what it held.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from .engine import Entry

if TYPE_CHECKING:
    from .amounts import Held
    from .matching import Line
    from .plugin import Budgets

BEAT = 60.0  # seconds between two extensions of open holds
RETRY_FIRST, RETRY_MOST = 0.05, 5.0
IDLE = 1.0
KEPT = 100_000  # settlements kept while the store is down


class Settler:
    """One daemon thread that settles in order, tries again when the store is down, and keeps open holds alive."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._todo: deque[tuple[Held | None, list[Line], list[Entry], list[int], bool]] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._done = self._put = 0
        self._closing = False
        self._next_beat = time.monotonic() + BEAT
        self.dropped = 0
        _settlers.add(self)

    @property
    def waiting(self) -> int:
        return len(self._todo)

    def put(self, held: Held, amounts: list[int], final: bool) -> None:
        self._add((held, [], [], amounts, final))

    def put_count(self, lines: list[Line], entries: list[Entry]) -> None:
        self._add((None, lines, entries, [], True))

    def _add(self, item: tuple[Held | None, list[Line], list[Entry], list[int], bool]) -> None:
        with self._changed:
            if len(self._todo) >= KEPT:
                self._todo.popleft()  # its hold expires, and is charged
                self._done += 1
                self.dropped += 1
            self._todo.append(item)
            self._put += 1
            self._changed.notify_all()
        self.wake()

    def wake(self) -> None:
        """Start the thread where there is none: at first, and in a forked process."""
        if self._thread is None or not self._thread.is_alive():
            with self._changed:
                if (self._thread is None or not self._thread.is_alive()) and not self._closing:
                    self._thread = threading.Thread(target=self._work, name="agent_meter budgets", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put before is settled. False when there was nothing to wait for, or no time left."""
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            target = self._put
            if self._done >= target:
                return False
            return self._changed.wait_for(lambda: self._done >= target, timeout)

    def close(self) -> None:
        self.flush(10.0)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def _work(self) -> None:
        pause = RETRY_FIRST
        while True:
            with self._changed:
                if not self._todo:
                    if self._closing:
                        return
                    self._changed.wait(IDLE)
                item = self._todo[0] if self._todo else None
            try:
                if time.monotonic() >= self._next_beat:
                    self._next_beat = time.monotonic() + BEAT
                    self._budgets.keep_alive()
                if item is None:
                    continue
                self._settle(*item)
                pause = RETRY_FIRST
            except Exception as error:
                self._budgets.settling_failed(error)
                if self._closing:
                    return
                time.sleep(pause)
                pause = min(RETRY_MOST, pause * 2)
                continue
            with self._changed:
                if self._todo and self._todo[0] is item:
                    self._todo.popleft()
                    self._done += 1
                self._changed.notify_all()

    def _settle(
        self, held: Held | None, lines: list[Line], entries: list[Entry], amounts: list[int], final: bool
    ) -> None:
        budgets = self._budgets
        if held is not None:
            budgets.settled(held, amounts, budgets.engine.settle(held.id, amounts, final=final))
            return
        budgets.counted(lines, budgets.engine.add(entries))

    def forked(self) -> None:
        """In the child: the parent settles what was on its way, and no thread has come along."""
        self._changed = threading.Condition(threading.RLock())
        self._todo.clear()
        self._done = self._put = 0
        self._thread = None


_settlers: weakref.WeakSet[Settler] = weakref.WeakSet()


def _after_fork() -> None:
    for settler in list(_settlers):
        settler.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
