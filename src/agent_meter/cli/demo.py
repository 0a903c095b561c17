"""`agent-meter demo`: a metered LangChain agent, where the example and what it needs are at hand."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from .fence import fail

# Of a checkout or an unpacked source distribution, installed with -e; a wheel has no examples.
EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart_langchain.py"
_NEEDS = ("langchain", "langchain_anthropic", "langchain_openai")


def demo() -> None:
    """Run the example: a metered LangChain agent, without a key and without a network."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        fail(f"The demo needs {', '.join(missing)}: pip install 'agent-meter[demo]'")
    if not EXAMPLE.is_file():
        fail(
            f"The demo is {EXAMPLE.parent.name}/{EXAMPLE.name} in the source distribution, not in this installation:",
            "  pip download --no-deps --no-binary agent-meter agent-meter",
            "  tar xzf agent_meter-*.tar.gz",
            f"  {Path(sys.executable).name} agent_meter-*/{EXAMPLE.parent.name}/{EXAMPLE.name}",
        )
    raise typer.Exit(subprocess.call([sys.executable, str(EXAMPLE)]))  # noqa: S603 - our own file
