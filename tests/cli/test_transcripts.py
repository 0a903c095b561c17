"""What the command prints at 80 columns without colour, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.transcripts import answer_of, exchanges

from .conftest import Invoke, Run

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", ["prices", "lists", "whatif"])
def test_every_answer_is_the_golden_one(
    name: str, invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")
    transcript = list(exchanges((GOLDEN / f"{name}.txt").read_text(encoding="utf-8")))

    assert len(transcript) >= 10
    for typed, expected in transcript:
        result = invoke(*typed)

        assert answer_of(result.output, result.exit_code, folder) == expected, typed


def test_the_installed_command_answers_as_the_transcripts_say(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")
    for name in ("prices", "whatif"):
        typed, expected = next(exchanges((GOLDEN / f"{name}.txt").read_text(encoding="utf-8")))

        result = run(*typed)

        assert (answer_of(result.stdout, result.returncode, folder), result.stderr) == (expected, "")


def test_no_table_of_the_golden_ones_is_wider_than_80_columns() -> None:
    for file in GOLDEN.glob("*.txt"):
        for typed, answer in exchanges(file.read_text(encoding="utf-8")):
            if "[exit" not in answer and "sha256 " not in answer:
                assert max(map(len, answer.splitlines())) <= 80, typed
