"""One record for one call: the framework says whose it is, the wire says what it used.

A call is announced by being opened. While a transport tap is on for its meter, `Meter.open` leaves the call in a
context variable, and the request that is sent in that context finds it there. The variable is never reset, for a
stream has no certain end in the context in which it began: what counts is that the call is still open, fits the
request, and has no answer yet. A raw request between two chunks of somebody's stream is nobody's.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec.structs import replace

from .attribution import announced
from .records import (
    CANCELLED,
    ERROR,
    LLM,
    TOKEN_CLASSES,
    Attempt,
    Call,
    FrozenMap,
    Status,
    TokenUsage,
)

if TYPE_CHECKING:
    from .adapters.payloads import Pass, Reading

# Adapters whose calls may be sent for in another context than they were opened in: each tells, of the one who asks,
# which calls are being made on its call stack, the innermost first.
readers: tuple[Callable[[], Iterable[Call]], ...] = ()
MISSING_BOTH = ("input_tokens", "output_tokens")
CUT_BEFORE = "an earlier attempt was cut in the middle of its answer; whether that is billed was not seen"


class Joining:
    """What a meter has to do with taps: how many are on for it, and how often a framework said something else."""

    __slots__ = ("asking", "at_shutdown", "clock", "disagreements", "failed", "taps")

    def __init__(self, clock: Callable[[], float], failed: Callable[[str, Exception], None]) -> None:
        self.clock = clock
        self.failed = failed  # told of what goes wrong on the side: (where, error)
        self.taps = 0
        self.at_shutdown: list[Callable[[], None]] = []
        self.asking = 0  # of these taps, how many ask for usage in streams
        self.disagreements = 0


class Exchange(Protocol):
    """One HTTP request and what came back, as a tap saw it."""

    @property
    def answered(self) -> bool:
        """The provider has begun to answer, and the body has not failed."""

    @property
    def refused(self) -> bool:
        """Nothing can have been used: the status says so, or no connection came about."""

    def attempt(self) -> Attempt: ...

    def reading(self) -> Reading | None:
        """What the body says, as far as it has been read; None when it cannot be read."""


class Wire:
    """What the transport saw of one call.

    `many`: several answers are one call, as those of a long list of texts to embed; else the first answer is the only
    one. `group`: calls that were all announced before the first of them was sent, in the order in which they are.
    `on_end` is told of the end of each exchange. `read` says whether somebody is reading the stream that was handed
    over: what its context sends while nobody is, is not its request.
    """

    __slots__ = ("asked", "exchanges", "group", "many", "on_end", "owner", "read", "told")

    def __init__(self, *, many: bool = False, group: list[Call] | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.many = many
        self.group = group
        self.owner: int | None = None
        self.on_end: Callable[[Any], None] | None = None
        self.asked: Any = None  # what the tap that opened the call knows of the request
        self.read: Callable[[], bool] | None = None
        self.told = False  # its numbers are on the record

    @property
    def free(self) -> bool:
        return self.many or not any(exchange.answered for exchange in self.exchanges)

    @property
    def counted(self) -> bool:
        """An answer was seen, and tells what was used: nobody needs to estimate it."""
        return any(
            exchange.answered and (reading := exchange.reading()) is not None and not reading.usage.missing
            for exchange in self.exchanges
        )


def announce(call: Call, joining: Joining) -> None:
    """Called by `Meter.open`: the request of this call is sent in this context."""
    around = announced.get()
    while around is not None and around.done:
        around = around.around
    call.joining, call.around = joining, around
    announced.set(call)


def handed_over(call: Call, read: Callable[[], bool]) -> None:
    """Its answer was handed over as a stream, which may send for it when it is first read, wherever that is."""
    if call.joining is not None:
        _wire_of(call).read = read


def join(exchange: Exchange, fits: Callable[[Call], bool]) -> list[Call]:
    """The calls that the request belongs to, one of each meter at most; empty when nobody announced it.

    `fits` says whether a call may have asked for this: its kind, its model, its host.
    """
    found = waiting(fits)
    for call in found:
        _wire_of(call).exchanges.append(exchange)
    return found


def waiting(fits: Callable[[Call], bool]) -> list[Call]:
    """The announced calls of this context that wait for such an answer."""
    found: list[Call] = []
    for reader in readers:
        for call in reader():
            _offer(call, fits, found)
    around = announced.get()
    while around is not None:
        _offer(around, fits, found)
        around = around.around
    return found


def _offer(call: Call, fits: Callable[[Call], bool], found: list[Call]) -> None:
    if call.done or call.joining is None or not call.joining.taps:
        return
    ours = _in_turn(call)
    if ours is not None and fits(ours) and all(ours.joining is not other.joining for other in found):
        found.append(ours)


def _wire_of(call: Call) -> Wire:
    if call.wire is None:
        call.wire = Wire(many=call.kind is not LLM)
    return call.wire


def _in_turn(call: Call) -> Call | None:
    wire = call.wire
    if wire is None:
        return call
    if wire.read is not None and not wire.read():
        return None
    if wire.group is None:
        return call if wire.free else None
    here = _here()
    waiting = None
    for one in wire.group:
        its = _wire_of(one)
        if one.done or not its.free:
            continue
        if its.owner == here:  # asked again
            return one
        if waiting is None and its.owner is None:
            waiting = one
    if waiting is not None:
        _wire_of(waiting).owner = here
    return waiting


def _here() -> int:
    """Who sends: a task, or a thread."""
    asyncio = sys.modules.get("asyncio")  # not imported for this: where nobody has, there is no task
    try:
        task = None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else id(task)


# ---------------------------------------------------------------------------------------------- whose numbers count


class Told(NamedTuple):
    """What `Meter.close` was told of a call, or what is put in its place."""

    usage: TokenUsage | None
    status: Status
    error_type: str | None
    response_model: str | None
    response_id: str | None
    estimated: bool
    tools: tuple[str, ...]
    notes: tuple[str, ...]
    passes: tuple[Pass, ...] = ()
    attempts: tuple[Attempt, ...] = ()


def reconcile(call: Call, told: Told) -> Told:
    """What the wire said in the place of what the framework made of it; the framework's word where it said nothing."""
    wire, joining = call.wire, call.joining
    assert wire is not None
    exchanges, wire.exchanges = wire.exchanges, []
    attempts = tuple(exchange.attempt() for exchange in exchanges)
    told = told._replace(attempts=attempts)
    if attempts and told.error_type is None and told.status is ERROR:
        told = told._replace(error_type=attempts[-1].error_type)
    answers = [exchange for exchange in exchanges if exchange.answered]
    if not answers:
        if told.status is ERROR and exchanges and all(exchange.refused for exchange in exchanges):
            return told._replace(usage=None, estimated=False, notes=())
        answers = [exchange for exchange in exchanges if not exchange.refused][
            -1:
        ]  # cut: a part is better than nothing
    readings = [reading for exchange in answers if (reading := exchange.reading()) is not None]
    readings = [reading for reading in readings if reading.usage.missing != MISSING_BOTH or reading.usage.units]
    if not readings or (wire.many and len(readings) < len(answers)):
        return told
    wire.told = True
    last = readings[-1]
    usage = last.own_usage if len(readings) == 1 else sum((r.own_usage for r in readings), TokenUsage())
    framework = None if told.estimated else told.usage
    notes = told.notes if usage.missing else ()
    if framework is not None and (differences := _differences(framework, usage)):
        if joining is not None:
            joining.disagreements += 1
        who = call.framework or "the caller"
        notes += tuple(f"{name}: the wire says {ours:,}, {who} said {theirs:,}" for name, ours, theirs in differences)
    if told.usage is not None:
        usage = _completed(usage, told.usage)
    if any(not exchange.answered and not exchange.refused for exchange in exchanges) and told.status is not CANCELLED:
        notes += (CUT_BEFORE,) if exchanges[-1].answered else ()
    return Told(
        usage,
        told.status,
        told.error_type,
        last.response_model or told.response_model,
        last.response_id or told.response_id,
        bool(usage.missing),
        told.tools or last.tools,
        notes,
        tuple(extra for reading in readings for extra in reading.passes),
        attempts,
    )


def _differences(framework: TokenUsage, wire: TokenUsage) -> list[tuple[str, int, int]]:
    unseen = {*wire.missing, *framework.missing}
    return [
        (name, ours, theirs)
        for name in TOKEN_CLASSES
        if (ours := getattr(wire, name)) != (theirs := getattr(framework, name))
        and name not in unseen
        and _whole(name) not in unseen
    ]


def _whole(name: str) -> str:
    """The class that a class is part of: of what was not seen as a whole, no part was."""
    return "output_tokens" if name.startswith(("output", "reasoning")) else "input_tokens"


def _completed(usage: TokenUsage, framework: TokenUsage) -> TokenUsage:
    """What the wire did not say of a cut answer, as the framework estimates it; what a price depends on, from both."""
    more = {
        name: theirs
        for name in usage.missing
        if name in TOKEN_CLASSES and (theirs := getattr(framework, name)) > getattr(usage, name)
    }
    context = usage.context
    if framework.context and framework.context != context:
        context = FrozenMap({**framework.context, **context})
    return replace(usage, **more, context=context) if more or context is not usage.context else usage
