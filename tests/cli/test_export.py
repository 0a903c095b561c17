"""`agent-meter export` and `import`, on a real SQLite ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_meter.store import open_store

from .conftest import Invoke, Run


@pytest.mark.parametrize(
    "name", ["a.csv", "a.json", "a.jsonl", "a.parquet", "a.cloudevents.jsonl", "a.prom"]
)  # fmt: skip
def test_every_format_is_written_by_the_name_of_the_file(name: str, invoke: Invoke, ledger: Path) -> None:
    result = invoke("export", name)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{name}: ")
    assert (ledger.parent / name).stat().st_size > 500


def test_what_is_exported_can_be_imported_into_an_empty_ledger(invoke: Invoke, ledger: Path) -> None:
    invoke("export", "all.jsonl")
    first = invoke("import", "all.jsonl", "--store", "other.db", "--json")
    second = invoke("import", "all.jsonl", "--store", "other.db", "--json")
    ours, theirs = open_store(ledger, readonly=True), open_store("other.db", readonly=True)

    assert json.loads(first.stdout)["stored"] == json.loads(first.stdout)["records"] > 15
    assert (json.loads(second.stdout)["stored"], first.exit_code, second.exit_code) == (0, 0, 0)
    assert theirs.usage().to_dict() == ours.usage().to_dict()
    ours.close()
    theirs.close()


def test_a_range_a_kind_and_an_agent_can_be_asked_for(invoke: Invoke, ledger: Path) -> None:
    result = invoke(
        "export", "-", "--format", "jsonl", "--since", "2026-03-31", "--until", "2026-04-01", "--kind", "llm",
        "--agent", "researcher",
    )  # fmt: skip
    found = [json.loads(line) for line in result.stdout.splitlines()]

    assert [record["model"] for record in found] == ["gpt-4o", "claude-sonnet-4-5"]
    assert {record["started_at"][:10] for record in found} == {"2026-03-31"}


def test_focus_says_what_it_has_no_place_for_and_exits_with_3(invoke: Invoke, ledger: Path) -> None:
    result = invoke("export", "may.focus.csv", "--account", "team-red", "--by", "agent", "--by", "user")

    assert result.exit_code == 3
    assert result.stderr == "1 call without a full price: not charges, see may.unpriced.csv\n"
    assert "team-red" in (ledger.parent / "may.focus.csv").read_text()


def test_standard_output_of_the_installed_command_is_the_file_alone(run: Run, ledger: Path) -> None:
    result = run("export", "-", "--format", "csv")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("id,kind,started_at,")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "a.xyz"), "name one of csv, json"),
        (("export", "a.csv", "--account", "1"), "csv has no option 'account'"),
        (("export", "a.csv", "--kind", "llms"), "'llms' is none of llm, embedding"),
        (("export", "a.csv", "--store", "nowhere.db"), "no store 'nowhere.db'"),
        (("export", "a.csv", "--since", "2026-04-01", "--until", "2026-03-01"), "is not after"),
        (("export", "a.focus.csv", "--by", "team"), "not by 'team'"),
        (("import", "nothing.jsonl"), "no file 'nothing.jsonl'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    arguments: tuple[str, ...], said: str, invoke: Invoke, ledger: Path
) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")


def test_entries_that_cannot_be_read_are_told_and_the_exit_code_is_3(invoke: Invoke, ledger: Path) -> None:
    invoke("export", "a.jsonl")
    path = ledger.parent / "a.jsonl"
    path.write_text(path.read_text() + "{broken\n")

    result = invoke("import", "a.jsonl", "--store", "other.db")

    assert result.exit_code == 3
    assert "1 entry could not be read" in result.stderr
    assert "0 known already" in result.stdout


def test_a_file_in_no_known_form_is_refused(invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "a.json").write_text('{"hello": 1}')

    result = invoke("import", "a.json")

    assert result.exit_code == 1
    assert "neither records of agent_meter" in result.stderr
