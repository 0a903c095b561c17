"""Text as a cell of a CSV file that any spreadsheet can open without harm."""

from __future__ import annotations

from .patterns import printable

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def cell(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula, or for two cells.

    What would begin a formula has an apostrophe put before it; line breaks and other invisible signs are spelt out.
    """
    text = printable(text)
    if text.lstrip().startswith(_FORMULA):
        text = f"'{text}"
    # Some read a semicolon as the separator, and what follows it as a cell of its own.
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',;"') else text
