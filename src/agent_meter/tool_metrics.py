"""What is known of one tool at one moment, as numbers and as text."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from .patterns import Pattern, printable
from .sketches import LogHistogram


class ToolMetrics(msgspec.Struct):
    """What is known of one tool at one moment: a snapshot, which later calls do not change.

    Durations are seconds, rates percent (0–100), `total_cost` is exact US dollars. `parameter_usage` maps a
    parameter to its most common values and how often each came; `patterns` says how sure these counts are.
    """

    name: str
    total_calls: int = 0
    successful_calls: int = 0
    failed_calls: int = 0
    total_duration: float = 0.0
    total_cost: Decimal = Decimal(0)
    parameter_usage: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    total_chunks: int = 0
    streaming_calls: int = 0
    denied_calls: int = 0  # refused before they were made; not among total_calls
    invalid_durations: int = 0  # not a number of seconds, counted as 0
    invalid_costs: int = 0  # not an amount of money, counted as 0
    other_parameters: int = 0  # arguments of parameters beyond those that are followed
    last_errors: tuple[str, ...] = ()  # error types, the newest last
    patterns: dict[str, Pattern] = msgspec.field(default_factory=dict)
    durations: LogHistogram = msgspec.field(default_factory=LogHistogram)

    @property
    def success_rate(self) -> float:
        return self.successful_calls / self.total_calls * 100.0 if self.total_calls else 0.0

    @property
    def failure_rate(self) -> float:
        return self.failed_calls / self.total_calls * 100.0 if self.total_calls else 0.0

    @property
    def avg_duration(self) -> float:
        return self.total_duration / self.total_calls if self.total_calls else 0.0

    @property
    def p50(self) -> float:
        """The median duration, ±1.1 %; like all of these 0.0 when there was no call."""
        return self.durations.quantile(0.5) or 0.0

    @property
    def p95(self) -> float:
        return self.durations.quantile(0.95) or 0.0

    @property
    def p99(self) -> float:
        return self.durations.quantile(0.99) or 0.0

    @property
    def min_duration(self) -> float:
        return self.durations.min or 0.0

    @property
    def max_duration(self) -> float:
        return self.durations.max or 0.0

    def distinct(self, parameter: str) -> int:
        """How many different values a parameter had: exact up to 64, then ±2.3 % (standard error)."""
        pattern = self.patterns.get(parameter)
        return 0 if pattern is None else pattern.distinct

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; durations to the microsecond, rates to two decimals, `total_cost` a float."""
        return {
            "name": self.name,
            "total_calls": self.total_calls,
            "successful_calls": self.successful_calls,
            "failed_calls": self.failed_calls,
            "success_rate": round(self.success_rate, 2),
            "failure_rate": round(self.failure_rate, 2),
            "total_duration": round(self.total_duration, 6),
            "avg_duration": round(self.avg_duration, 6),
            "total_cost": float(self.total_cost),
            "parameter_usage": {name: dict(values) for name, values in self.parameter_usage.items()},
            "total_chunks": self.total_chunks,
            "streaming_calls": self.streaming_calls,
            "p50": round(self.p50, 6),
            "p95": round(self.p95, 6),
            "p99": round(self.p99, 6),
            "min_duration": round(self.min_duration, 6),
            "max_duration": round(self.max_duration, 6),
            "distinct_values": {name: pattern.distinct for name, pattern in self.patterns.items()},
            "last_errors": list(self.last_errors),
            "denied_calls": self.denied_calls,
            "invalid_durations": self.invalid_durations,
            "invalid_costs": self.invalid_costs,
            "other_parameters": self.other_parameters,
        }

    def lines(self) -> list[str]:
        """The tool's block in the summary, without the blank line before it."""
        calls = self.total_calls
        lines = [
            f"{printable(self.name)}:",
            f"  Calls: {calls}",
            f"  Success rate: {self.success_rate:.1f}% ({self.successful_calls}/{calls})",
        ]
        if self.failed_calls:
            lines.append(f"  Failures: {self.failed_calls}")
        lines.append(f"  Avg duration: {self.avg_duration:.3f}s")
        lines.append(f"  Total duration: {self.total_duration:.3f}s")
        if calls:
            lines.append(f"  Percentiles: p50 {self.p50:.3f}s, p95 {self.p95:.3f}s, p99 {self.p99:.3f}s")
        if self.denied_calls:
            lines.append(f"  Denied: {self.denied_calls}")
        if self.total_cost:
            lines.append(f"  Total cost: ${money(self.total_cost)}")
        if self.streaming_calls:
            average = self.total_chunks / self.streaming_calls
            lines.append(f"  Streaming calls: {self.streaming_calls}/{calls}")
            lines.append(f"  Total chunks: {self.total_chunks} (avg: {average:.1f}/call)")
        if self.patterns:
            lines.append("  Common parameters:")
            lines += [f"    {pattern}" for pattern in self.patterns.values()]
        return lines


def money(amount: Decimal) -> str:
    """Dollars with six decimals, or as many as there are: a cost of 0.00000015 is not 0."""
    text = f"{amount:f}"
    return text if len(text.partition(".")[2]) > 6 else f"{amount:.6f}"
