"""MeteredCompressor: searches as the service bills them where its client tells, else assumed and flagged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from agent_meter import BudgetExceeded, Denial, Kind, Meter, Status, hookimpl
from agent_meter.adapters.langchain import MeterCallback, MeteredCompressor
from agent_meter.testing import RecordingPlugin

DOCUMENTS = [Document("a"), Document("b"), Document("c")]
COHERE = SimpleNamespace(meta=SimpleNamespace(billed_units=SimpleNamespace(search_units=2.0)), id="r1")
VOYAGE = SimpleNamespace(results=[], total_tokens=1200)


class Client:
    """A reranking service's client: answers what it was made with, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def rerank(self, **request: Any) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Rerank(BaseDocumentCompressor):
    """Asks its client as CohereRerank and VoyageAIRerank do, and drops what was used."""

    model: str = "rerank-v3.5"
    client: Any = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        self.client.rerank(query=query, documents=[document.page_content for document in documents])
        return list(documents)[:2]


class Shorten(BaseDocumentCompressor):
    """A service whose client nobody can listen to."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        return list(documents)[:2]


@pytest.fixture
def meter() -> Meter:
    return Meter(strict=True)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_search_units_that_the_client_tells_are_exact(asynchronous: bool, meter: Meter) -> None:
    inner = Rerank(client=Client(COHERE))
    reranker = MeteredCompressor(inner, meter, provider="cohere")

    if asynchronous:
        best = asyncio.run(reranker.acompress_documents(DOCUMENTS, "q"))
    else:
        best = reranker.compress_documents(DOCUMENTS, "q")

    (record,) = meter.history()
    assert best == DOCUMENTS[:2]
    assert (record.kind, record.usage.units, record.estimated) == (Kind.RERANK, {"rerank_searches": 2}, False)
    assert (record.provider, record.model, record.cost_usd) == ("cohere", "rerank-v3.5", Decimal("0.004"))


def test_tokens_that_the_client_tells_are_exact(meter: Meter) -> None:
    reranker = MeteredCompressor(Rerank(model="rerank-2", client=Client(VOYAGE)), meter, provider="voyageai")

    reranker.compress_documents(DOCUMENTS, "q")

    assert (meter.history()[0].input_tokens, meter.history()[0].estimated) == (1200, False)


@pytest.mark.parametrize(("documents", "searches"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_where_nobody_tells_one_search_for_each_hundred_documents_is_assumed(
    documents: int, searches: int, meter: Meter
) -> None:
    reranker = MeteredCompressor(Shorten(), meter, model="rerank-v3.5", provider="cohere")

    reranker.compress_documents([Document("a")] * documents, "q")

    (record,) = meter.history()
    assert (record.usage.units, record.missing) == ({"rerank_searches": searches}, ("rerank_searches",))
    assert (record.estimated, record.cost.status) == (True, "estimated")
    assert record.cost_usd == searches * Decimal("0.002")


def test_an_answer_without_any_count_is_flagged(meter: Meter) -> None:
    reranker = MeteredCompressor(Rerank(client=Client(SimpleNamespace(results=[]))), meter, provider="cohere")

    reranker.compress_documents(DOCUMENTS, "q")

    assert meter.history()[0].estimated
    assert meter.history()[0].usage.units == {"rerank_searches": 1}


def test_no_documents_are_no_search(meter: Meter) -> None:
    assert list(MeteredCompressor(Shorten(), meter).compress_documents([], "q")) == []
    assert list(asyncio.run(MeteredCompressor(Shorten(), meter).acompress_documents([], "q"))) == []
    assert meter.usage.requests == 0


def test_a_refused_search_is_an_error_that_bills_nothing(meter: Meter) -> None:
    class TooMany(Exception):
        status_code = 429

    reranker = MeteredCompressor(Rerank(client=Client(TooMany())), meter, provider="cohere")

    with pytest.raises(TooMany):
        reranker.compress_documents(DOCUMENTS, "q")

    (record,) = meter.history()
    assert (record.status, record.error_type, record.billed_cost_usd) == (Status.ERROR, "TooMany", 0)


def test_a_search_that_broke_off_has_unknown_usage(meter: Meter) -> None:
    reranker = MeteredCompressor(Rerank(client=Client(RuntimeError("cut"))), meter, provider="cohere")

    with pytest.raises(RuntimeError):
        reranker.compress_documents(DOCUMENTS, "q")

    assert (meter.history()[0].usage, meter.history()[0].estimated, meter.history()[0].cost_usd) == (None, True, None)


def test_a_denied_search_is_never_sent() -> None:
    class Guard:
        @hookimpl
        def meter_admit_call(self, call: Any) -> Denial:
            return Denial("the budget is gone")

    client = Client(COHERE)

    with pytest.raises(BudgetExceeded):
        MeteredCompressor(Rerank(client=client), Meter([Guard()])).compress_documents(DOCUMENTS, "q")

    assert client.asked == []


def test_the_wrapped_reranker_stays_as_it_is(meter: Meter) -> None:
    client = Client(COHERE)
    inner = Rerank(client=client)

    MeteredCompressor(inner, meter).compress_documents(DOCUMENTS, "q")
    inner.compress_documents(DOCUMENTS, "q")

    assert inner.client is client
    assert (len(client.asked), meter.usage.requests) == (2, 1)


class Best(BaseRetriever):
    """Hands its callbacks to the reranker, as ContextualCompressionRetriever does."""

    reranker: BaseDocumentCompressor

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return list(self.reranker.compress_documents(DOCUMENTS, query, callbacks=run_manager.get_child()))


def test_inside_a_retriever_it_belongs_to_the_retriever_and_to_its_meter(meter: Meter) -> None:
    """Even where no chain is around: the reranker is handed the callbacks, though it calls none of them."""
    seen = RecordingPlugin()
    meter.register(seen)
    retriever = Best(reranker=MeteredCompressor(Rerank(client=Client(COHERE))))

    retriever.invoke("q", {"callbacks": [MeterCallback(meter)], "metadata": {"user_id": "u1"}})

    (step,) = (call for call in seen.calls if call.kind is Kind.STEP)
    assert (meter.history()[0].parent_id, meter.history()[0].user) == (step.id, "u1")


def test_inside_a_chain_it_belongs_to_the_chain(meter: Meter) -> None:
    reranker = MeteredCompressor(Rerank(client=Client(COHERE)))
    chain = RunnableLambda(lambda query: reranker.compress_documents(DOCUMENTS, query))

    chain.invoke("q", {"callbacks": [MeterCallback(meter)]})

    assert meter.history()[0].run_id == meter.history()[0].parent_id is not None


def test_the_query_is_content_only_where_somebody_asks_for_it() -> None:
    curious, incurious = RecordingPlugin(), RecordingPlugin()
    curious.wants_content = True  # type: ignore[attr-defined]

    for plugin in (curious, incurious):
        MeteredCompressor(Shorten(), Meter([plugin])).compress_documents(DOCUMENTS, "secret")

    assert (curious.calls[0].content, incurious.calls[0].content) == ("secret", None)
