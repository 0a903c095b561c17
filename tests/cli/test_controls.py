"""`agent-meter pause | resume | stop | controls`: what a running program does at its next call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Invoke, Run

PROGRAM = """
import sys
from agent_meter import BudgetExceeded, Meter, TokenUsage
with Meter(store=sys.argv[1]) as meter, meter.run("nightly", agent="researcher", task="t1") as run:
    for line in iter(sys.stdin.readline, ""):
        try:
            with run.llm("gpt-4o") as call:
                call.finish(TokenUsage(1, 1))
            meter.flush()
            print("ok", run.id, flush=True)
        except BudgetExceeded as error:
            print("refused", error, flush=True)
"""


@pytest.fixture
def program(folder: Path):
    """A program that makes a call whenever it is asked, in a process of its own."""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "meter.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )

    def ask() -> str:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("go\n")
        running.stdin.flush()
        return running.stdout.readline().strip()

    yield ask
    running.communicate(timeout=30)


def test_a_running_program_is_paused_and_goes_on(program, run: Run) -> None:
    assert program().startswith("ok")

    paused = run("pause", "researcher", "--store", "meter.db", "--reason", "lunch")
    assert (paused.returncode, paused.stdout.startswith("agent researcher: paused ")) == (0, True)
    assert "lunch" in program()

    assert run("resume", "researcher", "--store", "meter.db").stdout == "agent researcher: goes on\n"
    assert program().startswith("ok")


def test_a_running_run_is_stopped_by_the_beginning_of_its_id(program, invoke: Invoke) -> None:
    _, id = program().split()

    stopped = invoke("stop", id[:13], "--json")

    assert [(one["kind"], one["name"]) for one in json.loads(stopped.stdout)] == [("run", id)]
    assert program().startswith(f"refused controls: run {id}: stopped ")


def test_a_task_is_stopped_for_one_agent_only(program, invoke: Invoke) -> None:
    program()
    invoke("stop", "--task", "t1", "--agent", "writer")
    assert program().startswith("ok")

    invoke("stop", "--task", "t1")

    assert program().startswith("refused controls: task t1: stopped ")


def test_controls_lists_what_is_held(ledger: Path, invoke: Invoke) -> None:
    assert invoke("controls").stdout == "Nothing is paused or stopped.\n"
    invoke("pause", "--all", "--reason", "bill")

    (held,) = json.loads(invoke("controls", "--json").stdout)

    assert (held["name"], held["by"], held["reason"]) == ("*", "agent-meter", "bill")
    assert invoke("resume").stdout == "every agent: goes on\n"


def test_resume_of_nobody_is_exit_code_1_and_says_what_is_held(ledger: Path, invoke: Invoke) -> None:
    invoke("pause", "--all")

    result = invoke("resume", "resercher")

    assert result.exit_code == 1
    assert "Nothing called 'resercher' is paused" in result.output
    assert "every agent: paused" in result.output


@pytest.mark.parametrize(
    "arguments",
    [("pause",), ("pause", "a", "--all"), ("stop",), ("stop", "r", "--task", "t"), ("stop", "r", "--agent", "a")],
)
def test_half_a_command_is_a_usage_error(arguments: tuple[str, ...], ledger: Path, invoke: Invoke) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_store_that_is_not_there_is_a_usage_error(folder: Path, invoke: Invoke) -> None:
    result = invoke("pause", "researcher", "--store", "no.db")

    assert result.exit_code == 2
    assert not (folder / "no.db-state.json").exists()
