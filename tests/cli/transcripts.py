"""Transcripts: what was typed after `$ agent-meter`, what came back, and the exit code where it was not 0."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROMPT = "$ agent-meter"


class Exchange(NamedTuple):
    arguments: list[str]
    answer: str


def exchanges(transcript: str) -> Iterator[Exchange]:
    """The commands of a transcript with their answers, blank lines around these left out."""
    for part in f"\n{transcript}".split(f"\n{PROMPT}")[1:]:
        typed, _, answer = part.partition("\n")
        while typed.endswith("\\"):
            more, _, answer = answer.partition("\n")
            typed = typed[:-1] + more
        yield Exchange(shlex.split(typed), answer.strip("\n"))


def answer_of(output: str, exit_code: int, folder: Path) -> str:
    """An answer as a transcript keeps it: the folder by a name of its own, without the parser's usage lines."""
    lines = output.replace(str(folder), "/srv/ada").splitlines()
    kept = [line for line in lines if not line.startswith(("Usage: ", "Try '"))]
    return "\n".join(kept).strip("\n") + (f"\n[exit {exit_code}]" if exit_code else "")
