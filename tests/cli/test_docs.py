"""The pages about the command tell the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.transcripts import answer_of, exchanges

from .conftest import Invoke

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "reference/command-line.md", DOCS / "how-to/look-up-a-price.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_answers_as_it_says(page: Path, invoke: Invoke, folder: Path) -> None:
    ran = 0
    for typed, expected in exchanges("\n".join(blocks(page, "console"))):
        if "|" in typed:
            continue  # what another program makes of the answer is not ours to check
        ran += 1
        result = invoke(*typed)

        assert answer_of(result.output, 0, folder) == expected, typed
    assert ran >= 7


def test_the_program_of_the_how_to_page_prints_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGES[1]
    (program,), (printed,) = blocks(page, "python"), blocks(page, "text")

    exec(compile(program, page.name, "exec"), {})

    assert capsys.readouterr().out == printed


def test_every_command_and_every_option_is_in_the_reference(invoke: Invoke) -> None:
    reference = PAGES[0].read_text(encoding="utf-8")
    commands = ["prices show", "prices list", "prices diff", "prices update", "prices check", "whatif", "count", "demo"]

    for command in commands:
        options = re.findall(r"--[a-z][a-z0-9-]*", invoke(*command.split(), "--help").output)

        assert f"## `{command}`" in reference
        assert [option for option in options if not re.search(rf"{option}(?![a-z0-9-])", reference)] == []


def test_the_how_to_page_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    headings = re.findall(r"^## (.*)$", PAGES[1].read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[-2:] == ["Verify", "Troubleshoot"]
