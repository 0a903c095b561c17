"""Usage that somebody wrote down by hand: what is no count is said to be missing, and harms no sum."""

from __future__ import annotations

import operator
from typing import Any

from .records import TokenUsage

CLASSES = tuple(name for name in TokenUsage.__struct_fields__ if name.endswith("_tokens"))
_counts = operator.attrgetter(*CLASSES)


def counted(usage: TokenUsage) -> TokenUsage:
    """The same usage where every class is an `int`; else whole numbers of any type count, and the rest is missing."""
    values = _counts(usage)
    if all(type(value) is int for value in values):
        return usage
    found = {name: _whole(value) for name, value in zip(CLASSES, values, strict=True)}
    missing = [name for name, value in found.items() if value is None and name not in usage.missing]
    return TokenUsage(
        **{name: value or 0 for name, value in found.items()},
        units=usage.units,
        missing=(*usage.missing, *missing),
        context=usage.context,
        reported_pico=usage.reported_pico,
    )


def _whole(value: Any) -> int | None:
    try:
        return int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        return None
