"""An embedding model's cache, watched: no event of LlamaIndex's tells a hit from a miss.

A hit costs nothing and passes a used-up budget; so where there is a cache, guards are asked at the first miss. The rate
limiter would be too early for batches, which are all limited before the cache is asked, or not at all (async ones).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore
from llama_index_instrumentation.span import active_span_id

from . import gate
from .touched import Touched

# Who is told of hits, with the span and the text. Replaced as a whole: it is read without a lock.
ears: tuple[Callable[[str | None, str], None], ...] = ()
_probed = Touched()


def _inner(cache: Any) -> Any:
    return cache


class Probe(BaseKVStore):
    """Stands for the user's cache; copies and pickles of a model get that one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return _inner, (self.inner,)

    def __bool__(self) -> bool:
        return bool(self.inner)  # LlamaIndex asks

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> Any:
        found = self.inner.get(key, collection=collection)
        if found is None:
            for guard in gate.guards:
                guard.missed(active_span_id.get())
        return _seen(key, found)

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> Any:
        found = await self.inner.aget(key, collection=collection)
        if found is None:
            for guard in gate.guards:
                await guard.amissed(active_span_id.get())
        return _seen(key, found)

    def put(self, *args: Any, **kwargs: Any) -> None:
        self.inner.put(*args, **kwargs)

    async def aput(self, *args: Any, **kwargs: Any) -> None:
        await self.inner.aput(*args, **kwargs)

    def put_all(self, *args: Any, **kwargs: Any) -> None:
        self.inner.put_all(*args, **kwargs)

    async def aput_all(self, *args: Any, **kwargs: Any) -> None:
        await self.inner.aput_all(*args, **kwargs)

    def get_all(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.get_all(*args, **kwargs)

    async def aget_all(self, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.aget_all(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self.inner.delete(*args, **kwargs))

    async def adelete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(await self.inner.adelete(*args, **kwargs))


def _seen(key: str, found: Any) -> Any:
    if found is not None:
        span_id = active_span_id.get()
        for ear in ears:
            ear(span_id, key)
    return found


def watches(instance: Any) -> bool:
    """Whether there is a cache, and whoever asks it is heard."""
    cache = getattr(instance, "embeddings_cache", None)
    return type(cache) is Probe and bool(cache)


def attach(instance: Any) -> None:
    cache = getattr(instance, "embeddings_cache", None)
    if cache is None or type(cache) is Probe:
        return
    with suppress(AttributeError, TypeError, ValueError):
        instance.embeddings_cache = Probe(cache)
        _probed.add(instance)


def detach_all() -> None:
    """Give every model its own cache back."""
    for instance, _ in _probed.take():
        cache = instance.embeddings_cache
        if type(cache) is Probe:
            with suppress(AttributeError, TypeError, ValueError):
                instance.embeddings_cache = cache.inner
