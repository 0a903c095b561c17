"""The pages about caching run as they are printed."""

from __future__ import annotations

from tests.pages import run_examples


def test_the_how_to_page_runs_and_prints_what_it_shows() -> None:
    names = run_examples("how-to/replay-cached-answers.md")

    assert names["meter"].health()["open_calls"] == 0
