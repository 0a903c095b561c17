"""The in-flight table: which LangChain run is which of our calls, shared by all handlers of one meter.

LangChain calls the same handler twice for one run in ordinary use (`with_config` and `config` together), and two
handlers of one meter see the same run: the first start opens it, the first end closes it. A run id may be used
again afterwards, so what is remembered is what is open, not what has been seen.

Many runs get no end at all (a cancelled `ainvoke`, a stream that its rate limiter refused). The run id that LangChain
hands to a handler lives exactly as long as the run can still say something: when it is collected, the run is lost.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec

from ...joining import Wire
from ...meter import Meter
from ...records import ABANDONED, DENIED, ERROR, LLM, TOOL, Call, Status

FRAMEWORK = "langchain"
ATTEMPT = "retry:attempt:"
SWEEP_AT = 4096
WARNED_MOST = 1000  # models
LOST = "it was sent, and its end was not seen"
NOT_SENT_DENIED = "not sent: another prompt of the same generate() was denied"
NOT_SENT_FAILED = "not sent: an earlier prompt of the same generate() failed"
ANSWERED_UNSEEN = "it was answered, but a later prompt of the same generate() failed; its usage was not seen"


class Batch:
    """The prompts of one `generate()`: all are started before any is sent, and they fail together."""

    __slots__ = ("flights", "params", "size")

    def __init__(self, params: Any, size: int) -> None:
        self.params = params  # kept, so that no other object can have its identity
        self.size = size
        self.flights: list[Flight] = []


def sent_together(flight: Flight) -> None:
    """Let a tap know which answer on the wire is whose: prompts of a chat are sent one by one, in order.

    Those of a text model are one request, or a few, and the first run has the usage of all.
    """
    assert flight.batch is not None
    first = flight.batch.flights[0].call
    if not isinstance(flight.messages, list):
        flight.call.wire = Wire(many=True, group=[first])
    elif flight.call is first:
        first.wire = Wire(group=[first])
    else:
        group = first.wire.group if first.wire is not None else None
        if group is not None:
            group.append(flight.call)
            flight.call.wire = Wire(group=group)


class Flight(msgspec.Struct, eq=False):
    """One open LangChain run. A chain that is neither a run nor a step of ours flies with its parent's call."""

    key: int
    identity: int
    call: Call
    own: bool = True
    name: str = ""
    # The agent's name in the metadata: here, on the run around, and where a graph's own name has taken its place.
    handed: str = ""
    above: str = ""
    overruled: str = ""
    attempt: int = 1
    graph: bool = False
    owner: _Owner | None = None
    batch: Batch | None = None
    provider: str = ""
    messages: Any = None  # what was asked, and with which parameters: for an estimate
    params: Any = None
    made_with: Any = None  # the model's constructor arguments
    heard: list[Any] = []  # the chunks as they came (LangChain keeps them too): looked at when the answer is whole

    @classmethod
    def of(
        cls,
        run_id: UUID,
        call: Call,
        parent: Flight | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        name: str = "",
        *,
        own: bool = True,
    ) -> Flight:
        handed = (metadata.get("lc_agent_name") if metadata else None) or ""
        if parent is None:
            return cls(run_id.int, id(run_id), call, own, name, handed, "", "", _attempt(tags, None) if tags else 1)
        attempt = _attempt(tags, parent)
        return cls(run_id.int, id(run_id), call, own, name, handed, parent.handed, parent.overruled, attempt)

    def said_once(self, kept: Mapping[str, Any]) -> bool:
        """Whether the last chunk with a usage has all that LangChain's sum of them has: no other one had any."""
        for chunk in reversed(self.heard):
            usage = _usage_on(chunk)
            if usage is not None:
                return all(usage.get(name) == kept.get(name) for name in ("input_tokens", "output_tokens"))
        return True

    def usages(self) -> list[Any]:
        """The usage on each chunk that had one. A handler that is attached twice hears each chunk twice."""
        found, last = [], None
        for chunk in self.heard:
            if chunk is not last and (usage := _usage_on(chunk)) is not None:
                found.append(usage)
            last = chunk
        return found


def _usage_on(chunk: Any) -> Any:
    return getattr(getattr(chunk, "message", None), "usage_metadata", None)


def _attempt(tags: Sequence[str] | None, parent: Flight | None) -> int:
    """Which attempt of a `with_retry` this is, from 1. LangChain marks only the run that is tried again itself."""
    for tag in tags or ():
        if tag.startswith(ATTEMPT) and tag[len(ATTEMPT) :].isdecimal():
            return int(tag[len(ATTEMPT) :])
    return 1 if parent is None or parent.call.kind is TOOL else parent.attempt


class _Owner(weakref.ref[UUID]):
    """A weak reference to a run id that knows whose it was."""

    __slots__ = ("key",)

    key: int


class Flights:
    """Open runs by LangChain's run id."""

    def __init__(self, meter: Meter) -> None:
        self._meter = weakref.ref(meter)
        # By `UUID.int`: a UUID's own hash and comparison are computed in Python.
        self._by_run: dict[int, Flight] = {}
        self._sweep_at = SWEEP_AT
        # What takes the chunks of a stream whose first token has come, by identity of the run id object, which
        # LangChain hands out unchanged with every token.
        self.streaming: dict[int, Callable[[Any], None]] = {}
        self._batches: dict[int, Batch] = {}
        self.lost: deque[Flight] = deque()
        self._warned: set[Any] = set()

    def __len__(self) -> int:
        return len(self._by_run)

    def is_open(self, run_id: UUID) -> bool:
        flight = self._by_run.get(run_id.int)
        return flight is not None and not flight.call.done

    def find(self, run_id: UUID | None) -> Flight | None:
        return None if run_id is None else self._by_run.get(run_id.int)

    def add(self, flight: Flight, run_id: UUID) -> None:
        if self.lost:
            self.give_up_lost()
        owner = flight.owner = _Owner(run_id, self._gone)
        owner.key = flight.key
        self._by_run[flight.key] = flight
        if len(self._by_run) > self._sweep_at:
            self._sweep()

    def take(self, run_id: UUID) -> Flight | None:
        """Remove and return it; None for a second end."""
        flight = self._by_run.pop(run_id.int, None)
        if flight is not None:
            self._forget(flight)
        return flight

    def _forget(self, flight: Flight) -> None:
        self.streaming.pop(flight.identity, None)
        if flight.batch is not None:  # where one prompt ends, all have been started
            self.whole(flight.batch)

    def batch(self, flight: Flight, params: Any, size: int) -> None:
        """Note that `flight` is one of `size` prompts: LangChain hands the same `params` to the start of each."""
        batch = self._batches.get(id(params))
        if batch is None:
            batch = self._batches[id(params)] = Batch(params, size)
        batch.flights.append(flight)
        flight.batch = batch
        if len(batch.flights) >= size:
            self.whole(batch)

    def whole(self, batch: Batch) -> None:
        """No further prompt belongs to it."""
        self._batches.pop(id(batch.params), None)

    def denied(self, batch: Batch) -> None:
        """One prompt was denied: those before it, already started, are not sent either."""
        self.whole(batch)
        for flight in batch.flights:
            self._close(flight, DENIED, "BudgetExceeded", NOT_SENT_DENIED)

    def failed(self, batch: Batch, culprit: Flight) -> None:
        """One prompt of a synchronous `generate()` failed: the ones before it have been answered, the rest not sent.

        LangChain ends none of them.
        """
        self.whole(batch)
        before = True
        for flight in batch.flights:
            if flight is culprit:
                before = False
            elif before:
                self._close(flight, ABANDONED, "abandoned", ANSWERED_UNSEEN)
            else:
                self._close(flight, ERROR, "not_sent", NOT_SENT_FAILED)

    def _close(self, flight: Flight, status: Status, error_type: str, note: str) -> None:
        meter = self._meter()
        if self._by_run.pop(flight.key, None) is None or meter is None or flight.call.done:
            return
        self.streaming.pop(flight.identity, None)
        unseen = status is ABANDONED
        meter.close(flight.call, status=status, error_type=error_type, estimated=unseen, notes=(note,))

    def first_warning(self, about: object) -> bool:
        """True once for each thing to warn about."""
        if about in self._warned or len(self._warned) >= WARNED_MOST:
            return False
        self._warned.add(about)
        return True

    # ------------------------------------------------------------------------------------ runs without an end

    def _gone(self, owner: _Owner) -> None:
        """A run id was collected. That may happen anywhere, with any lock held: only note it here."""
        flight = self._by_run.get(owner.key)
        if flight is None or flight.owner is not owner:
            return
        del self._by_run[owner.key]
        self._forget(flight)
        if not flight.own or flight.call.done:
            return
        self.lost.append(flight)
        with suppress(RuntimeError):  # synchronous code: the next event closes it
            asyncio.get_running_loop().call_soon(self.give_up_lost)

    def give_up_lost(self) -> None:
        """Close the calls of the runs that cannot end any more. Never raises."""
        meter = self._meter()
        while self.lost:
            try:
                flight = self.lost.popleft()
            except IndexError:  # another thread was quicker
                return
            if meter is None or flight.call.done:
                continue
            try:
                give_up(meter, flight)
            except Exception as error:
                meter.plugins.failed(FRAMEWORK, "lost run", error)

    def _sweep(self) -> None:
        """Forget what the meter has given up itself; only run ids that somebody keeps alive are left to find here."""
        for key in list(self._by_run):  # the keys alone: to build pairs could collect a run id, and change the table
            flight = self._by_run.get(key)
            if flight is not None and flight.call.done:
                self._by_run.pop(key, None)
                self._forget(flight)
        self._sweep_at = max(SWEEP_AT, 2 * len(self._by_run))


def give_up(meter: Meter, flight: Flight) -> None:
    """Close a call whose end nobody will see: what a model call used is unknown."""
    sent = flight.call.kind is LLM
    meter.close(
        flight.call,
        status=ABANDONED,
        error_type="abandoned",
        estimated=sent,
        notes=(LOST,) if sent else (),
    )


_tables: weakref.WeakKeyDictionary[Meter, Flights] = weakref.WeakKeyDictionary()
_tables_lock = threading.Lock()


def flights_of(meter: Meter) -> Flights:
    with _tables_lock:
        table = _tables.get(meter)
        if table is None:
            table = _tables[meter] = Flights(meter)
        return table
