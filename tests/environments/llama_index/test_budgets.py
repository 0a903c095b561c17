"""Budgets through LlamaIndex's own integration of OpenAI, counted at the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter
from agent_meter.adapters.llama_index import MeterHandler
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

# LlamaIndex looks at every attribute of an agent, its deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
Loopback = Callable[..., LoopbackProvider]
PAID = Reply("yes", input_tokens=400, output_tokens=100)  # $0.002
ASK = [ChatMessage(role="user", content="How does a meter count what is used? " * 43)]  # about 400 tokens


def openai(provider: LoopbackProvider, kind: Any = OpenAI, **options: Any) -> Any:
    return kind(api_base=provider.openai_base_url, api_key="none", max_retries=0, **{"model": "gpt-4o", **options})


def _embed(provider: LoopbackProvider, method: str, *asked: Any) -> Any:
    return getattr(openai(provider, OpenAIEmbedding, model="text-embedding-3-small"), method)(*asked)


async def _astream(provider: LoopbackProvider) -> None:
    async for _ in await openai(provider).astream_chat(ASK):
        pass


WAYS: dict[str, Callable[[LoopbackProvider], Any]] = {
    "chat": lambda provider: openai(provider).chat(ASK),
    "complete": lambda provider: openai(provider).complete("Is it?"),
    "stream": lambda provider: list(openai(provider).stream_chat(ASK)),
    "achat": lambda provider: asyncio.run(openai(provider).achat(ASK)),
    "astream": lambda provider: asyncio.run(_astream(provider)),
    "embedding": lambda provider: _embed(provider, "get_text_embedding", "a"),
    "embeddings": lambda provider: _embed(provider, "get_text_embedding_batch", ["a", "b"]),
    "aembeddings": lambda provider: asyncio.run(_embed(provider, "aget_text_embedding_batch", ["a", "b"])),
}


@pytest.fixture
def limited() -> Iterator[Callable[..., Meter]]:
    handlers = []

    def make(**limits: Any) -> Meter:
        meter = Meter(budgets=[Budget("day", per="total", **limits)])
        handlers.append(MeterHandler(meter).register())
        return meter

    yield make
    for handler in handlers:
        handler.unregister()


@pytest.mark.parametrize("way", WAYS)
def test_the_call_beyond_the_budget_is_not_sent(way: str, loopback: Loopback, limited: Any) -> None:
    provider, meter = loopback([PAID], loop=True), limited(requests=1)
    WAYS[way](provider)

    with pytest.raises(BudgetExceeded):
        WAYS[way](provider)

    assert len(provider.requests) == 1
    assert refused(meter) == 1


async def test_an_agent_that_never_ends_is_stopped(loopback: Loopback, limited: Any) -> None:
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    provider = loopback(lambda request: Reply(tool_calls=[ToolCall("add", {"a": 1, "b": 2})], output_tokens=20))
    meter = limited(requests=4)

    with pytest.raises(BudgetExceeded):
        await FunctionAgent(llm=openai(provider), tools=[add]).run("1 + 2?", max_iterations=100)

    assert len(provider.requests) == 4
    assert refused(meter) == 1


def test_eight_threads_stay_inside_of_ten_cents(loopback: Loopback, limited: Any) -> None:
    provider = loopback(lambda request: Reply("yes", input_tokens=400, output_tokens=100, delay=0.01))
    meter, llm = limited(usd="0.10"), openai(provider, max_tokens=100)

    def until_refused(_: int) -> int:
        for sent in range(100):
            try:
                llm.chat(ASK)
            except BudgetExceeded:
                return sent
        return 100

    with ThreadPoolExecutor(8) as pool:
        sent = sum(pool.map(until_refused, range(8)))

    assert sent == len(provider.requests)
    assert Decimal("0.085") <= sent * Decimal("0.002") <= Decimal("0.10")
    assert refused(meter) == 8
