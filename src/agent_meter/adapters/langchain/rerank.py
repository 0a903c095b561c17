"""MeteredCompressor: rerankers get callbacks from LangChain and call none of them, so what meters them is around them.

This adapter can refuse a call: a denied rerank is never asked for, and the caller sees `BudgetExceeded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, PrivateAttr

from ...meter import Meter
from ...records import Call, FrozenMap, Kind, Model, TokenUsage
from .services import Service, model_of

SEARCH = 100  # documents that one search may rank: Cohere's, Amazon's and Google's search units are all of this size


class MeteredCompressor(BaseDocumentCompressor):
    """A reranker that is metered: `MeteredCompressor(CohereRerank(model="rerank-v3.5"), meter)`.

    For services that are billed by the search or by the token. What they bill is taken from the client's answer where
    it is there (Cohere, Voyage), else one search for every 100 documents is assumed and flagged. A compressor that
    asks a chat model is metered by `MeterCallback` already: leave it as it is.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseDocumentCompressor
    _meter: Meter | None = PrivateAttr(None)
    _model: Model = PrivateAttr()

    def __init__(
        self,
        inner: BaseDocumentCompressor,
        meter: Meter | None = None,
        *,
        model: str | None = None,
        provider: str | None = None,
    ) -> None:
        fields: dict[str, Any] = {"inner": inner}
        super().__init__(**fields)
        self._meter = meter
        self._model = model_of(inner, model, provider)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        if not documents:  # nothing is sent
            return self.inner.compress_documents(documents, query, callbacks)
        with self._call(documents, query, callbacks) as inner:
            return inner.compress_documents(documents, query, callbacks)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        if not documents:
            return await self.inner.acompress_documents(documents, query, callbacks)
        with self._call(documents, query, callbacks) as inner:
            return await inner.acompress_documents(documents, query, callbacks)

    def _call(self, documents: Sequence[Document], query: str, callbacks: Any) -> _Rerank:
        return _Rerank(self.inner, self._model, self._meter, callbacks, len(documents), query)


class _Rerank(Service[BaseDocumentCompressor]):
    kind = Kind.RERANK
    api = "rerank"
    methods = ("rerank",)

    def __init__(
        self,
        inner: BaseDocumentCompressor,
        model: Model,
        meter: Meter | None,
        callbacks: Any,
        documents: int,
        query: str,
    ) -> None:
        super().__init__(inner, model, meter, callbacks)
        self._documents = documents
        self._query = query

    def prepare(self, call: Call, meter: Meter) -> None:
        if meter.wants_content:
            call.content = self._query

    def guess(self) -> TokenUsage:
        searches = -(-self._documents // SEARCH)
        return TokenUsage(units=FrozenMap({"rerank_searches": searches}), missing=("rerank_searches",))

    def tells(self, usage: TokenUsage) -> bool:
        return bool(usage.units or usage.input_tokens)
