"""What a cache of answers has done: the same numbers whichever framework's cache it is."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from .records import dollars

if TYPE_CHECKING:
    from .totals import Totals


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


class CacheReport(msgspec.Struct, frozen=True):
    """What a cache has saved, at list prices.

    `api_calls_saved` are the model calls that were replayed: an answer that took two of them saves two. Money is a
    lower bound while `unpriced_calls` is not 0; of `estimated_calls`, not all tokens were seen.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    api_calls_saved: int = 0
    input_tokens_saved: int = 0
    output_tokens_saved: int = 0
    embedding_tokens_saved: int = 0
    saved_pico: int = 0
    unpriced_calls: int = 0
    estimated_calls: int = 0

    @classmethod
    def of(cls, stats: CacheStats, replays: Totals, unmetered: int = 0) -> CacheReport:
        """`replays` are the sums of all replayed calls; `unmetered` those of which no usage is known."""
        return cls(
            stats.hits,
            stats.misses,
            stats.evictions,
            replays.requests + unmetered,
            replays.input_tokens,
            replays.output_tokens,
            replays.embedding_tokens,
            replays.saved_pico,
            replays.unpriced_requests + replays.partial_requests + unmetered,
            replays.estimated_requests + unmetered,
        )

    @property
    def stats(self) -> CacheStats:
        return CacheStats(self.hits, self.misses, self.evictions)

    @property
    def total_requests(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """0 to 1."""
        return self.stats.hit_rate

    @property
    def tokens_saved(self) -> int:
        """Input, output and embedding tokens."""
        return self.input_tokens_saved + self.output_tokens_saved + self.embedding_tokens_saved

    @property
    def saved_usd(self) -> Decimal:
        """US dollars that were not owed, at list prices."""
        return dollars(self.saved_pico)

    def __str__(self) -> str:
        from .usage import money

        embedded = f", {self.embedding_tokens_saved:,} embedded" if self.embedding_tokens_saved else ""
        estimated = f"; {_calls(self.estimated_calls)} estimated" if self.estimated_calls else ""
        bound, unpriced = ("≥ ", f", {_calls(self.unpriced_calls)} unpriced") if self.unpriced_calls else ("", "")
        lines = [
            f"Cache: {self.hits:,} hits, {self.misses:,} misses ({self.hit_rate:.1%}), {self.evictions:,} evictions",
            f"  - API calls saved: {self.api_calls_saved:,}",
            f"  - Tokens saved: {self.tokens_saved:,} "
            f"({self.input_tokens_saved:,} in, {self.output_tokens_saved:,} out{embedded}{estimated})",
            f"  - Money saved: {bound}{money(self.saved_pico)}{unpriced}",
        ]
        return "\n".join(lines)


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"
