"""`agent-meter top`: who spends, how fast, what is left, the last calls."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from agent_meter import Budget, Meter

from .conftest import Invoke, installed


def test_a_look_shows_who_spends_how_fast_the_budgets_and_the_last_calls(invoke: Invoke, folder: Path) -> None:
    with Meter(store="meter.db", budgets=[Budget("day", usd=10)]) as meter:
        meter.record_usage(model="gpt-4o", input_tokens=1_000_000, agent="researcher", user="ada")
        meter.record_tool_call("search", True, 0.1, {}, agent="researcher")

    shown = invoke("top", "--once").output

    assert "last minute: 1 call · 1.0M tokens · $2.50" in shown
    assert all(word in shown for word in ("researcher", "search()", "day", "$10.00"))
    assert max(map(len, shown.splitlines())) <= 80


def test_a_look_is_a_document_too(invoke: Invoke, ledger: Path) -> None:
    told = json.loads(invoke("top", "--since", "all", "--by", "user", "-n", "2", "--json").stdout)

    assert [row["user"] for row in told["report"]["rows"]] == ["ada", "bob"]
    assert told["last_minute"]["requests"] == 0
    assert len(told["last"]) == 1


def test_top_without_a_ledger_says_so(invoke: Invoke, folder: Path) -> None:
    result = invoke("top")

    assert result.exit_code == 2
    assert "no store 'meter.db'" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_top_goes_on_until_it_is_interrupted(folder: Path, ledger: Path) -> None:
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(installed(), ["agent-meter", "top", "--since", "all", "--interval", "0.1"])
    shown, until = b"", time.monotonic() + 20
    while shown.count(b"last minute") < 3 and time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65_536)
    os.kill(child, signal.SIGINT)
    while select.select([terminal], [], [], 5)[0]:
        try:
            os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            break
    _, status = os.waitpid(child, 0)
    os.close(terminal)

    assert shown.count(b"last minute") >= 3
    assert os.waitstatus_to_exitcode(status) == 0
