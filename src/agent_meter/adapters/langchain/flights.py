"""The in-flight table: which LangChain run is which of our calls, shared by all handlers of one meter.

LangChain calls the same handler twice for one run in ordinary use (`with_config` and `config` together), and two
handlers of one meter see the same run: the first start opens it, the first end closes it. A run id may be used
again afterwards, so what is remembered is what is open, not what has been seen.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any
from uuid import UUID

from ...meter import Meter
from ...records import Call

SWEEP_AT = 4096


class Flight:
    """One open LangChain run. A chain that is neither a run nor a step of ours flies with its parent's call."""

    __slots__ = ("call", "chunk", "chunks", "messages", "own", "provider", "run_id", "usages")

    def __init__(self, run_id: UUID, call: Call, *, own: bool = True) -> None:
        self.run_id = run_id
        self.call = call
        self.own = own
        self.provider = ""
        self.messages: Any = None  # what was asked, kept for an estimate until the call ends
        self.chunks = 0
        self.chunk: Any = None  # the last one, to know it again
        self.usages: list[Any] | None = None  # the usage on each chunk that had one


class Flights:
    """Open runs by LangChain's run id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By `UUID.int`: a UUID's own hash and comparison are computed in Python.
        self._by_run: dict[int, Flight] = {}
        self._sweep_at = SWEEP_AT
        # By identity of the run id object, which LangChain hands out unchanged with every token.
        self.streaming: dict[int, Flight] = {}

    def __len__(self) -> int:
        return len(self._by_run)

    def __contains__(self, run_id: UUID) -> bool:
        return run_id.int in self._by_run

    def find(self, run_id: UUID | None) -> Flight | None:
        return None if run_id is None else self._by_run.get(run_id.int)

    def add(self, flight: Flight) -> bool:
        """False if this run is open already."""
        with self._lock:
            if self._by_run.setdefault(flight.run_id.int, flight) is not flight:
                return False
            if len(self._by_run) > self._sweep_at:
                self._sweep()
        return True

    def take(self, run_id: UUID) -> Flight | None:
        """Remove and return it; None for a second end."""
        flight = self._by_run.pop(run_id.int, None)
        if flight is not None:
            self.streaming.pop(id(flight.run_id), None)
        return flight

    def _sweep(self) -> None:
        """Runs that LangChain never ended were given up by the meter with their parents: forget them here too."""
        for run_id, flight in list(self._by_run.items()):
            if flight.call.done:
                del self._by_run[run_id]
                self.streaming.pop(id(flight.run_id), None)
        self._sweep_at = max(SWEEP_AT, 2 * len(self._by_run))


_tables: weakref.WeakKeyDictionary[Meter, Flights] = weakref.WeakKeyDictionary()
_tables_lock = threading.Lock()


def flights_of(meter: Meter) -> Flights:
    with _tables_lock:
        table = _tables.get(meter)
        if table is None:
            table = _tables[meter] = Flights()
        return table
