"""`agent-meter rules`: a file is checked and tried out before it is on duty."""

from __future__ import annotations

import json

import pytest
from tests.rules.test_loading import SEED


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
