"""MeteredEmbeddings: LangChain's embeddings fire no events, so what meters them stands around them.

This adapter can refuse a call: a denied embedding is never asked for, and the caller sees `BudgetExceeded`.
"""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings

from ...meter import Meter
from ...records import Call, Kind, Model, Reserve, TokenUsage
from ...tokens import estimate_tokens
from ...tokens.estimate import ERROR
from .services import Service, model_of


class MeteredEmbeddings(Embeddings):
    """Embeddings that are metered: `MeteredEmbeddings(OpenAIEmbeddings(model="text-embedding-3-small"), meter)`.

    Tokens are the provider's own where its client tells them (OpenAI, Azure and those who use OpenAI's client;
    Cohere, Ollama), else estimated and flagged. Put it inside a `CacheBackedEmbeddings`, so that only what is really
    sent is counted. Without a meter it is the one that is attached to the chain around the call, else the
    process's. `model` and `provider` name what prices it where the wrapper itself does not.
    """

    def __init__(
        self, inner: Embeddings, meter: Meter | None = None, *, model: str | None = None, provider: str | None = None
    ) -> None:
        self.inner = inner
        self._meter = meter
        self._model = model_of(inner, model, provider)

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"MeteredEmbeddings({self.inner!r})"

    def embed_documents(self, texts: list[str], *args: Any, **kwargs: Any) -> list[list[float]]:
        if not texts:  # nothing is sent
            return self.inner.embed_documents(texts, *args, **kwargs)
        with self._call(texts) as inner:
            return inner.embed_documents(texts, *args, **kwargs)

    async def aembed_documents(self, texts: list[str], *args: Any, **kwargs: Any) -> list[list[float]]:
        if not texts:
            return await self.inner.aembed_documents(texts, *args, **kwargs)
        with self._call(texts) as inner:
            return await inner.aembed_documents(texts, *args, **kwargs)

    def embed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        with self._call([text]) as inner:
            return inner.embed_query(text, *args, **kwargs)

    async def aembed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        with self._call([text]) as inner:
            return await inner.aembed_query(text, *args, **kwargs)

    def _call(self, texts: list[str]) -> _Embedding:
        return _Embedding(self.inner, self._model, self._meter, texts)


class _Embedding(Service[Embeddings]):
    kind = Kind.EMBEDDING
    api = "openai.embeddings"
    methods = ("create", "embed")

    def __init__(self, inner: Embeddings, model: Model, meter: Meter | None, texts: list[str]) -> None:
        super().__init__(inner, model, meter)
        self._texts = texts

    def prepare(self, call: Call, meter: Meter) -> None:
        if meter.wants_content:
            call.content = self._texts
        if meter.plugins.guarded:
            call.reserve = Reserve(round(self._tokens() * (1 + ERROR)), 0)

    def guess(self) -> TokenUsage:
        return TokenUsage(self._tokens(), missing=("input_tokens",))

    def _tokens(self) -> int:
        return sum(estimate_tokens(text, self._model.name) for text in self._texts)

    def tells(self, usage: TokenUsage) -> bool:
        return "input_tokens" not in usage.missing and usage.input_tokens > 0
