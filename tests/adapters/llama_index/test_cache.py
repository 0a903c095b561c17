"""MeteredEmbeddingCache: a vector that is given again is a replay, and nothing is lost on the way."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.storage.kvstore import SimpleKVStore
from tests.adapters.llama_index import models

from agent_meter import Meter
from agent_meter.adapters.llama_index import MeteredEmbeddingCache, MeterHandler


class Embedding(MockEmbedding):
    """Counts what reaches the model."""

    asked: list[str] = []

    def _get_text_embedding(self, text: str) -> list[float]:
        self.asked.append(text)
        return [float(len(text))] * self.embed_dim

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embedding(text)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def cache(meter: Meter) -> MeteredEmbeddingCache:
    return MeteredEmbeddingCache(SimpleKVStore(), meter, model="text-embedding-3-small", provider="openai")


def embedding(cache: Any) -> Embedding:
    return Embedding(embed_dim=2, embeddings_cache=cache, asked=[])


def test_a_vector_that_is_given_again_is_recorded_as_a_replay(meter: Meter, cache: MeteredEmbeddingCache) -> None:
    model = embedding(cache)
    vectors = [model.get_text_embedding("Hello"), model.get_text_embedding("Hello"), model.get_query_embedding("Hello")]

    assert (vectors, model.asked) == ([[5.0, 5.0]] * 3, ["Hello"])
    assert (cache.stats.hits, cache.stats.misses) == (2, 1)
    assert [(r.kind, r.cached, r.model, r.billed_cost_usd) for r in meter.history()] == [
        ("embedding", True, "text-embedding-3-small", 0)
    ] * 2
    assert all(record.estimated and record.embedding_tokens > 0 for record in meter.history())


async def test_asynchronously_and_in_batches_too(meter: Meter, cache: MeteredEmbeddingCache) -> None:
    model = embedding(cache)
    await model.aget_text_embedding("a")
    model.get_text_embedding_batch(["a", "b", "c"])
    await model.aget_text_embedding_batch(["b", "c", "d"])

    assert (sorted(model.asked), cache.stats.hits) == (["a", "b", "c", "d"], 3)


def test_what_was_paid_for_a_batch_is_shared_among_its_texts(meter: Meter, cache: MeteredEmbeddingCache) -> None:
    texts = ["short", "a text that is longer than the short one", "another"]
    model = embedding(cache)
    model.get_text_embedding_batch(texts)
    meter.record_usage(model="text-embedding-3-small", provider="openai", kind="embedding", input_tokens=17)
    paid = meter.usage
    model.get_text_embedding_batch(texts)
    replays = [record for record in meter.history() if record.cached]

    assert (sum(record.embedding_tokens for record in replays), len(replays)) == (17, 3)
    assert not any(record.estimated for record in replays)
    assert meter.usage.saved_cost_usd == paid.cost_usd
    assert (cache.report().api_calls_saved, cache.report().embedding_tokens_saved) == (3, 17)


def test_no_model_gets_the_vectors_of_another(meter: Meter) -> None:
    store = SimpleKVStore()
    small = embedding(MeteredEmbeddingCache(store, meter, model="text-embedding-3-small"))
    large = embedding(MeteredEmbeddingCache(store, meter, model="text-embedding-3-large"))
    small.get_text_embedding("Hello")
    large.get_text_embedding("Hello")

    assert (small.asked, large.asked) == (["Hello"], ["Hello"])


def test_vectors_of_an_unwrapped_cache_are_hits_as_well(meter: Meter) -> None:
    store = SimpleKVStore()
    embedding(store).get_text_embedding("Hello")
    wrapped = embedding(MeteredEmbeddingCache(store, meter, model="text-embedding-3-small"))
    wrapped.get_text_embedding("Hello")
    back = embedding(store)
    embedding(MeteredEmbeddingCache(store, meter, model="text-embedding-3-small")).get_text_embedding("Bye")

    assert (wrapped.asked, [record.cached for record in meter.history()]) == ([], [True])
    assert (back.get_text_embedding("Bye"), back.asked) == ([3.0, 3.0], [])


def test_a_pickled_cache_keeps_its_vectors_and_leaves_its_meter(cache: MeteredEmbeddingCache) -> None:
    embedding(cache).get_text_embedding("Hello")
    again = pickle.loads(pickle.dumps(cache))

    assert (again.model, again.provider) == ("text-embedding-3-small", "openai")
    assert list(again.inner.get("Hello", collection="embeddings").values())[0] == [5.0, 5.0]  # noqa: RUF015
    assert copy.deepcopy(cache) is cache


def test_other_collections_pass_through(meter: Meter, cache: MeteredEmbeddingCache) -> None:
    cache.put("k", {"x": 1})
    cache.put_all([("l", {"x": 2})])

    assert (cache.get("k"), cache.get_all(), cache.delete("k"), cache.get("k")) == (
        {"x": 1},
        {"k": {"x": 1}, "l": {"x": 2}},
        True,
        None,
    )
    assert (meter.history(), cache.stats.total_requests) == ([], 0)


def test_a_broken_meter_gives_the_vector_all_the_same(meter: Meter, cache: MeteredEmbeddingCache) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("broken")

    model = embedding(cache)
    model.get_text_embedding("Hello")
    meter.record_usage = broken  # type: ignore[method-assign,assignment]

    assert model.get_text_embedding("Hello") == [5.0, 5.0]
    assert meter.health()["failures"] == {"MeteredEmbeddingCache": {"get": 1}}


def test_beside_the_handler_every_text_is_counted_once(cache: MeteredEmbeddingCache, meter: Meter) -> None:
    model = embedding(cache)
    with MeterHandler(meter):
        model.get_text_embedding("Hello")
        model.get_text_embedding("Hello")
        model.get_text_embedding_batch(["Hello", "Bye"])

    assert [record.cached for record in meter.history()] == [False, True, True, False]
    assert (meter.health()["failures"], meter.health()["open_calls"]) == ({}, 0)


def test_what_the_client_tells_of_a_paid_call_is_what_a_hit_replays(meter: Meter) -> None:
    cache = MeteredEmbeddingCache(SimpleKVStore(), meter, provider="openai")
    model = models.Embedding(embeddings_cache=cache, client=models.Client(), sent=[])
    with MeterHandler(meter):
        paid = model.get_text_embedding_batch(["one", "two and more"])
        again = model.get_text_embedding_batch(["one", "two and more"])
    records = meter.history()

    assert (paid, [record.cached for record in records]) == (again, [False, True, True])
    assert meter.usage.api_calls == 1
    assert not any(record.estimated for record in records)
    assert records[0].embedding_tokens == 14 == sum(record.embedding_tokens for record in records[1:])
