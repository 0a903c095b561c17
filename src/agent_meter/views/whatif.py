"""What-if sums on a terminal: the same calls, side by side for several models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import RenderableType
from rich.text import Text

from ..pricing.units import WIDE
from ..pricing.whatif import WhatIf
from ..records import TOKEN_CLASSES, CostStatus, TokenUsage, dollars
from .terminal import money, table

_PARTS = TOKEN_CLASSES[2:]
_SIGNS = {CostStatus.PARTIAL: "≥ ", CostStatus.ESTIMATED: "≈ "}


def whatif(sums: Sequence[WhatIf]) -> Iterator[RenderableType]:
    """The usage in words, one row a model, and below what a figure leaves out or assumes."""
    tasks, usage = sums[0].tasks, sums[0].usage
    yield Text(f"1 call of {spoken(usage)}" if tasks == 1 else f"{tasks:,} calls, each of {spoken(usage)}")
    yield ""
    fees = any(fees_of(each) for each in sums)
    numbers = ["input", "output", *(["fees"] if fees else []), *(["a call"] if tasks != 1 else []), "total"]
    made = table("model", *numbers, right=numbers)
    for each in sums:
        cost = each.each
        parts = [dollars(cost.input_pico), dollars(cost.output_pico), *([fees_of(each)] if fees else [])]
        cells = [money(WIDE.multiply(part, Decimal(tasks))) for part in parts]
        if cost.amount is None:
            cells = ["–"] * len(parts)
        if tasks != 1:
            cells.append(money(cost.amount))
        total = money(each.total) if each.total is not None else "unpriced"
        made.add_row(_name(each), *cells, _SIGNS.get(cost.status, "") + total)
    yield made
    notes = [Text(f"{_name(each)}: {note}", style="dim") for each in sums for note in notes_of(each)]
    if notes:
        yield ""
        yield from notes


def spoken(usage: TokenUsage) -> str:
    """`3,500 input (2,000 cache_read) and 500 output tokens, 3 web_searches`."""
    parts = {name: getattr(usage, name) for name in _PARTS if getattr(usage, name)}

    def of(names: tuple[str, ...]) -> str:
        said = ", ".join(f"{n:,} {name.removesuffix('_tokens')}" for name, n in parts.items() if name in names)
        return f" ({said})" if said else ""

    out = tuple(name for name in _PARTS if name.startswith(("output", "reasoning")))
    into = tuple(name for name in _PARTS if name not in out)
    units = "".join(f", {count:,} {name}" for name, count in usage.units.items())
    asked = "".join(f", {key}={value}" for key, value in usage.context.items())
    return (
        f"{usage.input_tokens:,} input{of(into)} and {usage.output_tokens:,} output tokens{of(out)}{units}{asked}"
    )  # fmt: skip


def notes_of(each: WhatIf) -> Iterator[str]:
    """What a figure leaves out, assumes, or why it is 0 or not there."""
    cost = each.each
    if cost.missing:
        yield f"a lower bound, there is no rate for {', '.join(cost.missing)}"
    yield from cost.assumptions
    if cost.reason:
        yield cost.reason


def fees_of(each: WhatIf) -> Decimal:
    """US$ of one call for what is not a token."""
    cost = each.each
    return dollars((cost.list_pico or 0) - cost.input_pico - cost.output_pico)


def _name(each: WhatIf) -> str:
    return f"{each.provider}/{each.model}" if each.provider else each.model
