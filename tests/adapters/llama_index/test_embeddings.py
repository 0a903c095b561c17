"""Embeddings and rerankers: the provider's own numbers where its client tells them, else estimated and flagged."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from tests.adapters.llama_index.models import Client, Completing, Embedding
from tests.adapters.llama_index.test_denied import EMBEDDINGS, Guard

from agent_meter import BudgetExceeded, Meter

dispatcher = get_dispatcher(__name__)


@pytest.mark.parametrize("way", EMBEDDINGS)
def test_an_embedding_is_the_providers_number_where_its_client_tells(way: str, meter: Meter) -> None:
    client = Client()

    EMBEDDINGS[way](Embedding(sent=[], client=client))

    (record,) = meter.history()
    assert (record.kind, record.input_tokens, record.estimated) == ("embedding", 7 * len(client.sent[0]), False)
    assert record.model == "text-embedding-3-small"
    assert meter.usage.embedding_tokens == record.input_tokens
    assert meter.usage.total_tokens == 0


@pytest.mark.parametrize("way", EMBEDDINGS)
def test_an_embedding_is_estimated_where_nobody_tells(way: str, meter: Meter) -> None:
    EMBEDDINGS[way](Embedding(sent=[]))

    (record,) = meter.history()
    assert (record.estimated, record.missing) == (True, ("input_tokens",))
    assert record.input_tokens > 0
    assert record.notes


async def test_batches_that_are_sent_at_once_are_a_record_each(meter: Meter) -> None:
    client = Client()

    await Embedding(sent=[], client=client, embed_batch_size=2).aget_text_embedding_batch(["a", "b", "c", "d", "e"])

    assert sorted(record.input_tokens for record in meter.history()) == [7, 14, 14]
    assert len(client.sent) == 3


def test_what_a_cache_answers_is_used_and_not_billed(meter: Meter) -> None:
    model = Embedding(sent=[], client=Client(), embeddings_cache=SimpleKVStore())

    model.get_text_embedding("a word")
    model.get_text_embedding("a word")
    model.get_text_embedding_batch(["a word", "another"])

    assert model.sent == [["a word"], ["another"]]
    assert [(record.cached, record.estimated, record.billed_cost_usd == 0) for record in meter.history()] == [
        (False, False, False),
        (True, True, True),
        (False, False, False),
        (True, True, True),
    ]
    assert meter.usage.api_calls == 2


def test_a_batch_that_the_cache_answers_whole_costs_nothing(meter: Meter) -> None:
    model = Embedding(sent=[], client=Client(), embeddings_cache=SimpleKVStore())
    model.get_text_embedding_batch(["a", "b"])

    model.get_text_embedding_batch(["a", "b"])

    assert len(model.sent) == 1
    assert sum(record.input_tokens for record in meter.history() if not record.cached) == 14


async def test_asynchronous_batches_with_a_cache_are_counted_and_refused(meter: Meter) -> None:
    """LlamaIndex asks no rate limiter there; the client is asked."""
    client = Client()
    model = Embedding(sent=[], client=client, embeddings_cache=SimpleKVStore())
    await model.aget_text_embedding_batch(["a", "b"])
    meter.register(Guard())

    with pytest.raises(BudgetExceeded):
        await model.aget_text_embedding_batch(["b", "c"])

    assert [record.input_tokens for record in meter.history()] == [14]
    assert client.sent == [["a", "b"]]


class Wrapping(BaseEmbedding):
    """An embedding model inside an embedding model."""

    inner: Any

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(self.inner.get_text_embedding(text))

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_a_wrapped_embedding_model_is_counted_once(meter: Meter) -> None:
    Wrapping(model_name="wrapper", inner=Embedding(sent=[], client=Client())).get_text_embedding("a")

    assert [(record.request_model, record.input_tokens) for record in meter.history()] == [
        ("text-embedding-3-small", 7)
    ]


def test_a_failed_embedding_is_an_error(meter: Meter) -> None:
    class Broken(Embedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Broken(sent=[]).get_text_embedding("a")

    assert [(record.status, record.error_type, record.usage) for record in meter.history()] == [
        ("error", "ValueError", None)
    ]


# ------------------------------------------------------------------------------------------------- rerankers


class Reranker(BaseNodePostprocessor):
    """As Cohere's: a client, a pair of events, and nothing said of what it costs."""

    model: str = "rerank-v3.5"
    client: Any = None
    llm: Any = None

    def _postprocess_nodes(self, nodes: list[Any], query_bundle: Any = None) -> list[Any]:
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=2, model_name=self.model))
        if self.client is not None:
            self.client.rerank(nodes)
        if self.llm is not None:
            self.llm.complete("Which?")
        dispatcher.event(ReRankEndEvent(nodes=nodes[:2]))
        return nodes[:2]


class Ranking:
    def __init__(self) -> None:
        self.asked = 0

    def rerank(self, nodes: list[Any]) -> Any:
        self.asked += 1
        return {"id": "r", "results": [], "meta": {"billed_units": {"search_units": 2}}}


def _rank(reranker: Reranker, documents: int = 3) -> None:
    nodes = [NodeWithScore(node=TextNode(text="a"), score=1.0) for _ in range(documents)]
    reranker.postprocess_nodes(nodes, QueryBundle("Which?"))


def test_a_rerank_is_what_its_client_says_is_billed(meter: Meter) -> None:
    _rank(Reranker(client=Ranking()))

    (record,) = meter.history()
    assert (record.kind, record.request_model, record.estimated) == ("rerank", "rerank-v3.5", False)
    assert record.usage is not None
    assert record.usage.units == {"rerank_searches": 2}


def test_a_rerank_without_a_client_is_one_search_for_every_hundred_documents(meter: Meter) -> None:
    _rank(Reranker(), documents=150)

    (record,) = meter.history()
    assert record.usage is not None
    assert (record.estimated, record.usage.units) == (True, {"rerank_searches": 2})


def test_a_denied_rerank_is_not_sent(meter: Meter) -> None:
    client = Ranking()
    meter.register(Guard())

    with pytest.raises(BudgetExceeded):
        _rank(Reranker(client=client))

    assert client.asked == 0
    assert meter.history() == []


def test_a_language_model_that_ranks_is_counted_as_what_it_is(meter: Meter) -> None:
    _rank(Reranker(llm=Completing(asked=[])))

    assert [record.kind for record in meter.history()] == ["llm"]
