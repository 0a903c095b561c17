"""A used-up budget stops LlamaIndex's chats, streams, agents and embeddings before they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.storage.kvstore import SimpleKVStore
from tests.adapters.llama_index.models import Completing, Embedding, Scripted, turn
from tests.adapters.llama_index.test_calls import WAYS
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter
from agent_meter.adapters.llama_index import MeteredEmbeddingCache, MeterHandler

# LlamaIndex looks at every attribute of an agent, its deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter(budgets=[Budget("day", requests=1)])
    with MeterHandler(meter):
        yield meter
    assert meter.health()["failures"] == {}


@pytest.mark.parametrize("way", WAYS)
def test_the_call_beyond_the_budget_is_not_sent(way: str, meter: Meter) -> None:
    llm = Completing(asked=[])
    WAYS[way](llm)

    with pytest.raises(BudgetExceeded) as failure:
        WAYS[way](llm)

    assert (failure.value.budget, failure.value.used) == ("day", 1)
    assert len(llm.asked) == 1
    assert refused(meter) == 1


async def test_an_agent_ends_where_its_budget_does(meter: Meter) -> None:
    def lookup(word: str) -> str:
        """Looks a word up."""
        return word

    llm = Scripted(turns=[turn("", ("lookup", {"word": "x"}))])  # for ever

    with pytest.raises(BudgetExceeded):
        await FunctionAgent(llm=llm, tools=[lookup]).run("What is x?")

    assert llm.asked == 1
    assert refused(meter) == 1


def test_what_a_tool_asks_is_refused_as_well(meter: Meter) -> None:
    """The tool's error goes to the model; the agent's own next call is the one that ends the run."""
    inner = Completing(asked=[])

    def lookup(word: str) -> str:
        """Asks a model."""
        return str(inner.complete(word))

    llm = Scripted(turns=[turn("", ("lookup", {"word": "x"}))])

    async def run() -> None:
        await FunctionAgent(llm=llm, tools=[lookup]).run("What is x?")

    with pytest.raises(BudgetExceeded):
        asyncio.run(run())

    assert (llm.asked, inner.asked) == (1, [])
    assert refused(meter) == 2


EMBEDDINGS: dict[str, Callable[[Any], Any]] = {
    "query": lambda model: model.get_query_embedding("a"),
    "aquery": lambda model: asyncio.run(model.aget_query_embedding("a")),
    "batch": lambda model: model.get_text_embedding_batch(["a", "b"]),
    "abatch": lambda model: asyncio.run(model.aget_text_embedding_batch(["a", "b"])),
}


@pytest.mark.parametrize("way", EMBEDDINGS)
def test_the_embedding_beyond_the_budget_is_not_sent(way: str, meter: Meter) -> None:
    model = Embedding(sent=[])
    EMBEDDINGS[way](model)

    with pytest.raises(BudgetExceeded):
        EMBEDDINGS[way](model)

    assert len(model.sent) == 1
    assert refused(meter) == 1


@pytest.mark.parametrize("way", EMBEDDINGS)
def test_vectors_from_a_cache_pass_a_used_up_budget(way: str, meter: Meter) -> None:
    model = Embedding(sent=[], embeddings_cache=MeteredEmbeddingCache(SimpleKVStore(), meter))
    first = EMBEDDINGS[way](model)
    again = EMBEDDINGS[way](model)

    assert again == first
    assert len(model.sent) == 1
    assert refused(meter) == 0
