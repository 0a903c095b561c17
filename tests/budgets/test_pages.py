"""The pages about budgets run, and their tables are those of the code."""

from __future__ import annotations

import inspect

import msgspec
from tests.pages import read as page
from tests.pages import run_examples

from agent_meter import Budget, BudgetExceeded
from agent_meter.budgets import BudgetStatus
from agent_meter.budgets.files import read


def test_the_guide_runs() -> None:
    run_examples("how-to/budgets.md")


def test_the_file_of_the_guide_loads() -> None:
    text = page("how-to/budgets.md").split("```yaml\n")[1].split("```")[0]

    assert [budget.name for budget in read(text)] == ["research", "everybody"]


def test_the_reference_names_every_option_and_every_field() -> None:
    text = page("reference/budgets.md")
    options = set(inspect.signature(Budget).parameters) - {"name", "more_tags"}
    fields = {field.name for field in msgspec.structs.fields(BudgetStatus)}
    numbers = {name for name in vars(BudgetExceeded) if not name.startswith("_")}

    assert [name for name in sorted(options | fields | numbers) if f"`{name}" not in text] == []
