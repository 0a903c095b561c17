"""Pausing and stopping: seen at the next call, from another process too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent_meter import BudgetExceeded, Meter, TokenUsage
from agent_meter.controls import Controls
from agent_meter.errors import StoreError
from agent_meter.shelf import FileShelf


@pytest.fixture
def shelf(tmp_path):
    return FileShelf(tmp_path / "state.json")


def call(meter, **whose):
    with meter.scope(**whose), meter.llm("gpt-4o") as one:
        one.finish(TokenUsage(1, 1))


def test_a_run_is_stopped_with_the_runs_inside_it():
    controls = Controls()
    meter = Meter([controls])
    with meter.run("outer") as outer:
        call(meter)
        controls.stop(outer.id, reason="too long")
        with pytest.raises(BudgetExceeded, match=r"run .*: stopped .*: too long"):
            call(meter)
        with meter.run("inner"), pytest.raises(BudgetExceeded):
            call(meter)
    with meter.run("another"):
        call(meter)


def test_a_stop_from_another_process_is_seen_at_the_next_call(shelf):
    meter = Meter([Controls(shelf)])
    with meter.run("long") as run:
        call(meter)
        source = (
            "import sys; from agent_meter.controls import Controls; from agent_meter.shelf import FileShelf\n"
            "Controls(FileShelf(sys.argv[1])).stop(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", source, str(shelf.path), run.id], check=True, timeout=30)
        with pytest.raises(BudgetExceeded, match="stopped"):
            call(meter)
    assert [record.status for record in meter.history(include_denied=True)] == ["ok", "denied"]


def test_resume_frees_by_name_and_says_what():
    controls = Controls()
    meter = Meter([controls])
    controls.pause("a"), controls.pause("b")
    assert [freed.name for freed in controls.resume("a")] == ["a"]
    call(meter, agent="a")
    with pytest.raises(BudgetExceeded, match="agent b: paused"):
        call(meter, agent="b")
    assert controls.resume("nobody") == []


def test_a_shelf_that_cannot_be_read_names_its_file_and_harms_no_call(shelf):
    shelf.path.write_text("{broken")
    with pytest.raises(StoreError, match=r"state\.json cannot be read"):
        shelf.read()
    meter = Meter([Controls(shelf)])
    call(meter)
    assert meter.health()["failures"] == {"Controls": {"meter_admit_call": 1}}


def test_changes_of_many_processes_are_all_kept(shelf):
    source = (
        "import sys; from agent_meter.shelf import FileShelf; s = FileShelf(sys.argv[1])\n"
        "for n in range(25): s.change(lambda d: d.update(n=d.get('n', 0) + 1))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", source, str(shelf.path)]) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert shelf.read() == {"n": 100}


@pytest.mark.parametrize("told", [{}, {"run": "r", "task": "t"}])
def test_stop_takes_one_of_run_and_task(told):
    with pytest.raises(ValueError, match="one run or one task"):
        Controls().stop(**told)


# ------------------------------------------------------------------------------------------------ meter.controls


def test_a_meter_without_a_store_pays_for_no_guard_until_something_is_paused():
    meter = Meter()
    assert len(meter.controls) == 0
    assert not meter.plugins.guarded

    meter.controls.pause("researcher")

    with pytest.raises(BudgetExceeded, match="agent researcher: paused"):
        call(meter, agent="researcher")
    meter.controls.resume("researcher")
    call(meter, agent="researcher")


def test_a_meter_with_a_file_keeps_its_controls_beside_it_and_over_a_restart(tmp_path):
    with Meter(store=tmp_path / "meter.db") as meter:
        meter.controls.pause("researcher", reason="too dear")
    assert (tmp_path / "meter.db-state.json").is_file()

    with Meter(store=tmp_path / "meter.db") as again:
        with pytest.raises(BudgetExceeded, match="too dear"):
            call(again, agent="researcher")
        call(again, agent="writer")


def test_what_was_paused_stays_paused_while_the_shelf_cannot_be_read(shelf):
    meter = Meter([Controls(shelf)])
    Controls(FileShelf(shelf.path)).pause("researcher")
    with pytest.raises(BudgetExceeded):
        call(meter, agent="researcher")
    shelf.path.write_text("{broken")

    with pytest.raises(BudgetExceeded):
        call(meter, agent="researcher")
    call(meter, agent="writer")
