"""How much was used in the windows that rules look at: this hour, day, week and month, by agent, and by task.

Windows are calendar windows of UTC, as in `meter.usage_by`; a call counts where it began. Bounded: 10,000 agents and
10,000 tasks, of agents the rest under "(other)", of tasks the longest unseen forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ..records import DENIED, LLM, UsageRecord
from .variables import WINDOWS

OTHER = "(other)"
_KEPT = 10_000
HOURS = 28 * 24  # that a forecast looks back


class Cell:
    """What was used since `start`."""

    __slots__ = ("pico", "requests", "start", "tokens")

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.tokens = self.pico = self.requests = 0

    def add(self, tokens: int, pico: int, requests: int) -> None:
        self.tokens += tokens
        self.pico += pico
        self.requests += requests

    def of(self, measure: str) -> float:
        return self.pico / 1e12 if measure == "cost" else self.tokens if measure == "tokens" else self.requests


class Counters:
    """Fed with records by one thread at a time."""

    def __init__(self) -> None:
        self._whole: dict[str, Cell] = {}
        self._agents: dict[str, dict[str, Cell]] = {}
        self._tasks: OrderedDict[tuple[str, str], Cell] = OrderedDict()
        self._hours: OrderedDict[datetime, Cell] = OrderedDict()
        self.unpriced = self.denied = 0

    def add(self, record: UsageRecord) -> None:
        if record.status is DENIED:
            self.denied += 1
            return
        if record.corrects is not None:
            self._count(record.corrects, -1)
        self._count(record, 1)

    def _count(self, record: UsageRecord, sign: int) -> None:
        billed = record.cost.billed_pico
        if billed is None:
            self.unpriced += sign
        tokens = sign * record.total_tokens if record.kind is LLM else 0
        self.put(record.started_at, record.agent, record.task, tokens, sign * (billed or 0), sign)

    def put(self, at: datetime, agent: str, task: str, tokens: int, pico: int, requests: int) -> None:
        at = at.astimezone(UTC)
        windows = self._agents.get(agent)
        if windows is None:
            if len(self._agents) >= _KEPT and agent:
                agent = OTHER
            windows = self._agents.setdefault(agent, {})
        for window in WINDOWS:
            start = start_of(window, at)
            for cells in (self._whole, windows):
                cell = cells.get(window)
                if cell is None or cell.start < start:
                    cell = cells[window] = Cell(start)
                if cell.start == start:  # else it belongs to a window that is over
                    cell.add(tokens, pico, requests)
        hour = self._hours.get(start := start_of("hourly", at))
        if hour is None:
            hour = self._hours[start] = Cell(start)
            if len(self._hours) > HOURS:
                self._hours.popitem(last=False)
        hour.add(tokens, pico, requests)
        if task:
            total = self._tasks.get((agent, task))
            if total is None:
                total = self._tasks[(agent, task)] = Cell(at)
                if len(self._tasks) > _KEPT:
                    self._tasks.popitem(last=False)
            else:
                self._tasks.move_to_end((agent, task))
            total.add(tokens, pico, requests)

    # ---------------------------------------------------------------- sums of before, from a store's rollups

    def seed(self, window: str, start: datetime, agent: str, tokens: int, pico: int, requests: int) -> None:
        """What an agent has used since the beginning of a window that is still going on."""
        if agent not in self._agents and len(self._agents) >= _KEPT and agent:
            agent = OTHER
        for cells in (self._whole, self._agents.setdefault(agent, {})):
            cell = cells.get(window)
            if cell is None:
                cell = cells[window] = Cell(start)
            cell.add(tokens, pico, requests)

    def seed_hour(self, start: datetime, tokens: int, pico: int, requests: int) -> None:
        """What everything used in one hour; the oldest hour comes first."""
        self._hours[start] = cell = Cell(start)
        cell.add(tokens, pico, requests)

    def seed_task(self, agent: str, task: str, at: datetime, tokens: int, pico: int, requests: int) -> None:
        if len(self._tasks) < _KEPT:
            self._tasks[(agent, task)] = cell = Cell(at)
            cell.add(tokens, pico, requests)

    # ---------------------------------------------------------------------------------------------- answers

    def agents(self) -> Iterable[str]:
        return list(self._agents)

    def tasks(self) -> Iterable[tuple[str, str]]:
        return list(self._tasks)

    def used(self, window: str, measure: str, now: datetime, agent: str | None = None) -> float:
        """By everything, or by one agent, in the window that `now` is in."""
        cell = (self._whole if agent is None else self._agents.get(agent, {})).get(window)
        return 0 if cell is None or cell.start != start_of(window, now) else cell.of(measure)

    def used_by_task(self, agent: str, task: str, measure: str) -> float:
        cell = self._tasks.get((agent, task))
        return 0 if cell is None else cell.of(measure)

    def hours(self, measure: str) -> dict[datetime, float]:
        """What was used in each hour of the last four weeks, for a forecast."""
        return {start: cell.of(measure) for start, cell in list(self._hours.items())}


def start_of(window: str, at: datetime) -> datetime:
    """The beginning of the hour, day, week (Monday) or month in UTC that a moment is in."""
    at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if window == "hourly":
        return at
    at = at.replace(hour=0)
    if window == "daily":
        return at
    if window == "weekly":
        return at - timedelta(days=at.weekday())
    return at.replace(day=1)


def end_of(window: str, at: datetime) -> datetime:
    start = start_of(window, at)
    if window == "monthly":
        return (start + timedelta(days=32)).replace(day=1)
    return start + {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(days=7)}[window]
