"""ReplayCache by hand: what it keeps, for how long, and what it says of itself."""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_meter import CacheStats, Meter, ReplayCache, UsageRecord
from agent_meter.records import Status
from agent_meter.testing import FakeClock


def paid(meter: Meter | None = None, **more: Any) -> UsageRecord:
    return (meter or Meter()).record_usage(model="gpt-4o", input_tokens=1000, output_tokens=100, **more)


def test_an_answer_comes_back_and_both_looks_are_counted() -> None:
    cache = ReplayCache()

    before = cache.get("k")
    cache.set("k", "an answer")

    assert (before, cache.get("k")) == (None, "an answer")
    assert cache.stats == CacheStats(hits=1, misses=1, evictions=0)
    assert (cache.stats.total_requests, cache.stats.hit_rate) == (2, 0.5)


def test_the_least_recently_used_goes_first() -> None:
    cache = ReplayCache(max_size=2)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.get("a")
    cache.set("c", 3)

    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    assert (cache.size, cache.stats.evictions) == (2, 1)


def test_answers_expire_at_their_time_to_live_and_that_is_no_eviction() -> None:
    clock = FakeClock()
    cache = ReplayCache(default_ttl=10, clock=clock)
    cache.set("short", 1, ttl=5)
    cache.set("plain", 2)
    cache.set("for ever", 3, ttl=0)
    clock.advance(5)
    after_five = [cache.get(key) for key in ("short", "plain", "for ever")]
    clock.advance(5)
    after_ten = [cache.get(key) for key in ("plain", "for ever")]

    assert (after_five, after_ten) == ([None, 2, 3], [None, 3])
    assert (cache.size, cache.stats) == (1, CacheStats(3, 2, 0))


def test_a_cache_of_size_0_has_no_limit_and_a_ttl_of_none_no_end() -> None:
    clock = FakeClock()
    cache = ReplayCache(max_size=0, default_ttl=None, clock=clock)
    for number in range(2000):
        cache.set(str(number), number)
    clock.advance(10**9)

    assert (cache.size, cache.get("0")) == (2000, 0)


def test_delete_says_whether_there_was_one_and_clear_begins_anew() -> None:
    cache = ReplayCache()
    cache.set("a", 1)
    cache.set("b", 1)
    cache.get("b")

    assert (cache.delete("a"), cache.delete("a")) == (True, False)
    cache.clear()
    assert (cache.size, cache.stats) == (0, CacheStats())


@pytest.mark.parametrize("options", [{"max_size": -1}, {"default_ttl": -1}, {"default_ttl": float("nan")}])
def test_sizes_and_times_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got (-1|nan)"):
        ReplayCache(**options)


def test_stats_are_a_snapshot() -> None:
    cache = ReplayCache()
    before = cache.stats
    cache.get("k")

    assert (before.misses, cache.stats.misses) == (0, 1)


def test_nobody_can_change_what_others_get() -> None:
    cache = ReplayCache()
    given_in = {"content": ["Hello"]}
    cache.set("k", given_in)
    given_in["content"].append("changed by who asked")
    cache.get("k")["content"].append("changed by who got it")

    assert cache.get("k") == {"content": ["Hello"]}


def test_what_cannot_be_copied_is_not_kept_and_counted() -> None:
    meter = Meter()
    cache = ReplayCache(meter=meter)
    cache.set("k", (piece for piece in "abc"))

    assert (cache.size, meter.health()["failures"]) == (0, {"ReplayCache": {"set": 1}})


# ---------------------------------------------------------------------------------------------- with usage


def test_a_hit_is_replayed_through_the_hooks_with_a_list_price_and_nothing_to_pay() -> None:
    meter = Meter()
    record = paid(meter, response_model="gpt-4o-2024-08-06", user="ada", tools=("search",))
    cache = ReplayCache(meter=meter)
    cache.set("k", "Hello", usage=record)
    with meter.scope(user="bob"):
        cache.get("k")
    replay = meter.history()[-1]

    assert (replay.cached, replay.usage, replay.response_model, replay.tools) == (
        True,
        record.usage,
        "gpt-4o-2024-08-06",
        ("search",),
    )
    assert (replay.cost_usd, replay.billed_cost_usd, replay.user) == (Decimal("0.0035"), 0, "bob")
    assert (meter.usage.requests, meter.usage.api_calls, meter.usage.total_tokens) == (2, 1, 2200)
    assert (meter.usage.billed_cost_usd, meter.usage.saved_cost_usd) == (Decimal("0.0035"), Decimal("0.0035"))


def test_the_pair_of_the_seed_documents_carries_its_usage() -> None:
    meter = Meter()
    cache = ReplayCache(meter=meter)
    pair = ("Hello", paid())
    cache.set("k", pair)

    assert cache.get("k") == pair
    assert [record.cached for record in meter.history()] == [True]


def test_without_a_meter_nothing_is_recorded_and_the_savings_are_known_all_the_same() -> None:
    cache = ReplayCache()
    cache.set("k", "Hello", usage=paid())
    cache.get("k")

    assert (cache.report().api_calls_saved, cache.report().saved_usd) == (1, Decimal("0.0035"))


@pytest.mark.parametrize("status", [Status.ERROR, Status.DENIED, Status.CANCELLED, Status.ABANDONED])
def test_what_was_denied_or_failed_is_not_kept(status: Status) -> None:
    cache = ReplayCache()
    cache.set("k", "no answer", usage=paid(status=status))

    assert (cache.get("k"), cache.size) == (None, 0)


def test_the_report_says_what_was_saved() -> None:
    meter = Meter()
    cache = ReplayCache(meter=meter)
    cache.set("llm", "Hello", usage=[paid(), paid()])
    cache.set("vector", [0.1], usage=paid(kind="embedding"))
    cache.set("own", "Hi", usage=meter.record_usage(model="our-own", input_tokens=10))
    cache.set("unknown", "Hi")
    for key in ("llm", "vector", "own", "unknown", "none"):
        cache.get(key)
    report = cache.report()

    assert (report.hits, report.misses, report.hit_rate) == (4, 1, 0.8)
    assert (report.api_calls_saved, report.tokens_saved, report.unpriced_calls) == (5, 3210, 2)
    assert str(report) == (
        "Cache: 4 hits, 1 misses (80.0%), 0 evictions\n"
        "  - API calls saved: 5\n"
        "  - Tokens saved: 3,210 (2,010 in, 200 out, 1,000 embedded; 1 call estimated)\n"
        "  - Money saved: ≥ $0.010500, 2 calls unpriced"
    )


# ------------------------------------------------------------------------------------------ any sequence

KEYS = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("set"), KEYS, st.sampled_from([None, 0, 1, 3])),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("wait"), st.sampled_from([1, 2])),
        st.tuples(st.just("clear")),
    ),
    max_size=40,
)


class Reference:
    """LRU and TTL in the plainest words."""

    def __init__(self, max_size: int, default_ttl: int) -> None:
        self.max_size, self.default_ttl, self.now = max_size, default_ttl, 0
        self.entries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # value, expires
        self.stats = [0, 0, 0]

    def live(self, key: str) -> bool:
        return key in self.entries and self.now < self.entries[key][1]

    def get(self, key: str) -> int | None:
        live = self.live(key)
        self.stats[not live] += 1
        if not live:
            self.entries.pop(key, None)
            return None
        self.entries.move_to_end(key)
        return self.entries[key][0]

    def set(self, key: str, value: int, ttl: int | None) -> None:
        ttl = self.default_ttl if ttl is None else ttl
        self.entries = OrderedDict((k, entry) for k, entry in self.entries.items() if self.now < entry[1])
        self.entries[key] = value, self.now + ttl if ttl else float("inf")
        self.entries.move_to_end(key)
        if self.max_size and len(self.entries) > self.max_size:
            del self.entries[next(iter(self.entries))]
            self.stats[2] += 1


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "answers.db"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, max_size=st.integers(0, 3), default_ttl=st.sampled_from([0, 2]))
def test_it_is_an_lru_and_ttl_cache_whatever_is_done_with_it(
    path: Path | None, steps: Any, max_size: int, default_ttl: int
) -> None:
    clock = FakeClock()
    cache = ReplayCache(max_size, default_ttl, path=path, clock=clock)
    cache.clear()
    reference = Reference(max_size, default_ttl)
    for number, (step, *rest) in enumerate(steps):
        if step == "get":
            assert cache.get(*rest) == reference.get(*rest)
        elif step == "set":
            cache.set(rest[0], number, rest[1])
            reference.set(rest[0], number, rest[1])
        elif step == "delete":
            live = reference.live(rest[0])
            reference.entries.pop(rest[0], None)
            assert cache.delete(rest[0]) is live
        elif step == "wait":
            clock.advance(rest[0])
            reference.now += rest[0]
        else:
            cache.clear()
            reference.entries.clear()
            reference.stats = [0, 0, 0]
        assert cache.stats == CacheStats(*reference.stats)
    assert cache.size == sum(reference.live(key) for key in reference.entries)
    cache.close()
