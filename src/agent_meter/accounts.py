"""The built-in plugin behind `meter.usage`, `usage_by`, `top`, `history` and `tree`.

A record costs one dictionary look-up and one addition on the caller's path: it is added to the cell of its
full attribution. Cells are folded into the tables by agent, user, model, … when somebody reads, or when there
are `HOT_CELLS` of them. All tables are bounded; what does not fit sums into "(other)", so totals stay exact.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from .attribution import NAMES
from .hookspecs import hookimpl
from .records import EMPTY, Call, Kind, Record, RunRecord, Status, ToolRecord, UsageRecord
from .tree import RunTree, Tree
from .usage import OTHER, AgentUsage, Totals

HOT_CELLS = 64  # one fold stays about a millisecond
MAX_KEYS = 10_000  # a dimension
MAX_CELLS = 10_000  # distinct combinations, for questions about several dimensions at once
MAX_TAGS = 100  # names of tags


class _Cell(NamedTuple):
    """Where a record belongs: one value for each dimension."""

    agent: str
    task: str
    user: str
    session: str
    step: str
    provider: str
    model: str
    hour: int  # since the proleptic epoch, UTC
    tags: Mapping[str, str]


DIMENSIONS = (*NAMES, "provider", "model")
PERIODS = ("hour", "day", "week", "month")
# When there are too many combinations, these are given up for the newcomers, the finest ones first.
_COARSE = ("task", "user", "session", "step")


class Accounts:
    """Counts everything once, and answers by any dimension."""

    def __init__(self, keep: int = 10_000) -> None:
        self._lock = threading.Lock()
        self._keep = keep
        self.tree = Tree()
        self._clear()

    def _clear(self) -> None:
        self._hot: dict[tuple[Any, ...], Totals] = {}
        self._total = Totals()
        self._tables: dict[str, dict[str | int, Totals]] = {name: {} for name in (*DIMENSIONS, "hour")}
        self._tag_tables: dict[str, dict[str | int, Totals]] = {}
        self._cells: dict[_Cell, Totals] = {}
        self._history: deque[UsageRecord] = deque(maxlen=self._keep)
        self._denied: deque[UsageRecord] = deque(maxlen=self._keep)
        self._forgotten: dict[str, Totals] = {}  # sessions that were reset: in the total, in no session

    # ------------------------------------------------------------------------------------------- counting

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        parent = call.parent
        if call.kind is Kind.RUN or call.kind is Kind.STEP:
            with self._lock:
                self.tree.opened(call)
        elif parent is not None and parent.kind is Kind.TOOL:
            with self._lock:
                self.tree.opened(parent)

    @hookimpl
    def meter_record(self, record: Record) -> None:
        with self._lock:
            if type(record) is UsageRecord:
                if record.corrects is not None:
                    self._correct(record.corrects, record)
                elif record.status is Status.DENIED:
                    self._denied.append(record)
                else:
                    self._history.append(record)
                self._hot_cell(record, record.provider, record.model).add(record)
            elif type(record) is RunRecord:
                self.tree.closed(record)
            elif type(record) is ToolRecord and record.status is not Status.DENIED:
                self._hot_cell(record, "", "").ran(record.name)

    def _hot_cell(self, record: UsageRecord | ToolRecord, provider: str, model: str) -> Totals:
        at = record.started_at
        key = (
            record.agent,
            record.task,
            record.user,
            record.session,
            record.step,
            provider,
            model,
            at.toordinal() * 24 + at.hour,
            record.tags or None,  # None hashes faster than an empty map
            record.parent_id,
        )
        cell = self._hot.get(key)
        if cell is None:
            if len(self._hot) >= HOT_CELLS:
                self._fold()
            cell = self._hot[key] = Totals()
        return cell

    def _correct(self, old: UsageRecord, new: UsageRecord) -> None:
        """Take back what a record said that turned out to be wrong; the new one stands in its place."""
        wrong = Totals()
        wrong.add(old)
        self._hot_cell(old, old.provider, old.model).merge(wrong, -1)
        for index in range(len(self._history) - 1, -1, -1):
            if self._history[index].id == old.id:
                self._history[index] = new
                return

    def _fold(self) -> None:
        for key, totals in self._hot.items():
            cell, parent = _Cell._make((*key[:-2], key[-2] or EMPTY)), key[-1]
            self._total.merge(totals)
            for name in DIMENSIONS:
                if value := getattr(cell, name):
                    _slot(self._tables[name], value).merge(totals)
            _slot(self._tables["hour"], cell.hour).merge(totals)
            for name, value in cell.tags.items():
                if name not in self._tag_tables and len(self._tag_tables) >= MAX_TAGS:
                    continue
                _slot(self._tag_tables.setdefault(name, {}), value).merge(totals)
            self._combination(cell).merge(totals)
            if parent is not None:
                self.tree.add(parent, totals)
        self._hot.clear()

    def _combination(self, cell: _Cell) -> Totals:
        totals = self._cells.get(cell)
        if totals is None:
            if len(self._cells) >= MAX_CELLS:
                coarse: Any = {name: OTHER for name in _COARSE if getattr(cell, name)}
                cell = cell._replace(tags=EMPTY, **coarse)
                if len(self._cells) >= 2 * MAX_CELLS and cell not in self._cells:
                    cell = cell._replace(agent=OTHER, provider=OTHER, model=OTHER)
            totals = self._cells.setdefault(cell, Totals())
        return totals

    # ------------------------------------------------------------------------------------------- answering

    def usage(self) -> AgentUsage:
        with self._lock:
            self._fold()
            return AgentUsage.snapshot(self._total.copy(), tuple(self._history))

    def list_pico(self) -> int:
        with self._lock:
            return self._total.list_pico + sum(cell.list_pico for cell in self._hot.values())

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        with self._lock:
            records = list(self._history)
            if include_denied:
                records = sorted([*records, *self._denied], key=lambda record: record.id)
        return records if limit is None else records[max(0, len(records) - limit) :]

    def usage_by(self, dimensions: tuple[str, ...]) -> dict[Any, AgentUsage]:
        with self._lock:
            self._fold()
            self._check(dimensions)
            groups = self._one(dimensions[0]) if len(dimensions) == 1 else self._several(dimensions)
            records = tuple(self._history)
        return {
            key: AgentUsage.snapshot(totals, records, lambda record, key=key: key in _keys_of(record, dimensions))  # type: ignore[misc]
            for key, totals in groups.items()
        }

    def _check(self, dimensions: tuple[str, ...]) -> None:
        from difflib import get_close_matches

        known = (*DIMENSIONS, *PERIODS, "tool")
        if not dimensions:
            raise ValueError(f"name at least one dimension: {', '.join(known)}, or a tag's name")
        for name in dimensions:
            if name not in known and name not in self._tag_tables and (near := get_close_matches(name, known, 1, 0.75)):
                raise ValueError(f"no dimension and no tag {name!r} so far; did you mean {near[0]!r}?")

    def _one(self, dimension: str) -> dict[Any, Totals]:
        if dimension == "tool":
            return _by_tool(self._total)
        table = self._tables.get("hour" if dimension in PERIODS else dimension)
        if table is None:
            table = self._tag_tables.get(dimension, {})
        groups: dict[Any, Totals] = {}
        rest = self._total.copy()
        for value, totals in table.items():
            rest.merge(totals, -1)
            key = _period(value, dimension) if isinstance(value, int) else value
            groups.setdefault(key, Totals()).merge(totals)
        if dimension == "session":
            for totals in self._forgotten.values():
                rest.merge(totals, -1)
        # What nobody attributed is what is left of the total.
        if rest.tools:
            rest.tools = {name: tool for name, tool in rest.tools.items() if any(tool)} or None
        if dimension in ("provider", "model"):
            rest.tools = None  # a tool call has neither
        if rest.requests or rest.denied_requests or rest.tools:
            groups[""] = rest
        return groups

    def _several(self, dimensions: tuple[str, ...]) -> dict[Any, Totals]:
        groups: dict[Any, Totals] = {}
        plain = tuple(name for name in dimensions if name != "tool")
        for cell, totals in self._cells.items():
            values = tuple(_value(cell, name) for name in plain)
            if len(plain) == len(dimensions):
                groups.setdefault(values, Totals()).merge(totals)
                continue
            where = dimensions.index("tool")
            for tool, share in _by_tool(totals).items():
                groups.setdefault((*values[:where], tool, *values[where:]), Totals()).merge(share)
        return groups

    def own(self, id: str) -> AgentUsage:
        """What a run or step has used itself, without folding: this is asked on the caller's path."""
        with self._lock:
            totals = self.tree.own(id)
            for key, cell in self._hot.items():
                if key[-1] == id:
                    totals.merge(cell)
        return AgentUsage.snapshot(totals)

    def run(self, run_id: str) -> RunTree:
        with self._lock:
            self._fold()
            return self.tree.view(run_id)

    # -------------------------------------------------------------------------------------------- forgetting

    def reset(self, session: str | None = None) -> None:
        with self._lock:
            if session is None:
                self._clear()
                self.tree.reset()
                return
            self._fold()
            gone = self._tables["session"].pop(session, None)
            if gone is not None:
                self._forgotten.setdefault("", Totals()).merge(gone)
            for cell in [cell for cell in self._cells if cell.session == session]:
                totals = self._cells.pop(cell)
                self._combination(cell._replace(session=OTHER)).merge(totals)
            self._history = deque((r for r in self._history if r.session != session), maxlen=self._keep)


def _slot(table: dict[str | int, Totals], value: str | int) -> Totals:
    totals = table.get(value)
    if totals is None:
        if len(table) >= MAX_KEYS:
            value = OTHER
        totals = table.setdefault(value, Totals())
    return totals


def _by_tool(totals: Totals) -> dict[Any, Totals]:
    """Totals by tool; the turns that asked for none are under ""."""
    groups: dict[Any, Totals] = {}
    rest = totals.copy()
    for name in totals.tools or ():
        groups[name] = totals.of_tool(name)
        rest.merge(groups[name], -1)
    rest.tools = None
    if rest.requests:
        groups[""] = rest
    return groups


def _period(hour: int, period: str) -> str:
    day, of_day = divmod(hour, 24)
    return _period_name(date.fromordinal(day), of_day, period)


def _period_name(day: date, hour: int, period: str) -> str:
    """2026-11-21T22, 2026-11-21, 2026-W47 (ISO), 2026-11: all UTC."""
    if period == "hour":
        return f"{day.isoformat()}T{hour:02d}"
    if period == "week":
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02d}"
    return day.isoformat() if period == "day" else day.isoformat()[:7]


def _value(cell: _Cell, dimension: str) -> str:
    if dimension in PERIODS:
        return _period(cell.hour, dimension)
    if dimension in DIMENSIONS:
        return str(getattr(cell, dimension))
    return cell.tags.get(dimension, "")


def _keys_of(record: UsageRecord, dimensions: tuple[str, ...]) -> list[object]:
    """The groups that a record belongs to: one, or one for each tool that it asked for."""
    at: datetime = record.started_at
    values: list[tuple[str, ...]] = [()]
    for name in dimensions:
        if name == "tool":
            choices = tuple(dict.fromkeys(record.tools)) or ("",)
        elif name in PERIODS:
            choices = (_period_name(at.date(), at.hour, name),)
        elif name in DIMENSIONS:
            choices = (getattr(record, name),)
        else:
            choices = (record.tags.get(name, ""),)
        values = [(*value, choice) for value in values for choice in choices]
    return [value[0] if len(dimensions) == 1 else value for value in values]
