"""Rules files: the one of the seed loads as it is written; an error names the line and what to write instead."""

from __future__ import annotations

import pytest

from agent_meter.rules import RuleError, read

SEED = """\
# budget-alerts.yaml
budget_rules:
  - name: daily_budget_exceeded
    condition: daily_tokens > daily_limit
    severity: P1
    action: pause_all_noncritical_agents
    message: "Daily token budget exceeded: {used}/{limit}"

  - name: agent_spike
    condition: agent_hourly_tokens > agent_hourly_limit * 2
    severity: P2
    action: investigate_agent
    message: "Agent {name} token usage spiked: {hourly_used}/hr"

  - name: runaway_detected
    condition: agent_tokens_per_task > task_limit * 3
    severity: P1
    action: kill_agent_task
    message: "Agent {name} may be looping: {tokens_per_task} tokens/task"

  - name: budget_forecast
    condition: projected_daily_tokens > daily_limit * 0.9
    severity: P3
    action: notify_team
    message: "On track to exceed daily budget by {overshoot}%"
"""


def test_the_file_of_the_seed_loads_as_written():
    rules = read(SEED, "budget-alerts.yaml").rules
    assert [(rule.name, rule.subject, rule.limits, rule.severity) for rule in rules] == [
        ("daily_budget_exceeded", "meter", ("daily_limit",), "P1"),
        ("agent_spike", "agent", ("agent_hourly_limit",), "P2"),
        ("runaway_detected", "task", ("task_limit",), "P1"),
        ("budget_forecast", "meter", ("daily_limit",), "P3"),
    ]
    assert rules[1].where == "budget-alerts.yaml:9"


def test_everything_that_a_file_may_say():
    file = read(
        "limits: {daily_limit: 1000000}\n"
        "critical_agents: [billing]\n"
        "rules:\n"
        "  - name: a\n"
        "    condition: daily_tokens > daily_limit\n"
        "    until: daily_tokens < daily_limit / 2\n"
        "    for: 5m\n"
        "    actions: [log, {webhook: {url: 'http://127.0.0.1/x'}}]\n"
    )
    (rule,) = file.rules
    assert (file.limits, file.critical) == ({"daily_limit": 1_000_000}, ("billing",))
    assert rule.hold == 300
    assert rule.until is not None
    assert [action.name for action in rule.actions] == ["log", "webhook"]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", "", "the file is empty"),
        ("- a", ":1", "names with values"),
        ("a: [", ":1", "no YAML"),
        ("rulez: []", ":1", "did you mean rules?"),
        ("rules: {}", ":1", "a list of rules"),
        ("rules:\n  - name: x", ":2", "no condition"),
        ("rules:\n  - condition: daily_tokens > 1", ":2", "no name"),
        ("rules:\n  - name: x\n    condition: dayly_tokens > 1", ":3", "did you mean daily_tokens"),
        ("rules:\n  - name: x\n    condition: daily_tokens >", ":3", "cannot read the condition"),
        ("rules:\n  - name: x\n    condition: 1 > 0", ":3", "looks at nothing"),
        ("rules:\n  - name: x\n    condition: daily_tokens > 1\n    mesage: y", ":4", "did you mean message?"),
        ("rules:\n  - name: x\n    condition: daily_tokens > 1\n    message: '{usd}'", ":4", "{usd}"),
        ("rules:\n  - name: x\n    condition: daily_tokens > 1\n    message: '{used.__class__}'", ":4", "plain names"),
        ("rules:\n  - name: x\n    condition: daily_tokens > 1\n    for: soon", ":4", "no length of time"),
        ("rules:\n  - name: x\n    condition: daily_tokens > 1\n    severity: high", ":4", "none of P0"),
        ("rules:\n  - name: x\n    name: y\n    condition: daily_tokens > 1", ":3", "says name twice"),
        ("limits:\n  daily: 3\nrules:\n  - {name: x, condition: daily_tokens > 1}", ":2", "did you mean daily_limit?"),
        ("limits:\n  daily_limit: -3\nrules:\n  - {name: x, condition: daily_tokens > 1}", ":2", "at least 0"),
        (
            "rules:\n  - {name: a, condition: daily_tokens > 1}\n  - {name: a, condition: daily_tokens > 1}",
            ":3",
            "f.yaml:2 already",
        ),
    ],
)
def test_an_error_names_the_line_and_the_remedy(text, line, says):
    with pytest.raises(RuleError) as error:
        read(text, "f.yaml")
    assert str(error.value).startswith(f"f.yaml{line}:")
    assert says in str(error.value)
