"""Records on their way to a store: a queue that costs the caller a microsecond, and one greedy thread behind it.

The thread writes whatever is there, within a millisecond; nothing waits for a batch to fill. `flush` writes on the
caller's own thread what is left, so that one who waits for durability does not wait for a thread to wake up. While
the store fails, records stay in the queue, up to `limit`; what is beyond goes to the spill file if there is one, and is
counted as dropped if there is none. While it works, a caller who is faster than the store helps to write.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from ..errors import StoreError
from ..records import Record
from .base import Settlement

BATCH = 2_000
LIMIT = 50_000  # records; about 40 MB
_IDLE = 0.25  # seconds without a record after which there is time for upkeep
# Before the thread looks at the queue: who flushes at once has written it by then, and is not disturbed.
_LAZY = 0.001
_PATIENCE = 5.0  # seconds that a caller helps a store that has too much to do
_AGAIN = 0.5  # seconds after a failure before the next attempt

_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


class Item(NamedTuple):
    record: Record
    settlements: tuple[Settlement, ...] = ()


class Writer:
    """Takes records from any thread and gives them to `write`, a batch at a time, one batch at once.

    `write(batch)` makes a batch durable or raises `StoreError`, and then has done nothing. `idle()` is called when
    there is nothing to write, `spill(batch)` with what there is no room for. `renew()` is called in the child after
    a fork.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], None],
        *,
        idle: Callable[[], None] = lambda: None,
        spill: Callable[[list[Item]], None] | None = None,
        renew: Callable[[], None] = lambda: None,
        failed: Callable[[BaseException], None] = lambda error: None,
        limit: int = LIMIT,
        name: str = "agent_meter store",
    ) -> None:
        self._write, self._idle, self._spill, self._renew, self._failed = write, idle, spill, renew, failed
        self._limit, self._name = limit, name
        self.dropped = self.spilled = self.failures = 0
        self.last_error: StoreError | None = None
        self._lost = 0  # dropped since somebody was told
        self._closed = False
        self._begin()
        _writers.add(self)
        _guard()

    def _begin(self) -> None:
        self._queue: deque[Item] = deque()
        self._taken: list[Item] = []  # out of the queue, not in the store
        self.turn = threading.RLock()  # whoever has it may write
        self._writing = self._occupied = 0  # the thread that does
        self._after: list[Callable[[], None]] = []
        self._bell = threading.Lock()  # rung by a release; a lock in C, so that a finalizer may ring it any time
        self._bell.acquire()
        self._awake = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------- the caller's

    def put(self, item: Item) -> None:
        """Hand over; never raises."""
        if len(self._queue) >= self._limit and not self._make_room():
            self._leave([item])
            return
        self._queue.append(item)
        if not self._awake:
            self._awake = True
            if self._thread is None:
                self._start()
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is ringing already
            self._bell.release()

    def _start(self) -> None:
        if self._closed:
            return  # a late record: `flush` and `close` write it
        thread = self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down, or there are no more threads: `close` writes it
            self._thread = None
        _guard_process()

    def _make_room(self) -> bool:
        """The queue is full: while the store works, help; while it fails, nobody waits for it."""
        if self.busy_here:
            return True
        deadline = time.monotonic() + _PATIENCE
        while len(self._queue) >= self._limit and self.last_error is None and time.monotonic() < deadline:
            if self.turn.acquire(timeout=0.1):
                try:
                    if len(self._queue) >= self._limit:
                        self._write_some()
                except StoreError:
                    break
                finally:
                    self._release()
        return len(self._queue) < self._limit

    def _leave(self, items: list[Item]) -> None:
        if self._spill is not None:
            try:
                self._spill(items)
                self.spilled += len(items)
                return
            except Exception as error:
                self._failed(error)
        self.dropped += len(items)
        self._lost += len(items)
        self._failed(StoreError(f"no room for {len(items)} records: {self.last_error or 'the queue is full'}"))

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._taken)

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that was put before is durable; `StoreError` if it cannot be made so, now."""
        ends = None if timeout is None else time.monotonic() + timeout
        if self.busy_here:  # from a finalizer or a handler
            raise StoreError("something is being written to the store on this very thread")
        if not self.turn.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise StoreError(f"{self.queued:,} records are not durable yet after {timeout} s")
        try:
            left = self.queued
            while left > 0:
                left -= self._write_some()
                if left > 0 and ends is not None and time.monotonic() > ends:
                    raise StoreError(f"{self.queued:,} records are not durable yet after {timeout} s")
            if self._lost:
                lost, self._lost = self._lost, 0
                raise StoreError(f"{lost:,} records were dropped: {self.last_error or 'the queue was full'}")
        finally:
            self._release()

    def close(self, timeout: float | None = 10.0) -> None:
        """Write what is left, or leave it in the spill file; count what is lost."""
        self._closed = True
        deadline = time.monotonic() + (600.0 if timeout is None else timeout)
        while True:
            try:
                self.flush(max(0.1, deadline - time.monotonic()))
                break
            except StoreError as error:
                if not self.queued or self.busy_here:
                    break
                if time.monotonic() >= deadline:
                    self.last_error = error
                    with self.turn:
                        left, self._taken = [*self._taken, *self._queue], []
                        self._queue.clear()
                    if left:
                        self._leave(left)
                    break
                time.sleep(0.05)
        thread, self._thread = self._thread, None
        self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    @property
    def busy_here(self) -> bool:
        """Whether this very thread is in the middle of a write: it must not wait for one."""
        me = threading.get_ident()
        return self._writing == me or self._occupied == me

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Around a write that goes another way than through this queue; only one thread at a time."""
        self._occupied = threading.get_ident()
        try:
            yield
        finally:
            self._occupied = 0
            self._catch_up()

    def when_free(self, do: Callable[[], None]) -> None:
        """Do it as soon as this thread's write is done."""
        self._after.append(do)

    # ------------------------------------------------------------------------------------------- the writing

    def _run(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            rung = self._bell.acquire(timeout=_IDLE)
            if rung:
                time.sleep(_LAZY)
            self._awake = False
            if not self.turn.acquire(blocking=False):
                continue  # somebody writes already, and looks at the queue once more when done
            try:
                while self.queued and self._thread is me:
                    self._write_some()
                if not rung and self._thread is me:
                    self._idle()
            except StoreError:
                rung = True
                self._awake = True  # until the next attempt, nobody needs to ring
            except Exception as error:
                self._failed(error)
            finally:
                self.turn.release()
            if self.last_error is not None and self._thread is me:
                time.sleep(_AGAIN)
                self._awake = False

    def _write_some(self) -> int:
        """Write one batch; how many. On failure they are kept, in order, for the next attempt."""
        taken, queue = self._taken, self._queue
        while queue and len(taken) < BATCH:
            taken.append(queue.popleft())
        if not taken:
            return 0
        self._writing = threading.get_ident()
        try:
            self._write(taken)
        except StoreError as error:
            self.failures += 1
            self.last_error = error
            self._failed(error)
            raise
        except Exception as error:  # a bug of ours must not lose records either
            self.failures += 1
            self.last_error = StoreError(f"{type(error).__name__}: {error}")
            self._failed(error)
            raise self.last_error from error
        finally:
            self._writing = 0
        self.last_error = None
        count = len(taken)
        self._taken = []
        return count

    def _release(self) -> None:
        self.turn.release()
        if self._queue and not self._awake:
            self._awake = True
            self._ring()
        self._catch_up()

    def _catch_up(self) -> None:
        while self._after and not self.busy_here:
            self._after.pop()()

    # ----------------------------------------------------------------------------------------------- forking

    def renew(self) -> None:
        """In the child: what waits is the parent's to write; locks may be held by threads that are not here."""
        self._begin()
        self.dropped = self.spilled = self.failures = self._lost = 0
        self.last_error = None
        if not self._closed:
            self._renew()


# ------------------------------------------------------------------------------- the ends of a process, and forks

_guarded = False
_held: list[Writer] = []


def _guard() -> None:
    global _guarded
    if _guarded:
        return
    _guarded = True
    atexit.register(_close_all)
    _guard_signal()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_all, after_in_parent=_let_go, after_in_child=_renew_all)


def _guard_signal() -> None:
    """The usual way to stop a container ends a process without `atexit`: write first, then do what was to be done.

    Whoever sets a handler later replaces this one, and has `atexit` do it if the handler ends the process as usual.
    """
    with contextlib.suppress(ValueError):  # not the main thread: its signals are others' business
        before = signal.getsignal(signal.SIGTERM)
        if before is not signal.SIG_IGN and before is not None:
            signal.signal(signal.SIGTERM, partial(_terminate, before))


def _terminate(before: Any, number: int, frame: Any) -> None:
    for writer in list(_writers):
        if writer.busy_here:  # the signal came in the middle of a write on this very thread
            writer.when_free(partial(_terminate, before, number, frame))
            return
    for writer in list(_writers):
        with contextlib.suppress(Exception):
            writer.flush(5.0)
    if callable(before):
        before(number, frame)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _guard_process() -> None:
    """Processes of `multiprocessing` end without `atexit`; they run finalizers of their own."""
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util.Finalize(None, _close_all, exitpriority=10)


def _close_all() -> None:
    for writer in list(_writers):
        with contextlib.suppress(Exception):
            writer.close()


def _hold_all() -> None:
    """No database library may be in the middle of anything when a process is copied."""
    _held.extend(writer for writer in list(_writers) if writer.turn.acquire(timeout=5.0))


def _let_go() -> None:
    while _held:
        _held.pop().turn.release()


def _renew_all() -> None:
    _held.clear()
    for writer in list(_writers):
        with contextlib.suppress(Exception):
            writer.renew()
