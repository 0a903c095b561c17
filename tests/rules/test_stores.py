"""Rules over a store on disk: they look at what every process recorded, and fire once among all of them."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta

import pytest

from agent_meter import Meter
from agent_meter.records import EMPTY
from agent_meter.rules import Rule, Rules
from agent_meter.rules.counters import Counters
from agent_meter.rules.reading import Reader, seeded
from agent_meter.store import open_store
from agent_meter.testing import FakeClock


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    return str(tmp_path / "meter.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def rule(condition, **options):
    return Rule.make("it", condition, **options)


def ruled(where, condition, clock=None, **options):
    meter = Meter(store=where, clock=clock)
    rules = Rules([rule(condition, **options)], interval=None)
    meter.register(rules)
    return meter, rules


def use(meter, tokens, **whose):
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=tokens, **whose)


def numbers(counters, now):
    """All that a condition can ask of counters."""
    agents = sorted(counters.agents())
    return {
        "windows": {
            (window, measure, agent): counters.used(window, measure, now, agent)
            for window in ("hourly", "daily", "weekly", "monthly")
            for measure in ("tokens", "cost", "requests")
            for agent in (None, *agents)
        },
        "hours": {at: value for at, value in counters.hours("tokens").items() if value},
        "tasks": {key: counters.used_by_task(*key, "cost") for key in sorted(counters.tasks())},
        "rest": (counters.unpriced, counters.denied),
    }


def test_what_rollups_say_is_what_the_records_say(where):
    """A restart changes no number."""
    clock = FakeClock()
    with Meter(store=where, clock=clock) as meter:
        for step in range(40):
            use(meter, 100 + step, agent=("a", "b", "")[step % 3], task=f"t{step % 4}")
            if step % 7 == 0:
                meter.record_usage(model="text-embedding-3-small", provider="openai", input_tokens=9, kind="embedding")
                meter.record_usage(model="acme-1", provider="acme", input_tokens=5, agent="a")
                meter.record_usage(model="gpt-4o", provider="openai", input_tokens=5, cached=True, agent="a")
            clock.advance(1_700)
        meter.flush()
        now = meter.now()
        counted = Counters()
        records, _ = meter.store.changes(0, 10_000)
        for record in records:
            counted.add(record)

        assert numbers(seeded(meter.store, now), now) == numbers(counted, now)


def test_a_record_is_counted_once_whether_it_came_before_or_after(where):
    with Meter(store=where) as meter, meter.scope(agent="a"):
        use(meter, 10)
        meter.flush()
        reader = Reader(meter.store)
        now = meter.now()
        assert reader.counters(now).used("daily", "tokens", now) == 10
        use(meter, 5)
        meter.flush()

        assert reader.counters(now).used("daily", "tokens", now) == 15
        assert reader.counters(now).used("daily", "tokens", now, "a") == 15


def test_a_busy_store_is_read_between_two_writes(where):
    """Somebody writes at every look: the last one has the store to itself."""
    with Meter(store=where) as meter:
        store = meter.store
        use(meter, 10)
        meter.flush()

        class Busy:
            held = False

            def __getattr__(self, name):
                return getattr(store, name)

            def usage(self, *args):
                if not self.held:
                    use(meter, 1)
                    meter.flush()
                return store.usage(*args)

            def transaction(self):
                Busy.held = True
                return store.transaction()

        now = meter.now()
        assert Reader(Busy()).counters(now).used("daily", "tokens", now) == 12


def test_rules_see_what_another_process_recorded(where):
    source = (
        "import sys; from agent_meter import Meter\n"
        "with Meter(store=sys.argv[1]) as m: m.record_usage(model='gpt-4o', input_tokens=11, agent='other')"
    )
    meter, rules = ruled(where, "daily_tokens > 10")
    with meter:
        assert rules.check() == []
        subprocess.run([sys.executable, "-c", source, where], check=True, timeout=60)

        assert [alert.name for alert in rules.check()] == ["it"]
        assert rules.check() == []


def test_a_restart_does_not_fire_again_and_knows_the_day(where):
    for expected in (1, 0, 0):
        meter, rules = ruled(where, "daily_tokens > 10")
        with meter:
            if expected:
                use(meter, 11)
            assert len(rules.check()) == expected


def test_a_process_that_is_behind_does_not_say_that_it_is_over(where):
    first, rules_of_first = ruled(where, "daily_tokens > 10")
    second, rules_of_second = ruled(where, "daily_tokens > 10")
    with first, second:
        assert rules_of_second.check() == []
        use(first, 11)
        assert len(rules_of_first.check()) == 1
        behind = rules_of_second._reader
        changes, behind._store = behind._store.changes, _Stale(second.store)
        assert rules_of_second.check() == []
        behind._store.changes = changes

        assert rules_of_first.check() == rules_of_second.check() == []


class _Stale:
    def __init__(self, store):
        self._store = store

    def changes(self, after, limit):
        return [], after


def test_a_process_that_began_after_a_task_does_not_say_that_it_is_over(where):
    clock = FakeClock()
    first, rules_of_first = ruled(where, "agent_tokens_per_task > 10", clock)
    with first:
        use(first, 11, agent="a", task="t")
        assert len(rules_of_first.check()) == 1
        clock.advance(timedelta(days=3).total_seconds())
        second, rules_of_second = ruled(where, "agent_tokens_per_task > 10", clock)
        with second:
            use(second, 1, agent="a", task="t")
            assert rules_of_second.check() == []

            assert rules_of_first.check() == []


def test_a_clock_that_is_ahead_does_not_make_a_rule_fire_twice(where):
    """One process is in the next hour already, where it is quiet; the other one still in the last."""
    ahead, behind = FakeClock(), FakeClock()
    at = ahead.now()
    ahead.advance((timedelta(hours=1) - (at - at.replace(minute=0, second=0, microsecond=0))).total_seconds())
    behind.advance((ahead.now() - at).total_seconds() - 1)
    first, rules_of_first = ruled(where, "hourly_tokens > 10", behind)
    second, rules_of_second = ruled(where, "hourly_tokens > 10", ahead)
    with first, second:
        use(first, 11)
        assert len(rules_of_first.check()) == 1
        assert rules_of_second.check() == []

        assert rules_of_first.check() == []
        behind.advance(2)
        use(first, 11)
        assert len(rules_of_first.check()) == 1


def test_a_store_that_cannot_be_read_is_counted_and_tried_again(where, monkeypatch):
    meter, rules = ruled(where, "daily_tokens > 10")
    with meter:
        use(meter, 11)
        with monkeypatch.context() as broken:
            broken.setattr(type(meter.store), "changes", lambda *_: 1 / 0)
            assert rules.check() == []
        assert meter.health()["failures"]["rules"] == {"read": 1}

        assert len(rules.check()) == 1


WATCHER = """
import sys
from agent_meter import Meter
from agent_meter.rules import Rule, Rules
def tell(firing):
    with open(sys.argv[2], "a") as file:
        file.write(f"{firing.alert.message}\\n")
with Meter(store=sys.argv[1]) as meter:
    rule = Rule.make("it", "agent_hourly_tokens > 10", "{name}", action="tell")
    meter.register(Rules([rule], actions={"tell": tell}, interval=0.02))
    print("ready", flush=True)
    for line in sys.stdin:
        meter.record_usage(model="gpt-4o", input_tokens=1, agent=line.strip())
"""


def test_of_several_real_processes_one_fires(where, tmp_path):
    told = tmp_path / "told"
    watchers = [
        subprocess.Popen([sys.executable, "-c", WATCHER, where, str(told)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]  # fmt: skip
    for watcher in watchers:
        assert watcher.stdout.readline() == "ready\n"
    agents = [f"agent {number}" for number in range(5)]
    for agent in agents:
        for watcher in watchers:
            watcher.stdin.write(f"{agent}\n" * 5)
            watcher.stdin.flush()
    end = time.monotonic() + 30
    while time.monotonic() < end and (not told.exists() or len(told.read_text().splitlines()) < len(agents)):
        time.sleep(0.05)
    for watcher in watchers:
        watcher.communicate(timeout=60)

    assert [watcher.returncode for watcher in watchers] == [0] * 3
    assert sorted(told.read_text().splitlines()) == agents


def test_a_correction_is_counted_as_the_difference(where):
    from agent_meter import TokenUsage
    from agent_meter.records import ABANDONED, Call, Kind, Model

    meter, rules = ruled(where, "daily_requests > 1")
    with meter:
        call = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o"), tags=EMPTY))
        meter.close(call, status=ABANDONED)
        rules.check()
        meter.close(call, TokenUsage(7, 3))
        rules.check()
        counters = rules._counters

        assert counters.used("daily", "requests", meter.now()) == 1
        assert counters.used("daily", "tokens", meter.now()) == 10


def test_a_store_in_memory_is_not_asked():
    store = open_store("memory")
    meter, rules = ruled(store, "daily_tokens > 10")
    use(meter, 11)

    assert rules._reader is None
    assert len(rules.check()) == 1
