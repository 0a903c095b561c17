"""Guards against agents that run away: each refuses the next call once a bound is passed, and says which one.

The defaults are far above what healthy agents do, so that all four can stay on:
`Meter(plugins=runaway_guards())`. Memory is bounded: what a run did is forgotten when it ends, and of runs that
never end the 4,096 last ones are known.
"""

from __future__ import annotations

import reprlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Generic, TypeVar

from .hookspecs import hookimpl
from .records import Call, Denial, Kind, Record, RunRecord, UsageRecord, dollars, pico

V = TypeVar("V")
_RUNS = 4_096
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxtuple, _repr.maxdict, _repr.maxset = 6, 64, 64, 64, 64
_repr.maxstring = _repr.maxother = _repr.maxlong = 200


class _Recent(Generic[V]):
    """What is known of the last runs, the longest unseen one forgotten first."""

    def __init__(self, make: Callable[[], V], keep: int = _RUNS) -> None:
        self._make = make
        self._keep = keep
        self._held: OrderedDict[str, V] = OrderedDict()

    def of(self, key: str) -> V:
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = self._make()
            if len(self._held) > self._keep:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(key)
        return found

    def forget(self, key: str) -> None:
        self._held.pop(key, None)


class LoopGuard:
    """Refuses a tool that one run calls again and again with the same arguments.

    It counts rounds: the same call 20 times in a row, or two to four calls that take turns 20 times over. Another
    call in between starts it anew, so a tool that is polled between other work is left alone.
    """

    def __init__(self, repeats: int = 20) -> None:
        if repeats < 2:
            raise ValueError(f"repeats is at least 2, not {repeats}")
        self.repeats = repeats
        self._longest = 4
        self._runs = _Recent(lambda: deque[int](maxlen=self._longest * repeats))
        self._lock = threading.RLock()

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not Kind.TOOL:
            return None
        with self._lock:
            past = self._runs.of(call.run_id or "")
            past.append(hash((call.name, signature(call.params))))
            length = self._rounds(past)
        if not length:
            return None
        what = f"{call.name} with the same arguments" if length == 1 else f"the same {length} tool calls in turn"
        return Denial(f"{what}, {self.repeats} times over in one run; the limit is {self.repeats - 1}", "loop guard")

    def _rounds(self, past: deque[int]) -> int:
        """How many calls the round has that has been repeated too often; 0: there is none."""
        calls = list(past)
        for length in range(1, self._longest + 1):
            need = length * self.repeats
            if len(calls) >= need and calls[-need:] == calls[-length:] * self.repeats:
                return length
        return 0

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if type(record) is RunRecord and record.kind is Kind.RUN:
            with self._lock:
                self._runs.forget(record.id)


class NoProgressGuard:
    """Refuses the next model call of a run whose last 50 ones led to no tool call that the run had not made before.

    A run that calls no tools at all is a conversation, and is left alone.
    """

    def __init__(self, model_calls: int = 50) -> None:
        if model_calls < 1:
            raise ValueError(f"model_calls is at least 1, not {model_calls}")
        self.model_calls = model_calls
        self._runs: _Recent[_Progress] = _Recent(_Progress)
        self._lock = threading.RLock()

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        with self._lock:
            run = self._runs.of(call.run_id or "")
            if call.kind is Kind.TOOL:
                made = hash((call.name, signature(call.params)))
                if made not in run.seen:
                    run.idle = 0
                    if len(run.seen) < 10_000:
                        run.seen.add(made)
            elif call.kind is Kind.LLM and run.seen and call.run_id:
                run.idle += 1
                if run.idle > self.model_calls:
                    return Denial(
                        f"{run.idle - 1} model calls in a row without a tool call that is new in this run; "
                        f"the limit is {self.model_calls}",
                        "no progress guard",
                    )
        return None

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if type(record) is RunRecord and record.kind is Kind.RUN:
            with self._lock:
                self._runs.forget(record.id)


class _Progress:
    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.idle = 0


class RateGuard:
    """Refuses the model calls of one run (or, outside of runs, of one agent) beyond 300 within any 60 seconds."""

    def __init__(self, per_minute: int = 300, *, clock: Callable[[], float] = time.monotonic) -> None:
        if per_minute < 1:
            raise ValueError(f"per_minute is at least 1, not {per_minute}")
        self.per_minute = per_minute
        self._clock = clock
        self._runs: _Recent[deque[float]] = _Recent(lambda: deque(maxlen=per_minute))
        self._lock = threading.RLock()

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is Kind.TOOL:
            return None
        now = self._clock()
        with self._lock:
            times = self._runs.of(call.run_id or f"agent {call.agent}")
            if len(times) == self.per_minute and now - times[0] < 60:
                wait = 60 - (now - times[0])
                return Denial(
                    f"{self.per_minute} model calls within a minute, the limit; the next may go in {wait:.1f} s",
                    "rate guard",
                )
            times.append(now)
        return None


class CostGuard:
    """Refuses the next call of a task that has cost 10 × what a task of its agent usually costs.

    A task is the `task` of the attribution, else the run. Usual is the median of the agent's last 200 finished
    tasks, known once there are 20; below `floor_usd` nothing is refused.
    """

    def __init__(self, factor: float = 10.0, *, floor_usd: float | str | Decimal = "0.50", after: int = 20) -> None:
        if factor <= 1:
            raise ValueError(f"factor is more than 1, not {factor}")
        self.factor = factor
        self.after = after
        self._floor = pico(floor_usd)
        self._tasks: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._finished: _Recent[deque[int]] = _Recent(lambda: deque(maxlen=200))
        self._usual: dict[str, int] = {}
        self._lock = threading.RLock()

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        task = call.task or call.run_id or ""
        if not task:
            return None
        with self._lock:
            spent = self._tasks.get((call.agent, task), 0)
            usual = self._usual.get(call.agent)
        if usual is None or spent < self._floor or spent <= usual * self.factor:
            return None
        return Denial(
            f"task {task} of agent {call.agent or '(none)'} has cost ${dollars(spent):f}, more than "
            f"{self.factor:g} × ${dollars(usual):f}, which is usual",
            "cost guard",
        )

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if type(record) is UsageRecord:
            task = record.task or record.run_id or ""
            if task and record.cost.billed_pico:
                with self._lock:
                    key = (record.agent, task)
                    self._tasks[key] = self._tasks.get(key, 0) + record.cost.billed_pico
                    self._tasks.move_to_end(key)
                    if len(self._tasks) > _RUNS:
                        self._end(*self._tasks.popitem(last=False))
        elif type(record) is RunRecord and record.kind is Kind.RUN:
            with self._lock:
                for key in ((record.agent, record.id), (record.agent, record.task)):
                    if key[1] and (spent := self._tasks.pop(key, None)) is not None:
                        self._end(key, spent)

    def _end(self, key: tuple[str, str], spent: int) -> None:
        costs = self._finished.of(key[0])
        costs.append(spent)
        if len(costs) >= self.after:
            self._usual[key[0]] = sorted(costs)[len(costs) // 2]
            if len(self._usual) > _RUNS:
                self._usual.pop(next(iter(self._usual)))


def runaway_guards() -> list[object]:
    """All four, with their defaults: `Meter(plugins=runaway_guards())`."""
    return [LoopGuard(), NoProgressGuard(), RateGuard(), CostGuard()]


def signature(params: Mapping[str, Any]) -> int:
    """What tells one set of arguments from another, in bounded time: long values by hash or by their beginning."""
    found = 0
    for name, value in params.items():
        found ^= hash((str(name), _mark(value)))
    return found


def _mark(value: object) -> object:
    if isinstance(value, (str, bytes, int, float)) or value is None:
        return (type(value).__name__, value)
    try:
        size = len(value)  # type: ignore[arg-type]
    except Exception:
        size = -1
    try:
        return (size, _repr.repr(value))
    except Exception:  # a broken __repr__ of the user's: told apart by what it is
        return (size, type(value).__name__)
