"""The pages about rules run, and their tables are those of the code."""

from __future__ import annotations

from tests.pages import read as page
from tests.pages import run_examples

from agent_meter.rules import ACTIONS, PLACEHOLDERS, VARIABLES, read


def test_the_guide_runs():
    run_examples("how-to/alert-rules.md")


def test_the_file_of_the_guide_loads():
    text = page("how-to/alert-rules.md")
    assert len(read(text.split("```yaml\n")[1].split("```")[0]).rules) == 2


def test_the_reference_lists_every_variable_placeholder_and_action():
    text = page("reference/rules.md")
    for variable in VARIABLES.values():
        assert f"| `{variable.name}` | {variable.subject} | {variable.meaning} |" in text
    for name, meaning in PLACEHOLDERS.items():
        assert f"| `{{{name}}}` | {meaning} |" in text
    for action in ACTIONS:
        assert f"`{action}" in text
