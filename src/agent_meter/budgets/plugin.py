"""The one plugin that holds for every call, over all budgets at once, and settles when the call is recorded."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..hookspecs import hookimpl
from ..records import (
    ABANDONED,
    DENIED,
    OK,
    RUN,
    STEP,
    TOOL,
    Call,
    Denial,
    Record,
    Reserve,
    RunRecord,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)
from . import told
from .amounts import NOTHING, Held, Outcome, held_amount, outcome, plain_price, tool_amount, used_amount
from .budget import WAIT, Budget
from .engine import Change, Engine, Entry, Refusal
from .estimates import Estimator, price
from .matching import USD, Line
from .refusing import COUNTED, PLUGIN, Refusals
from .settling import Settlement, Settler
from .view import BudgetList

if TYPE_CHECKING:
    from ..meter import Meter

HOLD_TTL = 300_000  # ms; a holder that lives extends it, one that died is charged
MEMORY_TTL = 172_800_000  # the counters die with the holder, and the meter gives up open calls itself
BEAT = 30.0  # seconds between two looks for holds whose time is up
CHARGED = 10_000  # calls that were given up, kept for a late answer
_entry = tuple.__new__  # half of what the constructor of a named tuple costs, on the path of every call


class Budgets(Refusals, BudgetList):
    """All budgets of a meter. `meter.budgets` is it: a list of `Budget`s that can be changed while calls run."""

    def __init__(self, budgets: Iterable[Budget] = (), *, engine: Engine, meter: Meter, ledger: Any = None) -> None:
        self.engine = engine
        self._ledger = ledger  # the store that settlements are written with
        self._attached: set[Settlement] = set()  # handed to the ledger, and not written yet
        self._meter = meter
        self._failed = meter.plugins.failed
        self._ttl = HOLD_TTL if engine.blocking else MEMORY_TTL
        self._estimator = Estimator()
        self._held: dict[str, Held] = {}
        self._charged: dict[str, Held] = {}  # given up and charged: they may be answered yet
        self._roots: dict[str, str] = {}  # runs seen open, and the run around all
        self._run_keys: dict[str, set[str]] = {}  # counters of runs, by outermost run: forgotten with it
        self._plugged_in = False
        self._settled = threading.Condition(threading.RLock())
        self._waiting = 0
        self._next_beat = meter.monotonic() + BEAT
        self.overruns = self.unpriced = 0
        self.denied: dict[str, int] = {}
        self._settler = Settler(self) if engine.blocking else None
        super().__init__(budgets)
        if self._settler is not None:
            self._settler.wake()

    def _used_so_far(self, dimension: str, name: str) -> int:
        used = self._meter.usage_by(dimension).get(name)
        return 0 if used is None else used.total_tokens + used.total_embedding_tokens

    def _plug_in(self) -> None:
        if len(self) and not self._plugged_in:
            self._plugged_in = True
            self._meter.plugins.register(self, PLUGIN)

    # ------------------------------------------------------------------------------------------- the hooks

    @hookimpl(trylast=True)
    def meter_admit_call(self, call: Call) -> Denial | None:
        """Hold what the call may use, or say which budget refuses."""
        lines = self._matcher.of_call(call)
        if not lines or call.awaits:
            return None
        return self._admit(call, lines, time.monotonic())

    @hookimpl(tryfirst=True)
    def meter_record(self, record: Record) -> None:
        if isinstance(record, RunRecord):
            self._roots.pop(record.id, None)
            if (keys := self._run_keys.pop(record.id, None)) is not None:
                self.engine.drop(keys)
            return
        held = self._held.pop(record.id, None)
        if held is None and self._charged:
            held = self._charged.pop(record.id, None)
        if held is not None:
            self._settle(held, record)
        elif record.status is not DENIED:
            self._count(record)
        alone = self._run_keys and record.run_id is None and record.status is not ABANDONED
        if alone and (keys := self._run_keys.pop(record.id, None)) is not None:  # a call that was a run of its own
            self.engine.drop(keys)

    @hookimpl
    def meter_shutdown(self) -> None:
        self.flush(10.0)
        if self._settler is not None:
            self._settler.close()
        self.engine.close()

    # ------------------------------------------------------------------------------------------- admitting

    async def aadmit(self, call: Call) -> Denial | None:
        """`meter_admit_call` for async code: waits with `await`, and never on the event loop's thread."""
        from .waiting import admit

        if call.unguarded or call.kind is RUN or call.kind is STEP:
            return None
        lines = self._matcher.of_call(call)
        return await admit(self, call, lines) if lines else None

    def _admit(self, call: Call, lines: tuple[Line, ...], started: float) -> Denial | None:
        asked = False
        while True:
            denial = self.attempt(call, lines)
            if denial is None:
                return None
            budget = self._named(denial.budget)
            left = 0.0 if budget is None or budget.mode != WAIT else started + budget.timeout - time.monotonic()
            if left > 0 and not _in_event_loop():
                self.wait(left)
                continue
            if not asked and budget is not None and budget.on_exceed is not None and self.ask(budget, call, denial):
                asked, lines = True, self._matcher.of_call(call)
                continue
            self.count_denied(denial)
            return denial

    def wait(self, seconds: float) -> None:
        """Until something was settled; a look at shared counters now and then."""
        with self._settled:
            self._waiting += 1
            try:
                self._settled.wait(min(seconds, 0.05 if self.engine.blocking else 0.25))
            finally:
                self._waiting -= 1

    def attempt(self, call: Call, lines: tuple[Line, ...]) -> Denial | None:
        """One try to hold."""
        engine, failed = self.engine, self._failed
        if self._preholds:
            self._take_over(call)
        held = Held(call.id, lines, [])
        if call.kind is TOOL:
            if all(line.enforced is None for line in lines):
                return None  # counted when it is done
            input_tokens = output_tokens = 0
            assumed: tuple[str, ...] = ()
            pico: int | None = 0
        else:
            seen = held.seen = self._estimator.seen(call.model, call.agent)
            said = call.reserve
            input_tokens, output_tokens, held.size, assumed = self._estimator.bound(call, seen)
            dearer = seen.dearer if said is None or not said.bounded else 1.0
            pico = self._bound(call, held, input_tokens, output_tokens, assumed, dearer)
            if pico is None and (denial := self._unpriced(call, lines)) is not None:
                return denial
        try:
            now = engine.now()
            if self._meter.monotonic() > self._next_beat:
                self._beat()
            held.entries = self._entries(call, held, pico, now)
            expires = now + self._ttl
            refusal = engine.reserve(call.id, held.entries, expires)
            if refusal is not None and self._settler is not None and self.flush(1.0):
                refusal = engine.reserve(call.id, held.entries, expires)
            if refusal is not None and assumed and not refusal.used and not refusal.reserved:
                refusal = self._probe(held, refusal, assumed, expires)
        except Exception as error:
            failed(PLUGIN, "meter_admit_call", error)
            if self._meter.plugins.strict:
                raise
            return self._unreadable(lines, error)
        if refusal is None:
            self._held[call.id] = held
            if self._settler is not None:
                self._settler.wake()
            return None
        return self._denial(call, held, refusal, pico, assumed)

    def _bound(
        self, call: Call, held: Held, input_tokens: int, output_tokens: int, assumed: tuple[str, ...], dearer: float
    ) -> int | None:
        """What so many tokens cost at most; told to the call, and to who settles it."""
        held.input_tokens, held.output_tokens, held.rates = input_tokens, output_tokens, call.rates
        pico = price(call.rates, TokenUsage(input_tokens, output_tokens), call.started_at, self._failed)
        if pico is not None and dearer > 1.0:
            pico = int(pico * dearer)
        call.reserve = Reserve(input_tokens, output_tokens, pico, assumed)
        return pico

    def _entries(self, call: Call, held: Held, pico: int | None, now: int) -> list[Entry]:
        """What is held of each limit."""
        entries = []
        for line in held.lines:
            if line.code == USD and pico is not None:
                amount = pico
            else:
                amount = held_amount(line, held.input_tokens, held.output_tokens, pico)
            key = line.key if not line.per_run else self._key_of_run(line, self._outermost(call))
            slot, since, until = line.window.at(now)
            entries.append(_entry(Entry, (key, slot, since, until, amount, line.enforced)))
        return entries

    def _probe(self, held: Held, refusal: Refusal, assumed: tuple[str, ...], expires: int) -> Refusal | None:
        """A budget that nobody has touched, and an answer whose length is only assumed to be too much for it.

        Then one call goes ahead and holds all there is; what it used tells how long such answers are.
        """
        line, entry = held.lines[refusal.position], held.entries[refusal.position]
        fixed = held_amount(line, held.input_tokens, 0, self._input_pico(held)) if "input_tokens" not in assumed else 0
        limit = entry.limit or 0
        if (held.seen is not None and held.seen.answers) or line.limit.unit not in ("usd_pico", "tokens"):
            return refusal
        if fixed >= limit:
            return refusal
        held.entries[refusal.position] = entry._replace(amount=limit)
        return self.engine.reserve(held.id, held.entries, expires)

    def _input_pico(self, held: Held) -> int | None:
        from datetime import UTC, datetime

        return price(held.rates, TokenUsage(held.input_tokens), datetime.now(UTC), self._failed)

    def _outermost(self, call: Call) -> str:
        """The run around all; a call outside of any run is its own."""
        found, parent = call.run_id or call.id, call.parent
        while parent is not None:
            found, parent = parent.run_id or found, parent.parent
        if call.run_id and found != call.run_id and len(self._roots) < COUNTED:
            self._roots[call.run_id] = found
        return found

    def _key_of_run(self, line: Line, run: str) -> str:
        key = f"{line.key}|run={run}"
        if not self.engine.blocking:
            self._run_keys.setdefault(run, set()).add(key)
        return key

    def _run_of(self, record: UsageRecord | ToolRecord) -> str:
        return self._roots.get(record.run_id, record.run_id) if record.run_id else record.id

    # -------------------------------------------------------------------------------------------- settling

    def _settle(self, held: Held, record: UsageRecord | ToolRecord) -> None:
        final = True
        if type(record) is UsageRecord:
            usage, lines = record.usage, held.lines
            if usage is not None and not record.estimated and not record.cached and held.seen is not None:
                self._learn(held, record, usage)
            if len(lines) == 1 and lines[0].code == USD and record.status is OK and not record.estimated:
                # The usual case, written out for the path.
                cost = record.cost
                billed = cost.billed_pico if lines[0].money == "billed" else cost.list_pico
                amounts = [billed] if billed is not None else self._amounts(held, outcome(record, held, self._failed))
            else:
                what = outcome(record, held, self._failed)
                amounts, final = self._amounts(held, what), what.final
        else:
            assert type(record) is ToolRecord
            amounts = [tool_amount(line, record) for line in held.lines]
        if not final:
            self._charged[held.id] = held
            if len(self._charged) > CHARGED:
                self._charged.pop(next(iter(self._charged)), None)
        if self._settler is None:
            self.settled(held, amounts, self.engine.settle(held.id, amounts, final=final))
        else:
            self._later(record.id, Settlement(self, held, amounts, final))

    def _later(self, record_id: str, settlement: Settlement) -> None:
        assert self._settler is not None
        if self._ledger is not None:
            self._attached.add(settlement)
            self._ledger.attach(record_id, settlement)
            self._settler.wake()
        else:
            self._settler.put(settlement.now)

    def applied(self, settlement: Settlement, tell: Callable[[], None]) -> None:
        """The ledger has written a settlement; called inside its transaction."""
        self._attached.discard(settlement)
        assert self._settler is not None
        self._settler.put(tell)

    def _amounts(self, held: Held, what: Outcome) -> list[int]:
        return [used_amount(line, what, entry) for line, entry in zip(held.lines, held.entries, strict=True)]

    def settled(self, held: Held, amounts: list[int], changes: list[Change] | None) -> None:
        """Tell what a settlement changed."""
        if self._waiting:
            with self._settled:
                self._settled.notify_all()
        if changes is None:
            return
        for line, entry, amount, change in zip(held.lines, held.entries, amounts, changes, strict=True):
            if amount > entry[4] and line.enforced is not None:
                self.overruns += 1
            before, after = change
            thresholds = line.limit.thresholds
            if before < after and thresholds and after >= thresholds[0][1] and before < thresholds[-1][1]:
                self._tell(line, change)

    def _tell(self, line: Line, change: Change) -> None:
        for alert in told.crossed(line, change):
            self._meter.plugins.alert(alert)

    def _learn(self, held: Held, record: UsageRecord, usage: TokenUsage) -> None:
        dearer = 1.0
        if (usage.cache_write_tokens or usage.input_audio_tokens or usage.output_audio_tokens or usage.units) and (
            actual := record.cost.list_pico
        ):
            plain = plain_price(held.rates, usage, record.started_at, self._failed)
            dearer = actual / plain if plain else 1.0
        assert held.seen is not None
        held.seen.learn(usage, held.size, dearer)

    def _count(self, record: UsageRecord | ToolRecord) -> None:
        """A call that nothing was held for: told afterwards, or opened before there was a budget for it."""
        lines = self._matcher.of_record(record)
        if not lines:
            return
        now = self.engine.now()
        entries, counted = [], []
        what = outcome(record, None, self._failed) if type(record) is UsageRecord else NOTHING
        wrong = None
        if type(record) is UsageRecord and record.corrects is not None:
            wrong = outcome(record.corrects, None, self._failed)
        for line in lines:
            if type(record) is UsageRecord:
                amount = used_amount(line, what, None) - (used_amount(line, wrong, None) if wrong is not None else 0)
            else:
                amount = tool_amount(line, record)  # type: ignore[arg-type]
            if amount:
                key = line.key if not line.per_run else self._key_of_run(line, self._run_of(record))
                entries.append(Entry(key, *line.window.at(now), amount, None))
                counted.append(line)
        if self._preholds and type(record) is UsageRecord:
            self._release_prehold(record.agent)
        if not entries:
            return
        if self._settler is None:
            self.counted(counted, self.engine.add(entries))
        else:
            self._later(record.id, Settlement(self, None, [], True, counted, entries))

    def counted(self, lines: list[Line], changes: list[Change]) -> None:
        for line, change in zip(lines, changes, strict=True):
            if change.before < change.after:
                self._tell(line, change)

    def _beat(self) -> None:
        """Now and then: charge the holds of whoever has died."""
        self._next_beat = self._meter.monotonic() + BEAT
        self.engine.expire()

    def keep_alive(self) -> None:
        """The calls that are open here are not dead, however long they take."""
        holds = list(self._held)
        if holds:
            self.engine.extend(holds, self.engine.now() + self._ttl)
        self.engine.expire()

    def release(self, call_id: str) -> None:
        """Give back what is held for a call that was not made after all."""
        held = self._held.pop(call_id, None)
        if held is None:
            return
        amounts = [0] * len(held.entries)
        settlement = Settlement(self, held, amounts)
        if self._settler is not None:
            self._settler.put(settlement.now)
        else:
            settlement.now()

    def settling_failed(self, error: Exception) -> None:
        self._failed(PLUGIN, "settle", error)

    def forecast(self, name: str | None = None, *, confidence: float = 0.9) -> Any:
        """Where one budget ends up (its first counter), or all of them: a list of `BudgetForecast`s."""
        from .forecasting import asking, forecasts

        found = forecasts(self, asking(self._meter), name, confidence)
        return found if name is None else next(iter(found), None)

    def health(self) -> dict[str, int]:
        """What is held and what went beyond: for `meter.health()`."""
        settler = self._settler
        return {
            "held": len(self._held),
            "denied": sum(self.denied.values()),
            "overruns": self.overruns,
            "unpriced": self.unpriced,
            "unsettled": 0 if settler is None else settler.waiting + len(self._attached),
            "dropped": 0 if settler is None else settler.dropped,
        }

    def flush(self, timeout: float | None = None) -> bool:
        """Return when everything that was settled is in the counters; False if nothing was on its way, or too long."""
        if self._settler is None:
            return False
        waited = False
        if self._attached:
            with suppress(StoreError):
                self._ledger.flush(timeout)
                waited = True
        return self._settler.flush(timeout) or waited


def _in_event_loop() -> bool:
    """Whether waiting here would hold up an event loop, and with it the calls that are waited for."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
