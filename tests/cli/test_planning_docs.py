"""The pages about planning and control tell the truth, and name every option."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.transcripts import answer_of, exchanges
from tests.pages import run_examples

from .conftest import Invoke
from .test_docs import DOCS, blocks

REFERENCE = DOCS / "reference/planning-commands.md"
ASK = DOCS / "how-to/ask-your-agent.md"
PLAN = DOCS / "how-to/plan-a-budget.md"
COMMANDS = ("budget plan", "budget forecast", "budget report", "pause", "resume", "stop", "controls")
PHRASES = (
    "Show token usage", "What's the budget status?", "Set budget for agent X", "What's costing the most?",
    "Optimize this request", "Run budget report", "Alert on budget thresholds", "Switch to cheaper model",
)  # fmt: skip


def test_every_plan_of_the_page_is_what_the_command_prints(invoke: Invoke, folder: Path) -> None:
    ran = 0
    for typed, expected in exchanges("\n".join(blocks(PLAN, "console"))):
        ran += 1

        assert answer_of(invoke(*typed).output, 0, folder) == expected, typed
    assert ran == 3


def test_the_example_of_the_page_runs() -> None:
    run_examples("how-to/plan-a-budget.md")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_on_the_reference_page(command: str, invoke: Invoke) -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    help = invoke(*command.split(), "--help").output
    options = re.findall(r"--[a-z][a-z0-9-]*", help)

    assert [option for option in options if option != "--help" and option not in page] == []
    assert max(map(len, help.splitlines())) <= 80


def test_every_phrase_of_the_seed_has_a_command_that_runs(invoke: Invoke, ledger: Path) -> None:
    page = ASK.read_text(encoding="utf-8")
    assert [phrase for phrase in PHRASES if f'"{phrase}"' not in page] == []
    (ledger.parent / "prompt.txt").write_text("hello", encoding="utf-8")
    (ledger.parent / "budget-alerts.yaml").write_text(
        "limits: {daily_limit: 5}\nrules:\n  - name: x\n    condition: daily_tokens > daily_limit\n", encoding="utf-8"
    )
    commands = [shlex.split(found) for found in re.findall(r"`agent-meter ([^`]*)`", page.partition("## Verify")[0])]

    for typed in commands:
        if "ID" in typed:
            continue
        result = invoke(*typed)

        assert result.exit_code in (0, 1), (typed, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), typed
    assert len(commands) >= 15


@pytest.mark.parametrize("page", [PLAN, ASK], ids=lambda page: page.stem)
def test_the_how_to_pages_end_in_verify_and_troubleshoot(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[-2:] == ["Verify", "Troubleshoot"]
