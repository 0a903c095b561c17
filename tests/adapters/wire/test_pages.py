"""The pages about the wire, and the example, do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.pages import run_examples

from agent_meter.adapters.wire import endpoints

EXAMPLE = Path(__file__).parents[3] / "examples" / "wrapped_client.py"


def test_the_how_to_prints_what_it_says() -> None:
    try:
        run_examples("how-to/wire.md")
    finally:
        del endpoints._PATHS[0]
        endpoints.endpoint_of.cache_clear()


def test_the_example_meters_a_wrapped_client() -> None:
    run = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=100)

    assert run.returncode == 0, run.stderr
    assert "900 in  12 out  $0.00137  200\n" in run.stdout
    assert "960 in  30 out  $0.0027  429 → 200\n" in run.stdout
    assert "500 in  25 out  $0.0015  200\n" in run.stdout
