"""Every engine keeps the same promises."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.budgets.reference import Reference

from agent_meter.budgets import Change, Count, Engine, Entry
from agent_meter.testing import FakeClock

FAR = 1 << 62
HOUR = 3_600_000


def entry(key: str = "k", amount: int = 10, limit: int | None = 100, slot: int = 0, since: int = 0) -> Entry:
    return Entry(key, slot, since, FAR, amount, limit)


def later(engine: Engine) -> int:
    return engine.now() + HOUR


def test_what_is_held_counts_until_it_is_settled(make_engine: Any) -> None:
    engine = make_engine()

    assert engine.reserve("a", [entry(amount=60)], later(engine)) is None
    assert engine.read("k", 0)[:2] == (0, 60)
    assert engine.reserve("b", [entry(amount=60)], later(engine))[:3] == (0, 0, 60)
    assert engine.settle("a", [25]) == [Change(0, 25)]
    assert engine.read("k", 0)[:2] == (25, 0)
    assert engine.reserve("b", [entry(amount=60)], later(engine)) is None


def test_a_limit_can_be_used_to_the_last_unit(make_engine: Any) -> None:
    engine = make_engine()

    assert engine.reserve("a", [entry(amount=100)], later(engine)) is None
    assert engine.reserve("b", [entry(amount=1)], later(engine)) is not None
    assert engine.reserve("c", [entry(amount=0)], later(engine)) is None


def test_a_limit_of_zero_allows_nothing_not_even_nothing(make_engine: Any) -> None:
    assert make_engine().reserve("a", [entry(amount=0, limit=0)], FAR) is not None


def test_all_counters_are_held_or_none_and_the_tightest_is_named(make_engine: Any) -> None:
    engine = make_engine()
    engine.add([entry("wide", 50), entry("tight", 95)])

    refusal = engine.reserve("a", [entry("wide", 60), entry("tight", 60), entry("free", 60)], later(engine))

    assert (refusal.position, refusal.used, refusal.reserved) == (1, 95, 0)
    assert [engine.read(key, 0)[1] for key in ("wide", "tight", "free")] == [0, 0, 0]


def test_a_second_settle_changes_nothing(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("a", [entry(amount=10)], later(engine))

    assert engine.settle("a", [7]) is not None
    assert engine.settle("a", [7]) is None
    assert engine.settle("never held", [7]) is None
    assert engine.read("k", 0)[:2] == (7, 0)


def test_the_same_hold_twice_holds_once(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("a", [entry(amount=60)], later(engine))

    assert engine.reserve("a", [entry(amount=60)], later(engine)) is None
    assert engine.read("k", 0)[:2] == (0, 60)


def test_expiry_charges_what_was_held_and_a_late_settle_corrects_it_once(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("dead", [entry(amount=60), entry("other", 5)], engine.now() - 1)
    engine.reserve("alive", [entry(amount=10)], later(engine))

    assert engine.expire() == ["dead"]
    assert engine.expire() == []
    assert engine.read("k", 0)[:2] == (60, 10)
    assert engine.settle("dead", [20, 1]) is not None
    assert engine.settle("dead", [20, 1]) is None
    assert engine.read("k", 0)[:2] == (20, 10)
    assert engine.read("other", 0)[:2] == (1, 0)


def test_a_hold_that_is_extended_does_not_expire(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("a", [entry()], engine.now() - 1)

    engine.extend(["a", "unknown"], later(engine))

    assert engine.expire() == []


def test_settling_more_than_was_held_counts_it_all_and_the_next_is_refused(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("a", [entry(amount=10)], later(engine))

    assert engine.settle("a", [150]) == [Change(0, 150)]
    assert engine.reserve("b", [entry(amount=1)], later(engine))[:3] == (0, 150, 0)


def test_slots_from_since_on_count_together_and_older_ones_do_not(make_engine: Any) -> None:
    engine = make_engine()
    for slot, amount in ((10, 40), (20, 30), (30, 20)):
        engine.add([entry(amount=amount, slot=slot)])

    assert engine.read("k", 20) == Count(50, 0, 20)
    assert engine.reserve("a", [entry(amount=51, slot=30, since=20)], later(engine)) is not None
    assert engine.reserve("a", [entry(amount=50, slot=30, since=20)], later(engine)) is None


def test_a_correction_never_makes_what_was_used_negative(make_engine: Any) -> None:
    engine = make_engine()

    engine.add([entry(amount=5), entry(amount=-9)])

    assert engine.read("k", 0)[:2] == (0, 0)


def test_forgetting_leaves_what_is_held(make_engine: Any) -> None:
    engine = make_engine()
    engine.add([entry(amount=70)])
    engine.reserve("a", [entry(amount=30)], later(engine))

    engine.forget("k")

    assert engine.read("k", 0)[:2] == (0, 30)
    assert engine.keys("") == ["k"]


def test_what_had_been_reached_before_is_not_reached_again(make_engine: Any) -> None:
    engine = make_engine()
    engine.reserve("a", [entry(amount=80)], engine.now() - 1)
    engine.expire()
    engine.settle("a", [10])

    assert engine.add([entry(amount=60)]) == [Change(80, 70)]


def test_money_beyond_a_doubles_precision_is_exact(make_engine: Any) -> None:
    engine = make_engine()
    most = 9_000_000 * 10**12
    engine.add([entry(amount=most - 3)])

    assert engine.reserve("a", [entry(amount=4, limit=most)], later(engine)) is not None
    assert engine.reserve("a", [entry(amount=3, limit=most)], later(engine)) is None
    assert engine.settle("a", [2]) == [Change(most - 3, most - 1)]


@pytest.mark.timeout(120)
def test_thirty_two_threads_never_pass_any_of_five_limits(make_engine: Any, engine_name: str) -> None:
    engine = make_engine()
    limits = {"global": 10_000, "day": 50_000, "agent": 60_000, "user": 70_000, "model": 80_000}
    calls, spent, worst = 15 if engine_name.startswith("postgres") else 60, [0] * 32, []
    start = threading.Barrier(32)

    def work(number: int) -> None:
        chance = random.Random(number)
        start.wait()
        for index in range(calls):
            entries = [entry(key, 100, limit) for key, limit in limits.items()]
            if engine.reserve(f"{number}-{index}", entries, later(engine)) is None:
                count = engine.read("global", 0)
                worst.append(count.used + count.reserved)
                actual = chance.randint(1, 100)
                assert engine.settle(f"{number}-{index}", [actual] * 5) is not None
                spent[number] += actual

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert engine.read("global", 0)[:2] == (sum(spent), 0)
    assert max(worst) <= limits["global"]
    assert limits["global"] - 100 < sum(spent) <= limits["global"]


# ---------------------------------------------------------------------------------------- against the reference

KEYS = st.sampled_from(["a", "b", "c"])
AMOUNTS = st.integers(0, 60)


class Machine(RuleBasedStateMachine):
    """Reserve, settle, release, extend, expire and crash in any order: the engine is what the reference is."""

    make: Any = None

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.engine = type(self).make(self.clock)
        self.space = f"{id(self)}-{self.engine.now()}-{random.random()}-"
        self.model = Reference()
        self.ids: list[str] = []
        self.start = self.now()

    def now(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def entries(self, wanted: dict[str, tuple[int, int]]) -> list[Entry]:
        slot = (self.now() - self.start) // 20_000
        return [
            Entry(self.space + key, slot, max(0, slot - 2), FAR, amount, limit or None)
            for key, (amount, limit) in wanted.items()
        ]

    @rule(wanted=st.dictionaries(KEYS, st.tuples(AMOUNTS, st.integers(0, 200)), min_size=1), ttl=st.integers(1, 60))
    def reserve(self, wanted: dict[str, tuple[int, int]], ttl: int) -> None:
        hold, entries = f"{self.space}{len(self.ids)}", self.entries(wanted)
        self.ids.append(hold)
        expires = self.now() + ttl * 1000

        refusal = self.engine.reserve(hold, entries, expires)

        assert (refusal is None) is self.model.reserve(hold, entries, expires)
        if refusal is not None:
            e = entries[refusal.position]
            assert (refusal.used, refusal.reserved) == self.model.sums(e.key, e.since)
            assert e.limit is not None
            assert refusal.used + refusal.reserved + e.amount > e.limit

    @rule(which=st.integers(0, 30), amounts=st.lists(AMOUNTS, min_size=3, max_size=3), final=st.booleans())
    def settle(self, which: int, amounts: list[int], final: bool) -> None:
        if which >= len(self.ids):
            return
        hold = self.ids[which]
        known = self.model.holds.get(hold)
        amounts = amounts[: len(known[0])] if known else amounts

        changes = self.engine.settle(hold, amounts, final=final)

        expected = self.model.settle(hold, amounts, final)
        assert (None if changes is None else [tuple(change) for change in changes]) == expected

    @rule(wanted=st.dictionaries(KEYS, st.tuples(st.integers(-20, 60), st.just(0)), min_size=1))
    def add(self, wanted: dict[str, tuple[int, int]]) -> None:
        entries = self.entries(wanted)

        changes = self.engine.add(entries)

        assert [tuple(change) for change in changes] == [self.model._move(e, e.amount, 0) for e in entries]

    @rule(which=st.integers(0, 30), seconds=st.integers(1, 60))
    def extend(self, which: int, seconds: int) -> None:
        if which < len(self.ids) and self.ids[which] in self.model.holds:
            self.engine.extend([self.ids[which]], self.now() + seconds * 1000)
            self.model.extend(self.ids[which], self.now() + seconds * 1000)

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def expire(self) -> None:
        assert self.engine.expire() == self.model.expire(self.now())

    @invariant()
    def counters_are_equal(self) -> None:
        if not hasattr(self, "engine"):
            return
        slot = (self.now() - self.start) // 20_000
        for key in "abc":
            for since in (0, max(0, slot - 2)):
                assert self.engine.read(self.space + key, since)[:2] == self.model.sums(self.space + key, since)


def check_against_the_reference(make_engine: Any, examples: int, steps: int) -> None:
    class Bound(Machine):
        make = staticmethod(make_engine)

    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )  # fmt: skip


def test_it_does_what_the_reference_does(make_engine: Any, engine_name: str) -> None:
    examples, steps = {"memory": (60, 40), "sqlite": (25, 30)}.get(engine_name, (6, 25))
    check_against_the_reference(make_engine, examples, steps)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_it_does_what_the_reference_does_in_ten_thousand_sequences(make_engine: Any, engine_name: str) -> None:
    check_against_the_reference(make_engine, 10_000 if engine_name == "memory" else 500, 50)
