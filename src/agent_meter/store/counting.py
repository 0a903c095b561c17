"""Counting records themselves: what rollups are checked against, and what answers where there is no rollup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ..dimensions import DIMENSIONS, KNOWN, OF_MODELS, check, values_of
from ..records import DENIED, Record, RunRecord, ToolRecord, UsageRecord
from ..totals import OTHER, Totals
from ..tree import RunTree, Tree
from ..usage import AgentUsage

MAX_KEYS = 10_000  # a dimension keeps the biggest, the rest sums into "(other)"
CHOICES = (*DIMENSIONS, "status", "run_id", "framework")


def add(totals: Totals, record: Record) -> None:
    """Count a record of any kind: model calls, and the tool calls that were made."""
    if type(record) is UsageRecord:
        totals.add(record)
    elif type(record) is ToolRecord and record.status is not DENIED and not record.paused:
        totals.tool_ran(record.name)


class Groups:
    """Totals by some dimensions. "tool" is shared out at the end, when the rest is known."""

    def __init__(self, dimensions: Sequence[str]) -> None:
        self.dimensions = tuple(dimensions)
        self.plain = tuple(name for name in dimensions if name != "tool")
        self._groups: dict[tuple[str, ...], Totals] = {}
        self.untidy = False  # something was subtracted, and may have left zeros

    def group(self, values: tuple[str, ...]) -> Totals:
        """The totals of these values of the dimensions but "tool"."""
        found = self._groups.get(values)
        if found is None:
            found = self._groups[values] = Totals()
        return found

    def add(self, record: Any) -> None:
        if type(record) is not RunRecord:
            add(self.group(values_of(record, self.plain)), record)

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Totals]]:
        return iter(self._groups.items())

    def merge(self, other: Groups, sign: int = 1) -> None:
        self.untidy = self.untidy or sign < 0
        for values, totals in other:
            self.group(values).merge(totals, sign)

    def answer(self) -> dict[Any, AgentUsage]:
        groups: dict[tuple[str, ...], Totals] = {}
        models = [place for place, name in enumerate(self.plain) if name in OF_MODELS]
        where = self.dimensions.index("tool") if "tool" in self.dimensions else None
        for values, totals in self._groups.items():
            if models and not any(values[place] for place in models):
                totals.ran = None  # a tool call has no model
            if self.untidy:
                totals.tidy()
            if not totals:
                continue
            if where is None:
                groups[values] = totals
                continue
            for tool, share in totals.by_tool().items():
                groups[(*values[:where], tool, *values[where:])] = share
        groups = _bounded(groups)
        single = len(self.dimensions) == 1
        return {key[0] if single else key: AgentUsage.snapshot(totals) for key, totals in groups.items()}


def _bounded(groups: dict[tuple[str, ...], Totals]) -> dict[tuple[str, ...], Totals]:
    if len(groups) <= MAX_KEYS:
        return groups
    ranked = sorted(groups.items(), key=lambda item: -(item[1].input_tokens + item[1].output_tokens))
    kept = dict(ranked[:MAX_KEYS])
    for key, totals in ranked[MAX_KEYS:]:
        other = (OTHER,) * len(key)
        kept.setdefault(other, Totals()).merge(totals)
    return kept


def chosen(record: Any, filters: dict[str, str]) -> bool:
    """Whether a record has all these values."""
    for name, value in filters.items():
        if name == "tool":
            if value != (record.name if type(record) is ToolRecord else None) and value not in getattr(
                record, "tools", ()
            ):
                return False
        elif (getattr(record, name, "") if name in CHOICES else record.tags.get(name, "")) != value:
            return False
    return True


def tree_of(run_id: str, records: Sequence[Record]) -> RunTree:
    """The tree of a run, from the records of it and of the runs inside it."""
    parents = {record.parent_id for record in records if record.status is not DENIED}
    ended = [r for r in records if type(r) is RunRecord or (type(r) is ToolRecord and r.id in parents)]
    tree = Tree(max_nodes=len(ended) + 1)
    if all(record.id != run_id for record in ended):
        if not records:
            raise LookupError(f"no run {run_id!r} in the store")
        tree.running(run_id)  # its end was never stored, but its calls were: it is running, or it was killed
    tree.ended(ended)
    for record in records:
        totals = Totals()
        add(totals, record)
        if totals:
            tree.add(record.parent_id, record.run_id, totals)
    return tree.view(run_id, [r for r in records if type(r) is UsageRecord and r.status is not DENIED])


def utc(at: datetime | None, what: str) -> datetime | None:
    """The moment in UTC; `ValueError` for one that does not say its offset."""
    if at is None:
        return None
    if at.tzinfo is None:
        raise ValueError(f"{what} must be aware, for example datetime.now(UTC); got {at!r}")
    return at.astimezone(UTC)


def check_filters(filters: dict[str, str], tags: Iterable[str]) -> None:
    """`ValueError` for a filter that is nearly the name of one."""
    known = (*CHOICES, "tool")
    for name in filters:
        if name not in known and name not in KNOWN:
            check((name,), frozenset(tags))
