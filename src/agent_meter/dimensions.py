"""What usage can be asked by: whose it was, which model answered, which tool it was for, when it was."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import TYPE_CHECKING

from .attribution import NAMES

if TYPE_CHECKING:
    from .records import UsageRecord

DIMENSIONS = (*NAMES, "provider", "model")
PERIODS = ("hour", "day", "week", "month")
OF_MODELS = frozenset(("provider", "model"))  # a tool call has neither
KNOWN = (*DIMENSIONS, *PERIODS, "tool")


def check(dimensions: Sequence[str], tags: Collection[str]) -> None:
    """`ValueError` for no dimension at all, and for a name that is no tag so far but nearly that of a dimension."""
    from difflib import get_close_matches

    if not dimensions:
        raise ValueError(f"name at least one dimension: {', '.join(KNOWN)}, or a tag's name")
    for name in dimensions:
        if name not in KNOWN and name not in tags and (near := get_close_matches(name, KNOWN, 1, 0.75)):
            raise ValueError(f"no dimension and no tag {name!r} so far; did you mean {near[0]!r}?")


def period_of(hour: int | str, period: str) -> str:
    """The name of the period that an hour since the proleptic epoch, UTC, belongs to."""
    if isinstance(hour, str):
        return hour  # what came when there was no more room
    day, of_day = divmod(hour, 24)
    return period_name(date.fromordinal(day), of_day, period)


def period_name(day: date, hour: int, period: str) -> str:
    """2026-11-21T22, 2026-11-21, 2026-W47 (ISO), 2026-11: all UTC."""
    if period == "hour":
        return f"{day.isoformat()}T{hour:02d}"
    if period == "week":
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02d}"
    return day.isoformat() if period == "day" else day.isoformat()[:7]


def values_of(record: UsageRecord, dimensions: Sequence[str]) -> tuple[str, ...]:
    """The record's value of each dimension but "tool"."""
    at = record.started_at
    return tuple(
        period_name(at.date(), at.hour, name)
        if name in PERIODS
        else getattr(record, name, "")  # a tool call has no model
        if name in DIMENSIONS
        else record.tags.get(name, "")
        for name in dimensions
    )


def keys_of(record: UsageRecord, dimensions: Sequence[str]) -> list[object]:
    """The groups that a record belongs to: one, or one for each tool that it asked for."""
    where = dimensions.index("tool") if "tool" in dimensions else None
    values = values_of(record, [name for name in dimensions if name != "tool"])
    keys: list[tuple[str, ...]] = [values]
    if where is not None:
        tools = tuple(dict.fromkeys(record.tools)) or ("",)
        keys = [(*values[:where], tool, *values[where:]) for tool in tools]
    return [key[0] if len(dimensions) == 1 else key for key in keys]
