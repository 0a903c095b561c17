"""What metrics are made of: sums by model and agent, by tool, and by run, in bounded memory.

The names of users, tasks, runs and sessions are never among the labels: there is no end to them, and they are
nobody's business but the ledger's.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any, NamedTuple

from ..patterns import printable
from ..records import ABANDONED, DENIED, OK, RUN, Record, RunRecord, ToolRecord, UsageRecord
from ..totals import Totals

MAX_AGENTS = 200
MAX_TOOLS = 200
MAX_MODELS = 200
MAX_SERIES = 1_000  # OpenTelemetry keeps 2,000 sets of attributes an instrument, of which a metric may use two
MAX_OPEN_RUNS = 10_000
OTHER = "other"

# Of the OpenTelemetry conventions: gen_ai.client.operation.duration.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
ITERATIONS = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0)

_OPERATIONS = {"llm": "chat", "embedding": "embeddings", "rerank": "rerank"}


class Series(NamedTuple):
    """One set of labels. `model` is the name that priced the call, `response_model` the one that answered, if known."""

    operation: str
    provider: str
    request_model: str
    response_model: str
    model: str
    agent: str


class Histogram:
    """Counts by bucket; the bounds are upper ones, inclusive."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class Tool:
    """Calls of one tool by one agent."""

    __slots__ = ("calls", "durations", "pico")

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.durations = Histogram(SECONDS)
        self.pico = 0

    @property
    def success_ratio(self) -> float | None:
        """Of the calls that were made, the part that succeeded; `None` before the first."""
        made = sum(count for outcome, count in self.calls.items() if outcome != "denied")
        return self.calls.get("ok", 0) / made if made else None


class Figures:
    """Sums that only rise. Safe to add to from any thread, a finalizer included.

    With `corrections`, a record that corrects another one takes back what that one had added; without, records
    come in their last version and the wrong one was never seen.
    """

    def __init__(self, *, corrections: bool = True) -> None:
        self._corrections = corrections
        self.lock = threading.RLock()
        self.usage: dict[Series, Totals] = {}
        self.durations: dict[Series, Histogram] = {}
        self.tools: dict[tuple[str, str], Tool] = {}
        self.iterations: dict[str, Histogram] = {}
        self.runs: dict[tuple[str, str], int] = {}
        self._names: dict[str, dict[str, None]] = {"agent": {}, "tool": {}, "model": {}}
        self._calls_of: dict[str, int] = {}  # of runs that have not ended
        self._highest: dict[tuple[object, ...], int] = {}

    def add(self, record: Record) -> Any:
        """Count a record and say where: its `Series`, (tool, agent), or the agent of a run and its iterations."""
        with self.lock:
            if type(record) is UsageRecord:
                return self._add_usage(record)
            if type(record) is ToolRecord:
                return self._add_tool(record)
            if type(record) is RunRecord and record.kind is RUN:
                return self._add_run(record)
            return None

    def _add_usage(self, record: UsageRecord) -> Series:
        series = self._series(record)
        totals = self.usage.get(series)
        if totals is None:
            totals = self.usage[series] = Totals()
        totals.add(record)
        if self._corrections and record.corrects is not None:
            wrong = Totals()
            wrong.add(record.corrects)
            totals.merge(wrong, -1)
        elif record.run_id is not None and record.status is not DENIED:
            calls = self._calls_of
            if record.run_id not in calls and len(calls) >= MAX_OPEN_RUNS:
                calls.pop(next(iter(calls)))
            calls[record.run_id] = calls.get(record.run_id, 0) + 1
        if record.duration is not None and record.status not in (DENIED, ABANDONED):
            durations = self.durations.get(series)
            if durations is None:
                durations = self.durations[series] = Histogram(SECONDS)
            durations.add(record.duration)
        return series

    def _series(self, record: UsageRecord) -> Series:
        series = Series(
            _OPERATIONS[record.kind],
            printable(record.provider),
            self._bounded("model", record.request_model, MAX_MODELS),
            self._bounded("model", record.response_model or "", MAX_MODELS),
            self._bounded("model", record.model or record.request_model, MAX_MODELS),
            self._bounded("agent", record.agent, MAX_AGENTS),
        )
        if series not in self.usage and len(self.usage) >= MAX_SERIES:
            series = series._replace(request_model=OTHER, response_model=OTHER, model=OTHER)
            if series not in self.usage and len(self.usage) >= MAX_SERIES + MAX_AGENTS:
                series = Series(series.operation, OTHER, OTHER, OTHER, OTHER, OTHER)
        return series

    def _bounded(self, what: str, name: str, most: int) -> str:
        names = self._names[what]
        name = printable(name)  # a line break in a label would break the line that it is on
        if name not in names:
            if len(names) >= most:
                return OTHER
            names[name] = None
        return name

    def _add_tool(self, record: ToolRecord) -> tuple[str, str] | None:
        if record.paused:
            return None
        key = self._bounded("tool", record.name, MAX_TOOLS), self._bounded("agent", record.agent, MAX_AGENTS)
        if key not in self.tools and len(self.tools) >= MAX_SERIES:
            key = (OTHER, OTHER)
        tool = self.tools.get(key)
        if tool is None:
            tool = self.tools[key] = Tool()
        outcome = "ok" if record.status is OK else "denied" if record.status is DENIED else "error"
        tool.calls[outcome] = tool.calls.get(outcome, 0) + 1
        if outcome != "denied":
            tool.durations.add(record.duration)
            tool.pico += record.cost_pico
        return key

    def _add_run(self, record: RunRecord) -> tuple[str, int]:
        agent = self._bounded("agent", record.agent or record.name, MAX_AGENTS)
        histogram = self.iterations.get(agent)
        if histogram is None:
            histogram = self.iterations[agent] = Histogram(ITERATIONS)
        iterations = self._calls_of.pop(record.id, 0)
        histogram.add(iterations)
        key = agent, record.status.value
        self.runs[key] = self.runs.get(key, 0) + 1
        return agent, iterations

    def rising(self, *key: object, value: int) -> int:
        """A sum as a counter, which must not fall: a correction that takes something back waits to be caught up."""
        highest = self._highest.get(key, 0)
        if value > highest:
            self._highest[key] = value
            return value
        return highest
