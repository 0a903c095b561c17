"""Flights: of many who ask the same at the same time, one is on its way and the others wait for what it brings.

Threads and asyncio tasks wait for each other alike. Who leads may fail or be cancelled: those who wait find that
nothing was brought, and one of them leads next. Nobody ever waits for himself, in however many steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .entries import Entry

# The flights that the caller's context is a part of: what it asks is asked on their behalf.
_aboard: ContextVar[tuple[Flight, ...]] = ContextVar("agent_meter_flights", default=())
_graph = threading.RLock()  # who leads and who waits for whom, in all caches
PATIENCE = 1.0  # seconds between two looks whether a leader can still come back at all


class Flight:
    """One request that is on its way."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.thread = threading.get_ident()
        self.pid = os.getpid()
        self.loop = running_loop()
        self.entry: Entry | None = None
        self.shareable = True
        self.done = threading.Event()
        self.waits: list[Flight] = []  # what those aboard are waiting for
        self._landed: list[Callable[[], object]] = []
        self._lock = threading.RLock()
        self._token = _aboard.set((*_aboard.get(), self))

    def land(self, entry: Entry | None, *, shareable: bool = True) -> None:
        """The leader is back, with or without an answer. Not `shareable`: it has one that cannot be handed on."""
        with contextlib.suppress(ValueError):  # a coroutine that nobody goes on with ends in whatever context
            _aboard.reset(self._token)
        with self._lock:
            self.entry, self.shareable = entry, shareable
            self.done.set()
            landed, self._landed = self._landed, []
        for tell in landed:
            with contextlib.suppress(RuntimeError):  # the event loop of one who waited has closed
                tell()

    def when_landed(self, tell: Callable[[], object]) -> None:
        with self._lock:
            if not self.done.is_set():
                self._landed.append(tell)
                return
        tell()

    def forget(self, tell: Callable[[], object]) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._landed.remove(tell)


class Flights:
    """The flights of one cache, by key."""

    def __init__(self) -> None:
        self._up: dict[str, Flight] = {}

    def lead(self, key: str) -> tuple[Flight, bool]:
        """The flight for a key, and whether the caller leads it: then he must `land` it, whatever happens."""
        with _graph:
            flight = self._up.get(key)
            if flight is not None and flight.pid == os.getpid():  # a leader does not follow into a forked process
                return flight, False
            flight = self._up[key] = Flight(key)
            return flight, True

    def land(self, flight: Flight, entry: Entry | None, *, shareable: bool = True) -> None:
        with _graph:
            if self._up.get(flight.key) is flight:
                del self._up[flight.key]
        flight.land(entry, shareable=shareable)

    def wait(self, flight: Flight) -> bool:
        """Wait until the flight has landed. False, at once or later, when that would be for ever: ask yourself."""
        if flight.thread == threading.get_ident():
            return False  # it is this very thread that has to answer
        aboard = _aboard.get()
        if not self._may_wait(flight, aboard):
            return False
        try:
            while not self._stranded(flight):
                if flight.done.wait(PATIENCE):
                    return True
        finally:
            self._waited(flight, aboard)
        return flight.done.is_set()

    async def await_(self, flight: Flight) -> bool:
        """The same, for a task: the event loop goes on."""
        loop = running_loop()
        aboard = _aboard.get()
        if loop is None or not self._may_wait(flight, aboard):
            return False
        landed = asyncio.Event()

        def tell() -> object:
            return loop.call_soon_threadsafe(landed.set)

        flight.when_landed(tell)
        try:
            while not flight.done.is_set() and not self._stranded(flight):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await landed.wait()
        finally:
            flight.forget(tell)
            self._waited(flight, aboard)
        return flight.done.is_set()

    def _stranded(self, flight: Flight) -> bool:
        """The event loop that the leader is a task of has stopped: he may never come back, and another one leads."""
        if flight.loop is None or flight.loop.is_running():
            return False
        with _graph:
            if self._up.get(flight.key) is flight:
                del self._up[flight.key]
        return True

    def _may_wait(self, flight: Flight, aboard: tuple[Flight, ...]) -> bool:
        with _graph:
            if aboard and _reaches(flight, aboard, set()):
                return False
            for own in aboard:
                own.waits.append(flight)
            return True

    def _waited(self, flight: Flight, aboard: tuple[Flight, ...]) -> None:
        with _graph:
            for own in aboard:
                own.waits.remove(flight)


def _reaches(flight: Flight, goals: tuple[Flight, ...], seen: set[int]) -> bool:
    if flight in goals:
        return True
    seen.add(id(flight))
    return any(id(other) not in seen and _reaches(other, goals, seen) for other in flight.waits)


def running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _after_fork() -> None:
    global _graph
    _graph = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
