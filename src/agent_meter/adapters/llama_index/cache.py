"""MeteredEmbeddingCache: vectors that a cache gives again are replays, with a list price and nothing to pay.

This adapter refuses nothing. LlamaIndex fires the same events for a vector from the cache as for one that was asked,
and keys its cache by the text alone. A wrapped cache tells the two apart, remembers what was paid for, and gives no
model the vectors of another one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from llama_index.core.storage.kvstore.types import DEFAULT_BATCH_SIZE, DEFAULT_COLLECTION, BaseKVStore

from ...caching import CacheReport, CacheStats
from ...hookspecs import hookimpl
from ...meter import Meter, default_meter
from ...records import EMBEDDING, OK, Record, TokenUsage, UsageRecord
from ...tokens import estimate_tokens
from ...totals import Totals

PAID = "agent_meter_paid"  # beside the vector, in the same value: LlamaIndex reads the first key alone
EMBEDDINGS = "embeddings"  # the collection that embedding models use; others pass through
_PLUGIN = "LlamaIndex embedding cache"
_MOST = 2048  # texts of one batch, which is what LlamaIndex allows

_Kept = tuple["MeteredEmbeddingCache", str, str, dict[str, Any]]  # cache, collection, text, value
# The texts that this context has kept since the last embedding was recorded: that record is what was paid for them.
_unpaid: ContextVar[deque[_Kept] | None] = ContextVar("agent_meter_unpaid", default=None)
_registering = threading.Lock()


class MeteredEmbeddingCache(BaseKVStore):
    """Any key-value store as an embedding cache, metered: `OpenAIEmbedding(embeddings_cache=MeteredEmbeddingCache(…))`.

    `model` and `provider` are those of the embedding model; a vector that was kept for another model is a miss.
    Hits go to `meter`, else to the process's. Their tokens are those of the paid call where the meter saw it (shared
    among the texts of a batch, so that the shares add up), else estimated and flagged.
    """

    meters_hits = True  # `MeterHandler` leaves them to this cache

    def __init__(self, inner: BaseKVStore, meter: Meter | None = None, *, model: str = "", provider: str = "") -> None:
        self.inner = inner
        self.model, self.provider = model, provider
        self._meter = meter
        self._lock = threading.RLock()
        self.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        # A meter stays in its process; elsewhere it is that process's own.
        return _wrapped, (self.inner, self.model, self.provider)

    def __deepcopy__(self, memo: dict[int, Any]) -> MeteredEmbeddingCache:
        # Embedding models are copied freely; the vectors, and what is counted, are shared.
        return self

    @property
    def meter(self) -> Meter:
        return self._meter or default_meter()

    @property
    def stats(self) -> CacheStats:
        """A snapshot, since the cache was made or `reset`."""
        with self._lock:
            return CacheStats(self._hits, self._misses)

    def report(self) -> CacheReport:
        """What was saved: a snapshot; `str()` of it is the summary."""
        with self._lock:
            return CacheReport.of(CacheStats(self._hits, self._misses), self._saved)

    def reset(self) -> None:
        """Begin the statistics anew; the vectors stay."""
        with self._lock:
            self._hits = self._misses = 0
            self._saved = Totals()

    # ------------------------------------------------------------------------------------------- the store

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return self._found(key, collection, self.inner.get(key, collection=collection))

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return self._found(key, collection, await self.inner.aget(key, collection=collection))

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        self.inner.put(key, self._kept(key, val, collection), collection=collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        await self.inner.aput(key, self._kept(key, val, collection), collection=collection)

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        kept = [(key, self._kept(key, val, collection)) for key, val in kv_pairs]
        self.inner.put_all(kept, collection=collection, batch_size=batch_size)

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        kept = [(key, self._kept(key, val, collection)) for key, val in kv_pairs]
        await self.inner.aput_all(kept, collection=collection, batch_size=batch_size)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return {key: _bare(val) for key, val in self.inner.get_all(collection=collection).items()}

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return {key: _bare(val) for key, val in (await self.inner.aget_all(collection=collection)).items()}

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return self.inner.delete(key, collection=collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return await self.inner.adelete(key, collection=collection)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)  # persist and its like

    # ------------------------------------------------------------------------------------------ in and out

    def _found(self, text: str, collection: str, found: dict[str, Any] | None) -> dict[str, Any] | None:
        if collection != EMBEDDINGS:
            return None if found is None else _bare(found)
        paid = found.get(PAID) if found is not None else None
        if paid is not None and self.model and paid.get("model") and paid["model"] != self.model:
            found = None
        with self._lock:
            self._hits += found is not None
            self._misses += found is None
        if found is None:
            return None
        try:
            self._replay(text, paid or {})
        except Exception as error:
            self._failed("get", error)
        return _bare(found)

    def _replay(self, text: str, paid: Mapping[str, Any]) -> None:
        model, tokens = str(paid.get("model") or self.model), paid.get("tokens")
        known = isinstance(tokens, int)
        record = self.meter.record_usage(
            model=model,
            provider=str(paid.get("provider") or self.provider),
            kind=EMBEDDING,
            input_tokens=int(tokens or 0) if known else estimate_tokens(text, model),
            missing=() if known else ("input_tokens",),
            cached=True,
        )
        with self._lock:
            self._saved.add(record)

    def _kept(self, text: str, val: dict[str, Any], collection: str) -> dict[str, Any]:
        if collection != EMBEDDINGS:
            return val
        val = {**val, PAID: {"model": self.model, "provider": self.provider}}
        try:
            _listen(self.meter)
            unpaid = _unpaid.get()
            if unpaid is None:
                unpaid = deque(maxlen=_MOST)
                _unpaid.set(unpaid)
            unpaid.append((self, collection, text, val))
        except Exception as error:
            self._failed("put", error)
        return val

    def paid_for(self, text: str, collection: str, val: dict[str, Any], record: UsageRecord, tokens: int) -> None:
        paid = {
            "model": self.model or record.request_model,
            "provider": self.provider or record.provider,
            "tokens": tokens,
        }
        self.inner.put(text, {**val, PAID: paid}, collection=collection)

    def _failed(self, step: str, error: Exception) -> None:
        plugins = self.meter.plugins
        plugins.failed("MeteredEmbeddingCache", step, error)
        if plugins.strict:
            raise error


class _Listener:
    """Hears what was paid for the texts that were kept a moment before."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        unpaid = _unpaid.get()
        if not unpaid or type(record) is not UsageRecord or record.kind is not EMBEDDING or record.cached:
            return
        mine = [kept for kept in unpaid if kept[0].meter is self._meter]
        if not mine:
            return
        for kept in mine:
            unpaid.remove(kept)
        usage = record.usage
        if record.status is OK and usage is not None and not record.estimated:
            for (cache, collection, text, val), tokens in zip(mine, _shares(usage, mine, record), strict=True):
                cache.paid_for(text, collection, val, record, tokens)


def _shares(usage: TokenUsage, kept: Sequence[_Kept], record: UsageRecord) -> list[int]:
    """A batch's tokens, shared among its texts by their length; the shares add up to the batch."""
    sizes = [max(1, estimate_tokens(text, record.model)) for _, _, text, _ in kept]
    total, whole = usage.input_tokens, sum(sizes)
    shares = [total * size // whole for size in sizes]
    for position in range(total - sum(shares)):
        shares[position] += 1
    return shares


def _listen(meter: Meter) -> None:
    with _registering:
        if _PLUGIN not in meter.plugins.names():
            meter.register(_Listener(meter), _PLUGIN)


def _bare(val: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in val.items() if name != PAID}


def _wrapped(inner: BaseKVStore, model: str, provider: str) -> MeteredEmbeddingCache:
    return MeteredEmbeddingCache(inner, model=model, provider=provider)
