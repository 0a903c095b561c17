"""The pages on metering LangChain tell the truth."""

from __future__ import annotations

import re

import pytest
from tests import pages

from agent_meter.adapters import lifetimes
from agent_meter.adapters.langchain import hosted

HOW_TO, EXPLANATION = "how-to/meter-langchain.md", "explanation/langchain.md"


def test_every_example_prints_what_the_page_says() -> None:
    pages.run_examples(HOW_TO)["provider"].stop()


def test_the_how_to_ends_in_how_to_verify_and_what_to_do_when_it_fails() -> None:
    assert re.findall(r"^## (.*)$", pages.read(HOW_TO), re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]


@pytest.mark.parametrize("page", [HOW_TO, EXPLANATION])
def test_links_lead_to_pages_that_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", pages.read(page)):
        assert (pages.DOCS / page).parent.joinpath(target).is_file(), target


def test_what_the_explanation_calls_missing_is_what_records_say() -> None:
    text = pages.read(EXPLANATION)

    for name in (hosted.BESIDE, lifetimes.HOUR_TOKENS):
        assert f"`{name}`" in text
