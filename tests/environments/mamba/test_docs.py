"""The page and the example about mamba-agents run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.pages import read, run_examples

ROOT = Path(__file__).parents[3]
PAGE = "how-to/mamba-agents.md"


def test_the_page_runs_and_prints_what_it_shows() -> None:
    names = run_examples(PAGE)
    names["served"].stop()


def test_it_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    assert re.findall(r"^## (.*)$", read(PAGE), re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]


def test_the_example_counts_as_its_provider_does() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "mamba_workflow.py"], capture_output=True, text=True, timeout=60
    )

    assert run.returncode == 0, run.stderr
    assert "4 requests, 4,155 tokens by the provider's count" in run.stdout
    assert "Total Tokens: 4,155" in run.stdout
    assert "step 2: 3 requests, 3,735 tokens" in run.stdout
