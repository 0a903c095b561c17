"""MeteredCache: answers that LangChain's LLM cache gives are replays, with a list price and nothing to pay.

This adapter refuses nothing. It marks what it hands out, so that `MeterCallback` knows a hit from an answer. Text
models (`BaseLLM`) fire no event on a hit: those it records itself.
"""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.outputs import ChatGeneration, Generation

from ...caching import CacheReport, CacheStats
from ...meter import Meter
from .ambient import ambient
from .answering import HIT
from .replaying import PAID, await_answer, paid_for, record_replay
from .savings import Savings

_CHAT_PROMPT = '[{"lc":'  # how LangChain writes messages as a key; a text model's key is its prompt


class MeteredCache(BaseCache):
    """Any LangChain cache, metered: `set_llm_cache(MeteredCache(InMemoryCache()))`.

    It hands out copies, so that a hit never changes an answer that somebody has. Without a meter, replays of text
    models go to the meter that is attached around the call, else to the process's.
    """

    def __init__(self, inner: BaseCache, meter: Meter | None = None) -> None:
        self.inner = inner
        self._meter = meter
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        self._saved = Savings()

    @property
    def stats(self) -> CacheStats:
        """A snapshot, since the cache was made or cleared; evictions are those that the inner cache's `stats` tell."""
        evictions = getattr(getattr(self.inner, "stats", None), "evictions", 0)
        with self._lock:
            return CacheStats(self._hits, self._misses, evictions)

    def report(self) -> CacheReport:
        """What was saved, as far as a meter has recorded it: a snapshot; `str()` of it is the summary."""
        return self._saved.report(self.stats)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return self._found(prompt, llm_string, self.inner.lookup(prompt, llm_string))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return self._found(prompt, llm_string, await self.inner.alookup(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        self.inner.update(prompt, llm_string, self._kept(prompt, llm_string, return_val))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await self.inner.aupdate(prompt, llm_string, self._kept(prompt, llm_string, return_val))

    def clear(self, **kwargs: Any) -> None:
        self.inner.clear(**kwargs)
        self._forget()

    async def aclear(self, **kwargs: Any) -> None:
        await self.inner.aclear(**kwargs)
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            self._hits = self._misses = 0
        self._saved.reset()

    # ------------------------------------------------------------------------------------------ in and out

    def _found(self, prompt: str, llm_string: str, found: RETURN_VAL_TYPE | None) -> RETURN_VAL_TYPE | None:
        hit = isinstance(found, list)  # LangChain takes anything else for a miss
        with self._lock:
            self._hits += hit
            self._misses += not hit
        try:
            if found is None or not hit:
                if not prompt.startswith(_CHAT_PROMPT):
                    await_answer(ambient(self._meter).meter, (prompt, llm_string))
                return found
            if not prompt.startswith(_CHAT_PROMPT) and not any(isinstance(one, ChatGeneration) for one in found):
                self._saved.add(record_replay(ambient(self._meter), prompt, llm_string, found))
            return [_copy(one, {**_info(one, PAID), HIT: self._saved.number}) for one in found]
        except Exception as error:
            self._failed("lookup", error)
            return found

    def _kept(self, prompt: str, llm_string: str, answer: RETURN_VAL_TYPE) -> RETURN_VAL_TYPE:
        try:
            paid = None
            if not prompt.startswith(_CHAT_PROMPT):
                paid = paid_for((prompt, llm_string))
            return [_copy(one, {**_info(one, HIT), PAID: paid} if paid else _info(one, HIT)) for one in answer]
        except Exception as error:
            self._failed("update", error)
            return answer

    def _failed(self, step: str, error: Exception) -> None:
        plugins = ambient(self._meter).meter.plugins
        plugins.failed("MeteredCache", step, error)
        if plugins.strict:
            raise error


def _info(one: Generation, without: str) -> dict[str, Any]:
    return {key: value for key, value in (one.generation_info or {}).items() if key != without}


def _copy(one: Generation, info: dict[str, Any]) -> Generation:
    changes: dict[str, Any] = {"generation_info": info or None}
    if isinstance(one, ChatGeneration):
        changes["message"] = one.message.model_copy()
    return one.model_copy(update=changes)
