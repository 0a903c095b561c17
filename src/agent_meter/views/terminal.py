"""The terminal: how wide it is, how amounts are written, tables that fit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..pricing.cards import plain
from ..pricing.units import CLASSES

_UNBOUNDED = 10_000  # a pipe has no width: there nothing is folded
_LABEL = 32  # columns of a label, at most
_WORDS = {unit: word for word, unit in CLASSES.items()}


def console() -> Console:
    """Standard output, as wide as the terminal or `COLUMNS` say; colours only on a terminal, unless `NO_COLOR`."""
    out = Console(markup=False, emoji=False, highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _UNBOUNDED
    return out


def write(parts: Iterable[RenderableType], out: Console | None = None) -> None:
    """Print, without the blanks that fill a table's last column."""
    out = out or console()
    with out.capture() as captured:
        for part in parts:
            out.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    text = captured.get()
    if not out.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    out.file.write(text)
    out.file.flush()


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table with a rule under its head and no other frame; long words are folded, never cut off."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold", border_style="dim")
    numbers = set(right)
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return made


def unfolded(made: Table, *names: str) -> None:
    """Columns that stay on one line, so that only names are folded where there is no room."""
    for column in made.columns:
        column.no_wrap = column.header in names


def pairs(rows: Iterable[tuple[RenderableType, RenderableType]]) -> RenderableType:
    """Labels and what they say, indented by two."""
    made = Table.grid(padding=(0, 2))
    made.add_column(max_width=_LABEL, overflow="fold")
    made.add_column(overflow="fold")
    for label, value in rows:
        made.add_row(label, value)
    return indented(made)


def indented(part: RenderableType, by: int = 2) -> RenderableType:
    return Padding(part, (0, 0, 0, by), expand=False)


def line(text: str, style: str = "") -> Text:
    """Text that is one line however long it is, so that it can be copied."""
    return Text(text, style=style, no_wrap=True)


def title(text: str) -> Text:
    return Text(text, style="bold")


def rate(amount: Decimal | None) -> str:
    """US$ as a price list writes it: exact, two decimals at least; a dash where there is none."""
    if amount is None:
        return "–"
    whole, _, cents = plain(amount).partition(".")
    return f"{int(whole):,}.{cents:0<2}"


def money(amount: Decimal | None) -> str:
    """`$1,375.00`, exact."""
    return "–" if amount is None else f"${rate(amount)}"


def short(number: int) -> str:
    """`128k`, `1.05M`: a size, where room is scarce."""
    return f"{number / 1e6:.3g}M" if number >= 1_000_000 else f"{number / 1e3:.3g}k" if number >= 1000 else str(number)


def per(pieces: int) -> str:
    return "1M" if pieces == 1_000_000 else f"{pieces:,}"


def word(unit: str) -> str:
    """A unit by the word of a price file, where it has one: `input` for `input_tokens`."""
    return _WORDS.get(unit, unit)
