"""Streams of decorated functions: handed on as they come, kept when they were read to their end, given again whole."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from openai import APIConnectionError, AsyncOpenAI, OpenAI

from agent_meter import Meter, ReplayCache, TokenUsage
from agent_meter.testing import Cut, LoopbackProvider, Reply

Loopback = Callable[..., LoopbackProvider]
USED = TokenUsage(1000, 100)
ASKED: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
REPLY = Reply("A long answer in many pieces, all of them.", input_tokens=1000, output_tokens=100)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def cache() -> ReplayCache:
    return ReplayCache()


def text_of(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_stream_that_was_read_to_its_end_is_given_again(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([REPLY])
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
    first, second = text_of(create(**ASKED)), text_of(create(**ASKED))

    assert (first, second, len(provider.requests)) == (REPLY.text, REPLY.text, 1)
    assert [(r.cached, r.streamed, r.total_tokens) for r in meter.history()] == [
        (False, True, 1100),
        (True, True, 1100),
    ]
    assert meter.history()[0].time_to_first_token is not None


async def test_an_asynchronous_one_too(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([REPLY])
    async with AsyncOpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0) as client:
        create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
        texts = [text_of([chunk async for chunk in await create(**ASKED)]) for _ in range(2)]

    assert (texts, len(provider.requests)) == ([REPLY.text] * 2, 1)
    assert [(r.cached, r.total_tokens) for r in meter.history()] == [(False, 1100), (True, 1100)]


def test_a_stream_that_was_left_is_not_kept_and_what_was_seen_is_a_lower_bound(
    meter: Meter, cache: ReplayCache, loopback: Loopback
) -> None:
    provider = loopback([REPLY, REPLY])
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
    with create(**ASKED) as stream:
        next(stream)
    text_of(create(**ASKED))

    assert [(r.status, r.estimated, r.cached) for r in meter.history()] == [
        ("cancelled", True, False),
        ("ok", False, False),
    ]


def test_a_stream_that_broke_is_not_kept(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([Cut(2, REPLY), REPLY])
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
    with pytest.raises(APIConnectionError):
        text_of(create(**ASKED))

    assert (text_of(create(**ASKED)), cache.stats.hits) == (REPLY.text, 0)
    assert [record.status for record in meter.history()] == ["error", "ok"]


def test_a_stream_that_nobody_reads_is_closed_by_the_garbage_collector(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Iterator[str]:
        yield from "abc"

    ask("Hi")
    gc.collect()

    assert ([r.status for r in meter.history()], meter.health()["open_calls"]) == (["cancelled"], 0)


def test_a_generator_may_return_its_usage(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Generator[str, None, TokenUsage]:
        yield from question.split()
        return USED

    answers = [list(ask("one two three")) for _ in range(2)]

    assert answers == [["one", "two", "three"]] * 2
    assert [(r.cached, r.usage) for r in meter.history()] == [(False, USED), (True, USED)]


async def test_an_async_generator_may_yield_its_usage_last(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    async def ask(question: str) -> AsyncIterator[Any]:
        for word in question.split():
            yield word
        yield USED

    answers = [[piece async for piece in ask("one two")] for _ in range(2)]

    assert answers == [["one", "two", USED]] * 2
    assert [(r.cached, r.usage) for r in meter.history()] == [(False, USED), (True, USED)]


def test_text_without_usage_is_flagged_and_never_free(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Iterator[str]:
        yield '{"usage": {"prompt_tokens": 5}}'  # a model's words, and not a provider's

    list(ask("Hi")), list(ask("Hi"))

    assert [(r.usage, r.estimated, r.cost_usd) for r in meter.history()] == [(None, True, None)] * 2
    assert (cache.report().unpriced_calls, cache.report().estimated_calls) == (1, 1)


def test_a_generator_that_meters_itself_is_heard_while_it_is_read(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter)
    def ask(question: str) -> Iterator[str]:
        with meter.llm("gpt-4o") as call:
            yield question
            call.finish(USED)

    for _ in ask("Hi"):
        meter.record_usage(model="gpt-4o-mini", input_tokens=7)  # the reader's, between two pieces
    list(ask("Hi"))

    assert [(r.model, r.cached) for r in meter.history()] == [
        ("gpt-4o-mini", False),
        ("gpt-4o", False),
        ("gpt-4o", True),
    ]
