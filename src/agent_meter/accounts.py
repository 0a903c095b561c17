"""The built-in plugin behind `meter.usage`, `usage_by`, `top`, `history` and `tree`.

A record costs one dictionary look-up and one addition on the caller's path: it is added to the cell of its
full attribution. Cells are folded into the tables by agent, user, model, … when somebody reads, or when there
are `HOT_CELLS` of them. All tables are bounded; what does not fit sums into "(other)", so totals stay exact.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from .dimensions import DIMENSIONS, OF_MODELS, PERIODS, check, keys_of, period_of
from .hookspecs import hookimpl
from .records import ABANDONED, DENIED, EMPTY, RUN, STEP, TOOL, Call, Record, RunRecord, ToolRecord, UsageRecord
from .totals import OTHER, Totals
from .tree import RunTree, Tree
from .usage import AgentUsage

T = TypeVar("T")

HOT_CELLS = 64  # one fold stays about a millisecond
MAX_KEYS = 10_000  # a dimension
MAX_COMBINATIONS = 5_000  # for questions about several dimensions at once
MAX_TAGS = 100  # names of tags


class _Who(NamedTuple):
    """Where a record belongs, but for its hour: one value for each dimension."""

    agent: str
    task: str
    user: str
    session: str
    step: str
    provider: str
    model: str
    tags: Mapping[str, str]


class _Combination:
    """The totals of one `_Who`, by hour since the proleptic epoch, UTC: the first one, and the later ones if any."""

    __slots__ = ("hour", "later", "totals")

    def __init__(self, hour: int | str) -> None:
        self.hour = hour
        self.totals = Totals()
        self.later: dict[int | str, Totals] | None = None

    def __iter__(self) -> Iterator[tuple[int | str, Totals]]:
        yield self.hour, self.totals
        yield from (self.later or {}).items()


# When there are too many combinations, newcomers are told apart by the rest only.
_FINE = ("task", "user", "session", "step")


# The session of what `reset(session=…)` was told to forget: in the totals, in no session.
_FORGOTTEN = "\0forgotten"


class Accounts:
    """Counts everything once, and answers by any dimension."""

    def __init__(self, keep: int = 10_000) -> None:
        # A finalizer (a stream that was dropped) or a signal handler may record while this very thread counts or
        # reads: it must neither wait for itself nor change what is being changed. What it tells waits in _late.
        self._lock = threading.RLock()
        self._busy = False
        self._late: list[tuple[Callable[[Any], None], Any]] = []
        self._keep = keep
        self.tree = Tree()
        self._lost: dict[str, bool] = {}
        self._clear()

    def _clear(self) -> None:
        self._hot: dict[tuple[Any, ...], Totals] = {}
        self._total = Totals()
        self._tables: dict[str, dict[str | int, Totals]] = {name: {} for name in (*DIMENSIONS, "hour")}
        self._tag_tables: dict[str, dict[str | int, Totals]] = {}
        self._combinations: dict[_Who, _Combination] = {}
        self._combined = 0  # combinations, each hour of one counted
        self._history: deque[UsageRecord] = deque(maxlen=self._keep)
        self._ended = 0  # records that the history has seen
        self._denied: deque[tuple[int, UsageRecord]] = deque(maxlen=self._keep)
        self._forgotten = Totals()

    # ------------------------------------------------------------------------------------------- counting

    # First of all, so that whoever is told of a call finds it counted.
    @hookimpl(tryfirst=True)
    def meter_call_opened(self, call: Call) -> None:
        if call.kind is RUN or call.kind is STEP:
            self._change(self._opened, call)
        elif call.parent is not None and call.parent.kind is TOOL:
            self._change(self._opened, call.parent)

    @hookimpl(tryfirst=True)
    def meter_record(self, record: Record) -> None:
        # `_change(self._count, record)`, written out for the path.
        with self._lock:
            if self._busy:
                self._late.append((self._count, record))
                return
            self._busy = True
            try:
                self._count(record)
                if self._late:
                    self._catch_up()
            finally:
                self._busy = False

    def _change(self, change: Callable[[Any], None], noun: Any) -> None:
        with self._lock:
            if self._busy:
                self._late.append((change, noun))
                return
            self._busy = True
            try:
                change(noun)
                self._catch_up()
            finally:
                self._busy = False

    def _catch_up(self) -> None:
        while self._late:
            late, about = self._late.pop(0)
            late(about)

    def _read(self, read: Callable[[], T]) -> T:
        """An answer with everything in it; or, to a handler that interrupts the counting, without the latest."""
        with self._lock:
            if self._busy:
                return read()
            self._change(lambda _: self._fold(), None)
            self._busy = True
            try:
                return read()
            finally:
                self._busy = False
                if self._late:
                    self._change(*self._late.pop(0))

    def _opened(self, call: Call) -> None:
        if self.tree.full:
            self._fold()  # what was used belongs to nodes that may have to make room
        self.tree.opened(call)

    def _count(self, record: Record) -> None:
        if type(record) is UsageRecord:
            if record.corrects is not None:
                self._correct(record.corrects, record)
            elif record.status is DENIED:
                self._denied.append((self._ended, record))
            else:
                self._remember(record)
            self._hot_cell(record, record.provider, record.model, record.session).add(record)
        elif type(record) is RunRecord:
            self.tree.closed(record)
        elif type(record) is ToolRecord and record.status is not DENIED:
            if not record.paused:
                self._hot_cell(record, "", "", record.session).tool_ran(record.name)
            self.tree.closed(record)

    def _remember(self, record: UsageRecord) -> None:
        self._history.append(record)
        self._ended += 1

    def _hot_cell(self, record: UsageRecord | ToolRecord, provider: str, model: str, session: str) -> Totals:
        at = record.started_at
        key = (
            record.agent,
            record.task,
            record.user,
            session,
            record.step,
            provider,
            model,
            record.tags or None,  # None hashes faster than an empty map
            at.toordinal() * 24 + at.hour,
            record.parent_id,
            record.run_id,
        )
        cell = self._hot.get(key)
        if cell is None:
            if len(self._hot) >= HOT_CELLS:
                self._fold()
            cell = self._hot[key] = Totals()
        return cell

    def _correct(self, old: UsageRecord, new: UsageRecord) -> None:
        """Take back what a record said that turned out to be wrong; the new one stands in its place."""
        everything = self._lost.pop(old.id, None)
        if everything is not True:
            wrong = Totals()
            wrong.add(old)
            session = old.session if everything is None else _FORGOTTEN
            self._hot_cell(old, old.provider, old.model, session).merge(wrong, -1)
        if everything is not None:
            self._remember(new)
            return
        for index in range(len(self._history) - 1, -1, -1):
            if self._history[index].id == old.id:
                self._history[index] = new
                return

    def _fold(self) -> None:
        for (*values, tags, hour, parent_id, run_id), totals in self._hot.items():
            who = _Who._make((*values, tags or EMPTY))
            self._total.merge(totals)
            for name, value in zip(DIMENSIONS, values, strict=True):
                if value:
                    table = self._forgotten if value is _FORGOTTEN else _slot(self._tables[name], value)
                    table.merge(totals)
            _slot(self._tables["hour"], hour).merge(totals)
            for name, value in who.tags.items():
                if name not in self._tag_tables and len(self._tag_tables) >= MAX_TAGS:
                    continue
                _slot(self._tag_tables.setdefault(name, {}), value).merge(totals)
            self._combination(who, hour).merge(totals)
            if parent_id is not None or run_id is not None:
                self.tree.add(parent_id, run_id, totals)
        self._hot.clear()

    def _combination(self, who: _Who, hour: int | str) -> Totals:
        found = self._combinations.get(who)
        if found is None and self._combined >= MAX_COMBINATIONS:
            fine: Any = {name: OTHER for name in _FINE if getattr(who, name) not in ("", _FORGOTTEN)}
            who = who._replace(tags=EMPTY, **fine)
            if self._combined >= 2 * MAX_COMBINATIONS and who not in self._combinations:
                who = who._replace(agent=OTHER, provider=OTHER, model=OTHER)
            found = self._combinations.get(who)
        if found is None:
            found = self._combinations[who] = _Combination(hour)
            self._combined += 1
        if found.hour == hour:
            return found.totals
        if found.later is None:
            found.later = {}
        if hour not in found.later:
            # Whose it is stays exact; when it was does not.
            hour = OTHER if self._combined >= MAX_COMBINATIONS else hour
            self._combined += hour not in found.later
        return found.later.setdefault(hour, Totals())

    # ------------------------------------------------------------------------------------------- answering

    def usage(self) -> AgentUsage:
        return self._read(lambda: AgentUsage.snapshot(self._total.copy(), tuple(self._history)))

    def list_pico(self) -> int:
        with self._lock:
            return self._total.list_pico + sum(cell.list_pico for cell in list(self._hot.values()))

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        with self._lock:
            records, ended = list(self._history), self._ended
            denied = list(self._denied) if include_denied else []
        if denied:
            first = ended - len(records)
            positions = [(first + index + 1, record) for index, record in enumerate(records)]
            records = [record for _, record in sorted(positions + denied, key=lambda pair: pair[0])]
        return records if limit is None else records[max(0, len(records) - max(0, limit)) :]

    def usage_by(self, dimensions: tuple[str, ...]) -> dict[Any, AgentUsage]:
        groups, records = self._read(lambda: (self._groups(dimensions), tuple(self._history)))

        def belongs(record: UsageRecord, key: object) -> bool:
            return key in keys_of(record, dimensions)

        return {key: AgentUsage.snapshot(totals, records, belongs, key) for key, totals in groups.items()}

    def _groups(self, dimensions: tuple[str, ...]) -> dict[Any, Totals]:
        check(dimensions, self._tag_tables)
        return self._one(dimensions[0]) if len(dimensions) == 1 else self._several(dimensions)

    def _one(self, dimension: str) -> dict[Any, Totals]:
        if dimension == "tool":
            return self._total.by_tool()
        table = self._tables.get("hour" if dimension in PERIODS else dimension)
        if table is None:
            table = self._tag_tables.get(dimension, {})
        groups: dict[Any, Totals] = {}
        rest = self._total.copy()
        for value, totals in table.items():
            rest.merge(totals, -1)
            key = period_of(value, dimension) if dimension in PERIODS else value
            if key in groups:
                groups[key].merge(totals)
            else:
                groups[key] = totals.copy()
        if dimension == "session":
            rest.merge(self._forgotten, -1)
        # What nobody attributed is what is left of the total.
        if dimension in OF_MODELS:
            rest.ran = None
        rest.tidy()
        if rest:
            groups[""] = rest
        return groups

    def _several(self, dimensions: tuple[str, ...]) -> dict[Any, Totals]:
        groups: dict[Any, Totals] = {}
        plain = tuple(name for name in dimensions if name != "tool")
        where = dimensions.index("tool") if "tool" in dimensions else None
        for who, combination in self._combinations.items():
            if who.session is _FORGOTTEN and "session" in dimensions:
                continue
            for hour, totals in combination:
                if not (who.model or who.provider) and not OF_MODELS.isdisjoint(dimensions):
                    totals = totals.copy()
                    totals.ran = None
                    if not totals:
                        continue
                values = tuple(_value(who, hour, name) for name in plain)
                if where is None:
                    groups.setdefault(values, Totals()).merge(totals)
                    continue
                for tool, share in totals.by_tool().items():
                    groups.setdefault((*values[:where], tool, *values[where:]), Totals()).merge(share)
        return groups

    def own(self, id: str) -> AgentUsage:
        """What a run or step has used itself, without folding: this is asked on the caller's path."""
        with self._lock:
            totals = self.tree.own(id)
            for key, cell in list(self._hot.items()):
                if self.tree.home(key[-2], key[-1]) == id:
                    totals.merge(cell)
        return AgentUsage.snapshot(totals)

    def run(self, run_id: str) -> RunTree:
        return self._read(lambda: self.tree.view(run_id, tuple(self._history)))

    # -------------------------------------------------------------------------------------------- forgetting

    def reset(self, session: str | None = None) -> None:
        self._change(self._reset, session)

    def _reset(self, session: str | None) -> None:
        # A call that was given up may answer yet: what of it has been forgotten here cannot be taken back then.
        given_up = [record for record in self._history if record.status is ABANDONED]
        if session is None:
            self._lost.update((record.id, True) for record in given_up)
            self._clear()
            self.tree.reset()
        else:
            self._lost.update((record.id, False) for record in given_up if record.session == session)
            self._forget(session)
        for id in list(self._lost)[: -self._keep or None]:
            del self._lost[id]

    def _forget(self, session: str) -> None:
        self._fold()
        if gone := self._one("session").get(session):
            self._forgotten.merge(gone)
            self._tables["session"].pop(session, None)
        for who in [who for who in self._combinations if who.session == session]:
            combination = self._combinations.pop(who)
            self._combined -= 1 + len(combination.later or ())
            for hour, totals in combination:
                self._combination(who._replace(session=_FORGOTTEN), hour).merge(totals)
        self._history = deque((r for r in self._history if r.session != session), maxlen=self._keep)
        self._denied = deque(((n, r) for n, r in self._denied if r.session != session), maxlen=self._keep)


def _slot(table: dict[str | int, Totals], value: str | int) -> Totals:
    totals = table.get(value)
    if totals is None:
        if len(table) >= MAX_KEYS:
            value = OTHER
        totals = table.setdefault(value, Totals())
    return totals


def _value(who: _Who, hour: int | str, dimension: str) -> str:
    if dimension in PERIODS:
        return period_of(hour, dimension)
    if dimension in DIMENSIONS:
        return str(getattr(who, dimension))
    return who.tags.get(dimension, "")
