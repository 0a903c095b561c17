"""The documentation's examples, run: each ```python block of a page, in one namespace, from top to bottom."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def run_examples(page: str) -> dict[str, Any]:
    """Run a page; where a ```text block follows a ```python block, it is what that one prints."""
    names: dict[str, Any] = {"__name__": "example"}
    printed = ""
    for language, body in BLOCK.findall(read(page)):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(body, page, "exec"), names)
            printed = out.getvalue()
        else:
            assert printed.strip("\n") == body.strip("\n")
    return names
