"""ReplayCache: answers that were paid for, by key, with what they used."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from ..caching import CacheReport, CacheStats
from ..records import OK, UsageRecord
from ..totals import Totals
from .entries import Entry, MemoryStorage, Storage, copied, lifetime
from .flights import Flights
from .keys import CacheKeyBuilder

if TYPE_CHECKING:
    from ..meter import Clock, Meter

F = TypeVar("F", bound=Callable[..., Any])
_caches: weakref.WeakSet[ReplayCache] = weakref.WeakSet()


class ReplayCache:
    """Keeps up to `max_size` answers (0: any number) for `default_ttl` seconds each (`None` or 0: for ever).

    When there is no more room, the least recently used one goes. With `path`, they are kept in that SQLite file,
    which any number of threads and processes may share; `codec` says which answers can be written (SDKs' objects
    can). `StoreError` when the file cannot be used. With `meter`, a hit of `get` is recorded there as a replay;
    functions decorated with `replayed` name their own. Safe to share among threads and asyncio tasks.

    What comes out is a copy, so that nobody can change what others get.
    """

    key = staticmethod(CacheKeyBuilder.build)

    def __init__(
        self,
        max_size: int = 1000,
        default_ttl: float | None = 300,
        *,
        meter: Meter | None = None,
        path: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_size < 0:
            raise ValueError(f"max_size is a number of answers, or 0 for any number; got {max_size!r}")
        self.max_size = max_size
        self.default_ttl = lifetime(default_ttl)
        self.meter = meter
        self._storage: Storage
        if path is None:
            self._storage = MemoryStorage(max_size, time.monotonic if clock is None else clock.monotonic)
        else:
            from .sqlite import SqliteStorage

            self._storage = SqliteStorage(path, max_size, time.time if clock is None else _seconds(clock))
        self._flights = Flights()
        self._lock = threading.RLock()
        self._forget()
        _caches.add(self)

    # --------------------------------------------------------------------------------------------- by hand

    def get(self, key: str) -> Any:
        """A copy of the answer under `key`, or `None`. With a meter, a hit is recorded as a replay."""
        entry = self._look(key)
        if entry is None:
            self._count(misses=1)
            return None
        self._replay(entry, self.meter)
        return entry.answer

    def set(
        self, key: str, value: Any, ttl: float | None = None, *, usage: UsageRecord | Iterable[UsageRecord] = ()
    ) -> None:
        """Keep a copy of an answer, and what it used: `usage`, or the second half of an (answer, `UsageRecord`) pair.

        `ttl` is seconds, 0 for ever; `None` means `default_ttl`. What ended as an error or was denied is no answer
        and is not kept; nor is what cannot be copied or written, which is counted in the meter's health.
        """
        if isinstance(usage, UsageRecord):
            usage = (usage,)
        records = tuple(usage)
        if not records and type(value) is tuple and len(value) == 2 and type(value[1]) is UsageRecord:
            records = (value[1],)
        seconds = self.default_ttl if ttl is None else lifetime(ttl)
        if all(record.status is OK for record in records):
            try:
                self._keep(key, Entry(copied(value), records), seconds)
            except Exception as error:
                self._failed("set", error)

    def delete(self, key: str) -> bool:
        """Forget one answer; whether there was one."""
        return self._storage.delete(key)

    def close(self) -> None:
        """Close the file, if there is one. It opens again when something is asked."""
        close = getattr(self._storage, "close", None)
        if close is not None:
            close()

    def clear(self) -> None:
        """Forget all answers; the statistics begin anew."""
        self._storage.clear()
        self._forget()

    @property
    def size(self) -> int:
        """The answers that have not expired."""
        return self._storage.size()

    @property
    def stats(self) -> CacheStats:
        """A snapshot, of what was asked of this object since it was made or cleared."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._evictions)

    def report(self) -> CacheReport:
        """What was saved: a snapshot; `str()` of it is the summary."""
        with self._lock:
            return CacheReport.of(CacheStats(self._hits, self._misses, self._evictions), self._saved, self._unmetered)

    # ------------------------------------------------------------------------------------------- functions

    def replayed(self, meter: Any = None, **options: Any) -> Any:
        """Decorate a function that asks a model: the same question is asked once, and answered from here after that.

            @cache.replayed(meter, model="gpt-4o", provider="openai")
            def ask(question): return client.chat.completions.create(...)

        `meter` defaults to the cache's own, else the process's. `Replayed` lists the options.
        """
        from .functions import replayed

        if callable(meter) and not options and not hasattr(meter, "record_usage"):
            return replayed(self, None, {})(meter)
        return replayed(self, meter, options)

    # -------------------------------------------------------------------------------- for who answers from it

    def _look(self, key: str) -> Entry | None:
        try:
            return self._storage.get(key)
        except Exception as error:
            self._failed("get", error)
            return None

    def _keep(self, key: str, entry: Entry, ttl: float | None) -> None:
        evicted = self._storage.set(key, entry, ttl)
        if evicted:
            self._count(evictions=evicted)

    def _replay(
        self, entry: Entry, meter: Meter | None, duration: float | None = None, named: dict[str, Any] | None = None
    ) -> None:
        """A hit: everything that was paid for this answer happens again, for nothing."""
        records = entry.records
        if meter is not None:
            answer = entry.answer if meter.wants_content else None
            records = tuple(
                meter.replay(record, duration=duration, response=answer, **(named or {})) for record in records
            )
        else:
            records = tuple(replace(r, cached=True, cost=replace(r.cost, billed_pico=0)) for r in records)
        with self._lock:
            self._hits += 1
            self._unmetered += not records
            for record in records:
                self._saved.add(record)

    def _count(self, misses: int = 0, evictions: int = 0) -> None:
        with self._lock:
            self._misses += misses
            self._evictions += evictions

    def _forget(self) -> None:
        with self._lock:
            self._hits = self._misses = self._evictions = self._unmetered = 0
            self._saved = Totals()

    def _failed(self, step: str, error: BaseException, meter: Meter | None = None) -> None:
        """Ours, not the user's: counted in a meter's health, and the run goes on as if there were no cache."""
        meter = meter or self.meter
        if meter is None:
            from ..meter import default_meter

            meter = default_meter()
        meter.plugins.failed("ReplayCache", step, error)
        if meter.plugins.strict:
            raise error

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        after_fork = getattr(self._storage, "after_fork", None)
        if after_fork is not None:
            after_fork()


def _seconds(clock: Clock) -> Callable[[], float]:
    return lambda: clock.now().timestamp()


def _after_fork() -> None:
    for cache in list(_caches):
        cache._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
