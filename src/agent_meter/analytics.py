"""How the tools do: calls, failures, durations, cost, and what they are called with.

Memory is bounded whatever is recorded (see `sketches`, `patterns`); no code of a recorded value is run; reading
never stops anybody from recording for longer than one tool takes to copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from decimal import Decimal
from threading import RLock
from typing import Any, TypeVar

from .files import write_text
from .patterns import OTHER, Policy, ToolParameters, short_name, type_name
from .records import Status, ToolRecord, dollars, pico
from .sketches import LogHistogram
from .spreadsheets import cell
from .tool_metrics import ToolMetrics, money

__all__ = ["AgentAnalytics", "ToolMetrics"]

T = TypeVar("T")

NOTHING = "No tool usage data collected."
COLUMNS = (
    "tool_name", "total_calls", "successful_calls", "failed_calls",
    "success_rate", "avg_duration", "total_duration", "total_cost",
)  # fmt: skip
_KEPT_ERRORS = 5
_MOST_DOLLARS = 10**9  # a tool call that cost more is a mistake


class _Tool:
    """The counters of one tool. Does not lock."""

    __slots__ = (
        "bad_costs", "bad_durations", "chunks", "denied", "durations", "errors",
        "failed", "name", "ok", "parameters", "pico", "streamed",
    )  # fmt: skip

    def __init__(self, name: str, policy: Policy | None) -> None:
        self.name = name
        self.parameters = None if policy is None else ToolParameters(name, policy)
        self.durations = LogHistogram()
        self.errors: list[str] = []
        self.ok = self.failed = self.denied = self.bad_durations = self.bad_costs = 0
        self.pico = self.chunks = self.streamed = 0

    def add(
        self, status: Status, duration: Any, params: object, cost_pico: int | None, chunks: Any, error: object
    ) -> None:
        if status is Status.OK:
            self.ok += 1
        elif status is Status.DENIED:
            self.denied += 1
            return
        else:
            self.failed += 1
            if error is None and status is not Status.ERROR:
                error = status.value
            if error is not None:
                self.errors = [*self.errors[1 - _KEPT_ERRORS :], _error_type(error)]
        try:
            self.durations.record(duration if type(duration) is float else float(duration + 0.0))
        except Exception:  # None, "1.5", NaN, a clock that was set back
            self.bad_durations += 1
            self.durations.record(0.0)
        if cost_pico:
            self.pico += cost_pico
        elif cost_pico is None:
            self.bad_costs += 1
        if type(chunks) is int and chunks > 0:
            self.streamed += 1
            self.chunks += chunks
        if self.parameters is not None:
            self.parameters.add(params)

    def read(self) -> ToolMetrics:
        parameters = self.parameters
        usage, patterns = ({}, {}) if parameters is None else parameters.read()
        return ToolMetrics(
            self.name,
            self.ok + self.failed,
            self.ok,
            self.failed,
            self.durations.sum,
            dollars(self.pico),
            usage,
            self.chunks,
            self.streamed,
            self.denied,
            self.bad_durations,
            self.bad_costs,
            0 if parameters is None else parameters.other,
            tuple(self.errors),
            patterns,
            self.durations.copy(),
        )


def _error_type(error: object) -> str:
    if issubclass(type(error), str):
        return short_name(error)
    return type_name(error if isinstance(error, type) else type(error))


def _cost(amount: Any) -> int | None:
    """Dollars as pico-dollars, `None` for what is no amount of money."""
    if type(amount) is float and amount == 0.0:
        return 0
    try:
        return pico(amount) if 0 <= amount <= _MOST_DOLLARS else None
    except Exception:  # None, "free", a signalling NaN
        return None


class AgentAnalytics:
    """Counts tool calls; `summary()`, `to_json()` and `to_csv()` tell. Safe to share between threads.

    What tools are called with is kept as patterns: the most common values of each parameter, and how many
    different ones. `parameters=False` keeps none; `allow` only those parameters, `deny` all but those, each
    named `"query"` or, of one tool only, `"search.query"`. Values under names like `api_key` are never kept.
    Tools beyond `max_tools` are counted together as `"(other)"`.
    """

    def __init__(
        self,
        *,
        parameters: bool = True,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] | None = None,
        max_tools: int = 10_000,
    ) -> None:
        if max_tools < 1:
            raise ValueError(f"max_tools must be at least 1, not {max_tools!r}")
        self._max_tools = max_tools
        self._policy = Policy(allow, deny) if parameters else None
        self._tools: dict[str, _Tool] = {}
        # A finalizer or a signal handler may record while this very thread records or reads: it must neither wait
        # for itself nor change what is being changed. What it records waits in _late.
        self._lock = RLock()
        self._busy = False
        self._late: list[tuple[Any, ...]] = []

    def record_tool_call(
        self,
        tool_name: str,
        success: bool,
        duration: float,
        params: Any,
        cost: float | Decimal = 0.0,
        chunk_count: int = 0,
        *,
        error_type: str | None = None,
    ) -> None:
        """Count one call: `duration` in seconds, `params` by name, `cost` in US dollars, chunks if it streamed.

        Never raises for what it is given: a duration or cost that is none counts as 0 and as invalid.
        """
        status = Status.OK if success else Status.ERROR
        self._add(tool_name, status, duration, params, _cost(cost), chunk_count, None if success else error_type)

    def record(self, record: ToolRecord) -> None:
        """Count a finished tool call. A denied one is counted apart: it was never made."""
        self._add(
            record.name,
            record.status,
            record.duration,
            record.params,
            record.cost_pico,
            record.chunk_count,
            record.error_type,
        )

    def _add(
        self, name: Any, status: Status, duration: Any, params: Any, cost_pico: int | None, chunks: Any, error: Any
    ) -> None:
        self._lock.acquire()  # `with` costs 0.2 µs more
        try:
            if self._busy:
                self._late.append((name, status, duration, params, cost_pico, chunks, error))
                return
            self._busy = True
            try:
                tool = self._tools.get(name) if type(name) is str else None
                (tool or self._welcome(name)).add(status, duration, params, cost_pico, chunks, error)
                if self._late:
                    self._catch_up()
            finally:
                self._busy = False
        finally:
            self._lock.release()

    def _welcome(self, name: object) -> _Tool:
        name = short_name(name)
        tool = self._tools.get(name)
        if tool is None and len(self._tools) >= self._max_tools:
            name = OTHER
            tool = self._tools.get(OTHER)
        if tool is None:
            # The parameters of different tools have nothing to do with each other.
            tool = self._tools[name] = _Tool(name, None if name == OTHER else self._policy)
        return tool

    def _catch_up(self) -> None:
        while self._late:
            name, *call = self._late.pop(0)
            self._welcome(name).add(*call)

    def _undisturbed(self, read: Callable[[], T]) -> T:
        with self._lock:
            if self._busy:  # somebody reads in the middle of a recording
                return read()
            self._busy = True
            try:
                self._catch_up()
                found = read()
                self._catch_up()
                return found
            finally:
                self._busy = False

    def get_metrics(self, tool_name: str) -> ToolMetrics | None:
        """A snapshot of one tool, `None` if it was never called."""
        tool = self._tools.get(short_name(tool_name))
        return None if tool is None else self._undisturbed(tool.read)

    def get_all_metrics(self) -> dict[str, ToolMetrics]:
        """A snapshot of each tool, the most called first, then by name."""
        tools = self._undisturbed(lambda: list(self._tools.values()))
        metrics = [self._undisturbed(tool.read) for tool in tools]
        metrics.sort(key=lambda one: (-one.total_calls, one.name))
        return {one.name: one for one in metrics}

    def summary(self) -> str:
        """The whole as text for people; "No tool usage data collected." before the first call."""
        metrics = self.get_all_metrics()
        if not metrics:
            return NOTHING
        rule = "=" * 60
        lines = ["", rule, "Tool Usage Analytics", rule, ""]
        for one in metrics.values():
            lines += ["", *one.lines()]
        return "\n".join([*lines, "", rule])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `{"tools": {name: ToolMetrics.to_dict()}, "summary": {…totals…}}`."""
        metrics = self.get_all_metrics()
        return {
            "tools": {name: one.to_dict() for name, one in metrics.items()},
            "summary": {
                "total_tools": len(metrics),
                "total_calls": sum(one.total_calls for one in metrics.values()),
                "total_duration": round(sum(one.total_duration for one in metrics.values()), 6),
                "total_cost": float(dollars(sum(pico(one.total_cost) for one in metrics.values()))),
            },
        }

    def to_json(self, filepath: str | os.PathLike[str]) -> None:
        """Write `to_dict()` as JSON; how files are written is said in `files.write_text`."""
        import json

        write_text(filepath, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def to_csv(self, filepath: str | os.PathLike[str]) -> None:
        """Write one row a tool: the eight `COLUMNS`, rates in percent, durations in seconds, cost in dollars."""
        rows = [COLUMNS]
        for one in self.get_all_metrics().values():
            counts = str(one.total_calls), str(one.successful_calls), str(one.failed_calls)
            figures = f"{one.success_rate:.2f}", f"{one.avg_duration:.4f}", f"{one.total_duration:.4f}"
            rows.append((cell(one.name), *counts, *figures, money(one.total_cost)))
        write_text(filepath, "".join(",".join(row) + "\r\n" for row in rows))

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._tools = {}
            if self._policy is not None:
                self._policy = self._policy.fresh()

    def __repr__(self) -> str:
        return f"<AgentAnalytics of {len(self._tools):,} tools>"
