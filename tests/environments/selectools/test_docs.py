"""The page and the example about selectools run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pages import read, run_examples

ROOT = Path(__file__).parents[3]
PAGE = "how-to/selectools.md"


def test_the_page_runs_and_prints_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")  # the page sets it; put back after the test
    names = run_examples(PAGE)
    names["meter"].shutdown()
    names["served"].stop()


def test_it_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    assert re.findall(r"^## (.*)$", read(PAGE), re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]


def test_the_example_counts_as_its_provider_does() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "selectools_agent.py"], capture_output=True, text=True, timeout=60
    )

    assert run.returncode == 0, run.stderr
    assert "2 requests, 2,330 tokens by the provider's count" in run.stdout
    assert "refused before it was sent: budget closed" in run.stdout
    assert "Cached: 2 calls of 4 replayed" in run.stdout
