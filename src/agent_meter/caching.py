"""What a cache of answers has done: the same numbers whichever framework's cache it is."""

from __future__ import annotations

import msgspec


class CacheStats(msgspec.Struct, frozen=True):
    """A snapshot. `evictions` are entries that were thrown out for room, where the cache tells of them."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0

    @property
    def total_requests(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits in all requests, 0 to 1; 0 where nothing was asked."""
        return self.hits / self.total_requests if self.total_requests else 0.0

    def __repr__(self) -> str:
        return (
            f"CacheStats(hits={self.hits}, misses={self.misses}, evictions={self.evictions}, "
            f"hit_rate={self.hit_rate:.2%})"
        )
