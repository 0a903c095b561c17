"""Answers that were paid for, given again: the stored usage is replayed as a cached call, with nothing to pay.

cache = ReplayCache(max_size=500, default_ttl=600)

@cache.replayed(meter, model="gpt-4o")
def ask(question):
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}])
"""

from __future__ import annotations

from ..caching import CacheReport, CacheStats
from .cache import ReplayCache
from .keys import CacheKeyBuilder

__all__ = ["CacheKeyBuilder", "CacheReport", "CacheStats", "ReplayCache"]
