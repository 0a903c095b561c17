"""Settling shared budgets behind the caller's back: whoever ends a call does not wait for a disk or a network.

What is on its way here is held in the counters all the while, so that nothing can be overspent; a process that dies
with it is charged what it held. Where the counters are in the ledger's own store, a settlement does not come here: it
is written in the transaction that writes the record, and only what it crossed is told from here.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .engine import Change, Entry

if TYPE_CHECKING:
    from .amounts import Held
    from .matching import Line
    from .plugin import Budgets

BEAT = 60.0  # seconds between two extensions of open holds
LOOK = 2.0  # seconds between two looks for budgets that somebody else has set
RETRY_FIRST, RETRY_MOST = 0.05, 5.0
KEPT = 100_000  # settlements kept while the store is down

Job = Callable[[], None]


class Settler:
    """One daemon thread that settles in order, tries again when the store is down, and keeps open holds alive."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = weakref.ref(budgets)
        self._closing = False
        self.dropped = 0
        self._begin()
        _settlers.add(self)

    def _begin(self) -> None:
        self._todo: deque[Job] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._done = self._put = 0
        self._next_beat = self._next_look = 0.0

    @property
    def waiting(self) -> int:
        return len(self._todo)

    def put(self, job: Job) -> None:
        """Have it done, in its turn."""
        with self._changed:
            if len(self._todo) >= KEPT:
                self._todo.popleft()  # its hold expires, and is charged
                self._done += 1
                self.dropped += 1
            self._todo.append(job)
            self._put += 1
            self._changed.notify_all()
        self.wake()

    def wake(self) -> None:
        """Start the thread where there is none: at first, and in a forked process."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._changed:
            if (self._thread is None or not self._thread.is_alive()) and not self._closing:
                self._next_beat, self._next_look = time.monotonic() + BEAT, time.monotonic() + LOOK
                thread = threading.Thread(target=self._work, name="agent_meter budgets", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is going down: what is held will be charged
                    return
                self._thread = thread

    def flush(self, timeout: float | None = None) -> bool:
        """Wait for what was put before. False when there was nothing to wait for, or no time left."""
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
                    self._changed.wait(LOOK)
                job = self._todo[0] if self._todo else None
            budgets = self._budgets()
            if budgets is None:
                return
            try:
                self._keep_up(budgets)
                if job is None:
                    continue
                job()
                pause = RETRY_FIRST
            except Exception as error:
                budgets.settling_failed(error)
                if self._closing:
                    return
                time.sleep(pause)
                pause = min(RETRY_MOST, pause * 2)
                continue
            finally:
                del budgets
            with self._changed:
                if self._todo and self._todo[0] is job:
                    self._todo.popleft()
                    self._done += 1
                self._changed.notify_all()

    def _keep_up(self, budgets: Budgets) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + BEAT
            budgets.keep_alive()
        if now >= self._next_look:
            self._next_look = now + LOOK
            budgets.look_up()

    def forked(self) -> None:
        """In the child: the parent settles what was on its way, and no thread has come along."""
        self._begin()


class Settlement:
    """One settlement, or one count of what nothing was held for; applied by the store that writes the record."""

    def __init__(
        self,
        budgets: Budgets,
        held: Held | None,
        amounts: list[int],
        final: bool = True,
        lines: list[Line] | None = None,
        entries: list[Entry] | None = None,
    ) -> None:
        self._budgets = budgets
        self._held, self._amounts, self._final = held, amounts, final
        self._lines, self._entries = lines or [], entries or []
        self._applied = False

    def apply(self, connection: Any) -> None:
        """Inside the store's transaction; what it crossed is told behind it, once, however often it is tried."""
        engine: Any = self._budgets.engine
        if self._held is not None:
            changes = engine.apply_settle(connection, self._held.id, self._amounts, self._final)
        else:
            changes = engine.apply_add(connection, self._entries)
        if not self._applied:
            self._applied = True
            self._budgets.applied(self, lambda: self._tell(changes))

    def now(self) -> None:
        """In a transaction of its own."""
        engine = self._budgets.engine
        if self._held is not None:
            self._tell(engine.settle(self._held.id, self._amounts, final=self._final))
        else:
            self._tell(engine.add(self._entries))

    def _tell(self, changes: list[Change] | None) -> None:
        if self._held is not None:
            self._budgets.settled(self._held, self._amounts, changes)
        elif changes is not None:
            self._budgets.counted(self._lines, changes)


_settlers: weakref.WeakSet[Settler] = weakref.WeakSet()


def _after_fork() -> None:
    for settler in list(_settlers):
        settler.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
