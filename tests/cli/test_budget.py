"""`agent-meter budget`: what a person sets, and what the programs of a store set."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_meter import Budget, BudgetExceeded, Meter


def use(meter: Meter, tokens: int = 1000, agent: str = "researcher") -> None:
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=tokens, agent=agent)


def test_a_budget_is_set_listed_looked_at_and_taken_away(invoke: Any, folder: Path) -> None:
    told = invoke("budget", "set", "research", "--usd", "5", "--agent", "researcher", "--tag", "team=search")
    assert (told.exit_code, told.output) == (0, "research: $5.00 per day, agent=researcher, team=search\n")
    assert invoke("budget", "set", "research", "--usd", "7.5").output.startswith("research: $7.50 per day, agent=")

    (listed,) = json.loads(invoke("budget", "list", "--json").stdout)
    assert (listed["name"], listed["usd"], listed["set"]) == ("research", "7.5", "by hand")
    (status,) = json.loads(invoke("budget", "status", "--json").stdout)
    assert (status["used"], status["remaining"], status["percent"]) == ("0", "7.5", 0)

    assert invoke("budget", "rm", "research").output.startswith("removed research: $7.50")
    nothing = invoke("budget", "list")
    assert (nothing.exit_code, "no budgets here" in nothing.output) == (1, True)


def test_a_store_that_begins_with_a_budget_is_a_whole_one(invoke: Any, folder: Path) -> None:
    invoke("budget", "set", "research", "--usd", "5")

    report = invoke("budget", "report", "--daily")
    assert (report.exit_code, "open it for writing" in report.output) == (0, False), report.output
    assert invoke("stop", "--task", "T1").exit_code == 0


def test_a_program_obeys_what_is_set_and_its_own_budgets_are_listed(invoke: Any, folder: Path) -> None:
    with Meter(store="meter.db", budgets=[Budget("code", requests=100, per="total")]) as meter:
        use(meter)
        assert invoke("budget", "set", "tight", "--tokens", "1500", "--per", "total").exit_code == 0
        meter.budgets.look_up()
        use(meter)
        meter.flush()

        assert [line.rpartition("[")[2] for line in invoke("budget", "list").output.splitlines()] == [
            "by a program]",
            "by hand]",
        ]
        use(meter)
        meter.flush()
        with (
            pytest.raises(BudgetExceeded, match="budget tight: 2,000 tokens of 1,500 tokens used"),
            meter.llm("gpt-4o"),
        ):
            pytest.fail("it was sent")

        shown = invoke("budget", "status").output
        assert "tight" in shown
        assert "133" in shown
        assert invoke("budget", "reset", "tight").output == "reset tight\n"
        with meter.llm("gpt-4o", input_tokens=10, max_output_tokens=10):
            pass


def test_a_file_sets_several(invoke: Any, folder: Path) -> None:
    Path("budgets.yaml").write_text("budgets:\n  - {name: a, usd: 1}\n  - {name: b, tokens: 5, per: rolling 1h}\n")

    assert invoke("budget", "set", "--file", "budgets.yaml").output == ("a: $1.00 per day\nb: 5 tokens in rolling 1h\n")
    Path("budgets.yaml").write_text("budgets:\n  - {name: a, usd: 1, agnet: x}\n")
    wrong = invoke("budget", "set", "--file", "budgets.yaml")
    assert (wrong.exit_code, "budgets.yaml:2: there is no 'agnet'" in wrong.output) == (1, True)


def test_a_counter_for_each_agent_is_shown_by_itself(invoke: Any, folder: Path) -> None:
    with Meter(store="meter.db", budgets=[Budget("each", usd=1, agent="*", per="total")]) as meter:
        use(meter, 4000, "ann")
        use(meter, 8000, "bob")
        meter.flush()

    found = {one["scope"]: one["used"] for one in json.loads(invoke("budget", "status", "each", "--json").stdout)}
    assert found == {"agent=ann": str(Decimal("0.01")), "agent=bob": str(Decimal("0.02"))}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status"], 2, "no store 'meter.db'"),
        (["set", "x"], 2, "it has no limit"),
        (["set", "x", "--usd", "lots"], 2, "usd is an amount of US dollars"),
        (["set"], 2, "name a budget and its limits, or a --file"),
        (["set", "x", "--usd", "1", "--tag", "team"], 2, "'team' is no tag"),
        (["set", "x", "--usd", "1", "--alert-at", "half"], 2, "'half' is no number"),
        (["list", "--store", "mongodb://x"], 2, "budget_engine is a file"),
    ],
)
def test_what_cannot_work_is_said(invoke: Any, folder: Path, arguments: list[str], code: int, says: str) -> None:
    told = invoke("budget", *arguments)

    assert told.exit_code == code
    assert says in " ".join(told.output.replace("│", " ").split())


def test_a_name_that_is_not_there_is_said_with_the_nearest(invoke: Any, folder: Path) -> None:
    invoke("budget", "set", "research", "--usd", "5")

    for command in ("rm", "reset", "status"):
        told = invoke("budget", command, "reserch")
        assert told.exit_code == 1
        assert "there is no budget 'reserch'; did you mean 'research'?" in told.output
