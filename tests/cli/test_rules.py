"""`agent-meter rules`: a file is checked and tried out before it is on duty."""

from __future__ import annotations

import json

import pytest
from tests.rules.test_loading import SEED

from agent_meter import Budget, Meter
from agent_meter.rules import Rules


@pytest.fixture
def rules_file(folder):
    (folder / "budget-alerts.yaml").write_text(SEED, encoding="utf-8")
    return "budget-alerts.yaml"


def test_check_says_what_each_rule_does_and_needs(invoke, rules_file):
    told = invoke("rules", "check", rules_file)
    assert told.exit_code == 0
    assert "runaway_detected: P1, kill_agent_task, for each task of each agent" in told.output
    assert "needs a budget or a limit: task_limit" in told.output
    assert told.output.endswith("budget-alerts.yaml: 4 rules, all of them right\n")


def test_check_names_the_line_of_a_mistake(invoke, folder):
    (folder / "wrong.yaml").write_text("rules:\n  - name: x\n    condition: dayly_tokens > 1\n", encoding="utf-8")
    told = invoke("rules", "check", "wrong.yaml")
    assert told.exit_code == 1
    assert "wrong.yaml:3: rule x: there is no variable 'dayly_tokens'; did you mean daily_tokens" in told.output


def test_check_as_json(invoke, rules_file):
    documents = json.loads(invoke("rules", "check", rules_file, "--json").stdout)
    assert [document["subject"] for document in documents] == ["meter", "agent", "task", "meter"]


def test_test_shows_the_messages_and_exits_with_1_when_a_rule_fires(invoke, rules_file):
    limits = ("--set", "daily_limit=1_000_000", "--set", "agent_hourly_limit=1", "--set", "task_limit=100")
    told = invoke("rules", "test", rules_file, *limits, "--set", "daily_tokens=1200000")
    assert told.exit_code == 1
    assert "[P1] daily_budget_exceeded: Daily token budget exceeded: 1,200,000/1,000,000" in told.output
    quiet = invoke("rules", "test", rules_file, *limits)
    assert (quiet.exit_code, quiet.output) == (0, "No rule fires.\n")
    task = invoke("rules", "test", rules_file, *limits, "--set", "agent_tokens_per_task=900", "--agent", "writer")
    assert "[P1] runaway_detected: Agent writer may be looping: 900 tokens/task" in task.output


def test_test_asks_for_a_limit_that_is_needed(invoke, rules_file):
    told = invoke("rules", "test", rules_file, "--set", "daily_tokens=1")
    assert told.exit_code == 2
    assert "--set daily_limit=" in told.output


def test_variables_are_listed(invoke):
    assert "agent_tokens_per_task" in invoke("rules", "variables").output


NOW = """
limits:
  agent_hourly_limit: 1_000_000_000
  task_limit: 100
budget_rules:
  - name: month
    condition: monthly_tokens > monthly_limit
    message: "{used} of {limit}"
  - name: runaway
    condition: agent_tokens_per_task > task_limit * 3
    message: "{name} {task} {tokens_per_task}"
  - name: calm
    condition: agent_hourly_tokens > agent_hourly_limit
"""


@pytest.fixture
def in_use(folder):
    """A ledger that a program used today, with a budget of the program's and one set by hand."""
    (folder / "now.yaml").write_text(NOW, encoding="utf-8")
    with Meter(store="meter.db", budgets=[Budget("month", tokens=1_000, per="month", mode="soft")]) as meter:
        meter.record_usage(model="gpt-4o", input_tokens=350, agent="writer", task="t1")
        meter.record_usage(model="gpt-4o", input_tokens=400, agent="writer", task="t2")
        meter.record_usage(model="gpt-4o", input_tokens=300, agent="other", task="t1")
    return "now.yaml"


def test_test_over_a_store_says_what_would_fire_now_and_for_whom(invoke, in_use):
    told = invoke("rules", "test", in_use, "--store", "meter.db")

    assert told.exit_code == 1
    assert [line for line in told.output.splitlines() if line.startswith("[")] == [
        "[P3] month: 1,050 of 1,000",
        "[P3] runaway: writer t1 350",
        "[P3] runaway: writer t2 400",
    ]
    assert invoke("controls").output == "Nothing is paused or stopped.\n"


def test_test_over_a_store_knows_what_has_fired_already(invoke, in_use):
    with Meter(store="meter.db") as meter:
        rules = Rules.load(in_use, interval=None, limits={"monthly_limit": 1_000})
        meter.register(rules)
        assert len(rules.check()) == 3

    fired = json.loads(invoke("rules", "test", in_use, "--store", "meter.db", "--json").stdout)

    assert [(one["agent"], one["task"], one["fired_since"] is not None) for one in fired] == [
        ("", "", True),
        ("writer", "t1", True),
        ("writer", "t2", True),
    ]


def test_test_over_a_store_without_the_limit_names_the_line(invoke, folder):
    (folder / "x.yaml").write_text("rules:\n  - name: x\n    condition: daily_tokens > daily_limit\n", encoding="utf-8")
    Meter(store="meter.db").shutdown()
    told = invoke("rules", "test", "x.yaml", "--store", "meter.db")

    assert told.exit_code == 1
    assert "x.yaml:2: rule x: nobody set daily_limit" in told.output


@pytest.mark.parametrize("arguments", [(), ("--set", "daily_tokens=1", "--store", "meter.db")])
def test_test_takes_numbers_or_a_store(arguments, invoke, in_use):
    assert invoke("rules", "test", in_use, *arguments).exit_code == 2
