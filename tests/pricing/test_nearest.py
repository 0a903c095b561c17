"""The names that somebody may have meant."""

from __future__ import annotations

import pytest

from agent_meter.errors import PriceError
from agent_meter.pricing import PriceBook
from agent_meter.pricing.nearest import nearest, provider_in


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook({"acme/lrage-2": {"input": "1", "output": "2"}}, discover=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gtp-4o", "openai/gpt-4o"),
        ("claude-sonet-4-5", "anthropic/claude-sonnet-4-5"),
        ("rerank-v3.5", "cohere/rerank-v3.5"),  # only the corrections know it
        ("acme/lrage-3", "acme/lrage-2"),  # only the user knows it
        ("GPT-4OO", "openai/gpt-4o"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(book: PriceBook, written: str, meant: str) -> None:
    found = nearest(book, written)

    assert found[0] == meant


def test_every_name_that_is_offered_has_a_rate(book: PriceBook) -> None:
    for written in ("codestral", "deepseek-v3", "sonnet", "llama-3.3-70b", "gemini-3", "ft:gpt-4o"):
        found = nearest(book, written, count=5)

        assert found, written
        assert [name for name in found if not book.find(name).known] == []


def test_names_of_the_provider_that_was_named_go_before_all_others(book: PriceBook) -> None:
    assert [name.partition("/")[0] for name in nearest(book, "llama-3.3-70b", provider="groq")] == ["groq"] * 3
    assert nearest(book, "claude-sonet-4-5", provider="groq")[0] == "anthropic/claude-sonnet-4-5"


def test_nothing_is_offered_for_what_resembles_nothing(book: PriceBook) -> None:
    assert nearest(book, "x" * 300) == ()
    assert nearest(book, "") == ()


@pytest.mark.parametrize(("written", "listed"), [("gemini", "google"), ("Azure OpenAI", "azure"), ("XAI", "x-ai")])
def test_a_provider_is_found_by_its_other_names(book: PriceBook, written: str, listed: str) -> None:
    assert provider_in(book.price_list, written) == listed


def test_an_unknown_provider_is_refused_with_the_nearest_one(book: PriceBook) -> None:
    with pytest.raises(PriceError, match="no provider 'opnai' in the price list; did you mean 'openai'"):
        provider_in(book.price_list, "opnai")
    with pytest.raises(PriceError, match=r"no provider 'xyzzy' in the price list; it has anthropic, .*zhipuai"):
        provider_in(book.price_list, "xyzzy")
