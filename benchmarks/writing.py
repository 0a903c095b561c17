"""Tables that are printed and written to a page of the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Page:
    """Lines of Markdown, printed as they come and written at the end."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def say(self, text: str = "") -> None:
        print(text)
        self._lines.append(text)

    def title(self, text: str, depth: int = 2) -> None:
        self.say(f"{'#' * depth} {text}")
        self.say()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], numbers: int) -> None:
        """The last `numbers` columns are figures, set to the right."""
        words = len(header) - numbers
        self._row(header)
        self._row(["---"] * words + ["---:"] * numbers)
        for row in rows:
            self._row(row)
        self.say()

    def _row(self, cells: Sequence[object]) -> None:
        self.say(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")

    def write(self, path: Path) -> None:
        path.write_text("\n".join(self._lines).rstrip() + "\n", encoding="utf-8")
