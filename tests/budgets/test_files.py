"""Budgets from a YAML file: what it says, and the line of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_meter import Budget, BudgetError, Meter
from agent_meter.budgets.files import load, read

GOOD = """\
budgets:
  - name: research
    usd: 5
    per: day
    agent: researcher
    tags: {team: search}
  - {name: everybody, tokens: 2000000, per: month, tz: Europe/Berlin, mode: soft, alert_at: [0.5, 1]}
"""


def test_a_file_says_what_python_would(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text(GOOD)
    expected = [
        Budget("research", usd=5, per="day", agent="researcher", team="search"),
        Budget("everybody", tokens=2_000_000, per="month", tz="Europe/Berlin", mode="soft", alert_at=(0.5, 1)),
    ]

    assert load(path) == expected
    assert list(Meter(budgets=path).budgets) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "b.yaml: there is nothing in it"),
        ("- name: x", "b.yaml:1: here are names and values"),
        ("budget: []", "b.yaml:1: there is no 'budget'; did you mean 'budgets'?"),
        ("budgets: 5", "b.yaml:1: budgets is a list"),
        ("budgets:\n  - name: x\n    usd: 1\n    agnet: y", "b.yaml:4: there is no 'agnet'; did you mean 'agent'?"),
        ("budgets:\n  - name: x\n    usd: lots", "b.yaml:3: budget 'x': usd is an amount of US dollars, not 'lots'"),
        ("budgets:\n  - name: x\n    usd: 1\n    per: eon", "b.yaml:4: budget 'x': per is run, total"),
        ("budgets:\n  - usd: 1", "b.yaml:2: a budget has a name"),
        ("budgets:\n  - name: x\n    name: y", "b.yaml:3: name stands here twice"),
        ("budgets:\n  - {name: x, usd: 1}\n  - {name: x, usd: 2}", "b.yaml:3: two budgets are called 'x'"),
        ("budgets: [", "b.yaml:1: no YAML"),
        ("budgets:\n  - name: x\n    on_exceed: print", "b.yaml:3: there is no 'on_exceed'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BudgetError) as caught:
        read(text, "b.yaml")

    assert str(caught.value).startswith(says)


def test_a_file_runs_no_code() -> None:
    with pytest.raises(BudgetError, match=r"budgets:2: no plain value: could not determine a constructor"):
        read("budgets:\n  - name: !!python/object/apply:os.getcwd []\n    usd: 1")
