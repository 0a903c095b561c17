"""The page on metering LlamaIndex tells the truth, and the example meters what the provider served."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import pages

ROOT = Path(__file__).parents[3]
HOW_TO = "how-to/llama-index.md"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_example_prints_what_the_page_says() -> None:
    names = pages.run_examples(HOW_TO)

    assert not names["handler"].registered


def test_the_how_to_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    assert re.findall(r"^## (.*)$", pages.read(HOW_TO), re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]


def test_the_example_meters_what_the_provider_served_and_stops_what_it_must() -> None:
    program = ROOT / "examples" / "quickstart_llama_index.py"
    run = subprocess.run([sys.executable, "-W", "ignore", program], capture_output=True, text=True, timeout=100)

    assert run.returncode == 0, run.stderr
    served, metered = re.findall(r"served ([\d,]+) tokens; the meter says ([\d,]+)\.", run.stdout)[0]
    assert served == metered == "2,000"
    assert "Denied before it was sent: one question was paid for." in run.stdout
    assert "researcher: 2,000 tokens" in run.stdout
