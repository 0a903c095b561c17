"""The pages about caching run as they are printed."""

from __future__ import annotations

import re

from tests.pages import read, run_examples


def test_the_how_to_page_runs_and_prints_what_it_shows() -> None:
    names = run_examples("how-to/replay-cached-answers.md")

    assert names["meter"].health()["open_calls"] == 0


def test_the_reference_runs_and_prints_what_it_shows() -> None:
    run_examples("reference/replay.md")


def test_a_how_to_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    page = read("how-to/replay-cached-answers.md")

    assert re.findall(r"^## (.*)$", page, re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]
