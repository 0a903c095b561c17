"""The pages about LangChain tell the truth."""

from __future__ import annotations

import re

import pytest
from tests import pages

from agent_meter.adapters import langchain

PAGES = ("how-to/cache-langchain.md", "how-to/meter-embeddings.md", "reference/langchain.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_example_prints_what_the_page_says(page: str) -> None:
    provider = pages.run_examples(page).get("provider")

    if provider is not None:
        provider.stop()


@pytest.mark.parametrize("page", PAGES[:2])
def test_a_how_to_ends_in_how_to_verify_and_what_to_do_when_it_fails(page: str) -> None:
    assert re.findall(r"^## (.*)$", pages.read(page), re.MULTILINE)[-2:] == ["Verify", "Troubleshoot"]


def test_every_public_name_has_its_entry_in_the_reference() -> None:
    headings = re.findall(r"^## (.*)$", pages.read(PAGES[2]), re.MULTILINE)

    assert set(langchain.__all__) <= set(headings)
