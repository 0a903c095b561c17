"""The pages about prices tell the truth."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path

from agent_meter import pricing
from agent_meter.pricing import PriceBook
from agent_meter.pricing.entries import KEYS
from agent_meter.pricing.sources import from_text
from agent_meter.records import Model

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference/pricing.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to/set-prices.md").read_text(encoding="utf-8")


def test_every_example_of_the_reference_gives_what_it_says() -> None:
    page = doctest.DocTestParser().get_doctest(REFERENCE, {}, "pricing.md", "pricing.md", 0)
    runner = doctest.DocTestRunner()
    runner.run(page)

    assert runner.summarize(verbose=False) == (0, len(page.examples))
    assert len(page.examples) >= 10


def test_every_public_name_and_every_key_of_a_price_file_is_in_the_reference() -> None:
    names = [*pricing.__all__, *KEYS, *(name for name in dir(PriceBook) if not name.startswith(("_", "meter_")))]

    assert [name for name in names if not re.search(rf"\b{name}\b", REFERENCE)] == []


def test_the_price_file_of_the_how_to_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", HOW_TO, re.DOTALL)

    layer = from_text(text, "how-to")
    found = PriceBook(tomllib.loads(text), discover=False)

    assert layer
    assert found.find(Model("azure", "my-gpt4o")).input == found.find(Model("azure", "gpt-4o")).input * 85 / 100  # type: ignore[operator]
    assert found.find("local-llama").free
