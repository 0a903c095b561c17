"""The reference page of this room tells the truth."""

from __future__ import annotations

import doctest
from pathlib import Path

from agent_meter import tokens
from agent_meter.tokens import TokenCounter, bpe
from agent_meter.tokens.families import CLAUDE, CLAUDE_NEW, GEMINI, LLAMA, MISTRAL, NOVA, OTHER

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference/tokens.md").read_text(encoding="utf-8")


def test_every_example_of_the_reference_gives_what_it_says() -> None:
    page = doctest.DocTestParser().get_doctest(REFERENCE, {}, "tokens.md", "tokens.md", 0)
    runner = doctest.DocTestRunner()
    runner.run(page)

    assert runner.summarize(verbose=False) == (0, len(page.examples))
    assert len(page.examples) >= 10


def test_every_public_name_is_in_the_reference() -> None:
    names = [*tokens.__all__, *(name for name in dir(TokenCounter) if not name.startswith("_")), *bpe.SOURCES]

    assert [name for name in names if f"`{name}" not in REFERENCE and f".{name}" not in REFERENCE] == []
    assert all(bpe.SOURCES[name].filename in REFERENCE for name in ("o200k_base", "o200k_harmony", "cl100k_base"))


def test_the_explanation_states_the_errors_that_the_code_states() -> None:
    table = (DOCS / "explanation/tokens.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in table.splitlines() if row.startswith("| ")}
    families = {"Claude": CLAUDE, "Gemini": GEMINI, "Llama": LLAMA, "Mistral": MISTRAL, "Nova": NOVA}

    for name, family in {**families, "Cohere, all others": OTHER}.items():
        assert f"{family.error:.0%}".replace("%", " %") in rows[name].split("|")[-2], name
    assert f"{CLAUDE_NEW.error:.0%}".replace("%", " %") + " from Opus 4.7 on" in table
