"""The command `agent-meter`. It needs the `cli` extra; without it, one sentence says so."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 nothing found or refused, 2 a usage error or the extra is missing."""
    if _missing():
        print("agent-meter needs its command line extra: pip install 'agent-meter[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # An old code page lacks ≥ and ×; a question mark is better than no table.
            stream.reconfigure(errors="replace")
    app(arguments, prog_name="agent-meter")


def _missing() -> bool:
    try:
        return any(find_spec(name) is None for name in ("rich", "typer"))
    except ImportError:
        return True
