"""The page about the ledger's commands tells the truth, and names every option."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.transcripts import answer_of, exchanges

from .conftest import Invoke
from .test_docs import DOCS, blocks

PAGE = DOCS / "reference/ledger-commands.md"
COMMANDS = (
    "report", "daily", "weekly", "monthly", "sessions", "top-spenders", "tools", "history", "tail", "runs", "explain",
    "reprice", "reconcile", "doctor", "statusline", "export", "import", "prune", "verify",
)  # fmt: skip


def test_every_command_of_the_page_answers_as_it_says(invoke: Invoke, ledger: Path) -> None:
    ran = 0
    for typed, expected in exchanges("\n".join(blocks(PAGE, "console"))):
        ran += 1
        result = invoke(*typed)

        assert answer_of(result.output, 0, ledger.parent) == expected, typed
    assert ran >= 10


def test_every_command_and_every_option_is_on_the_page(invoke: Invoke) -> None:
    page = PAGE.read_text(encoding="utf-8")

    for command in COMMANDS:
        options = re.findall(r"--[a-z][a-z0-9-]*", invoke(command, "--help").output)

        assert f"`{command}`" in page or command in page
        assert [option for option in options if option != "--help" and option not in page] == [], command


def test_every_command_is_shown_by_help(invoke: Invoke) -> None:
    shown = set(re.findall(r"^  ([\w-]+) ", invoke("--help").output, re.MULTILINE))

    assert set(COMMANDS) <= shown


def test_help_of_every_command_fits_80_columns(invoke: Invoke) -> None:
    for command in COMMANDS:
        assert max(map(len, invoke(command, "--help").output.splitlines())) <= 80, command
