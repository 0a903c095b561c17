"""A meter with a store answers for all who use it, and does no harm when the store does."""

import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from agent_meter import Meter, StoreError
from agent_meter.store import MemoryStore, SQLiteStore, open_store


def spend(meter, calls=1, **attribution):
    for _ in range(calls):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=100, output_tokens=10, **attribution)


def test_what_one_meter_wrote_the_next_one_knows(tmp_path):
    with Meter(store=tmp_path / "meter.db") as meter:
        spend(meter, 3, agent="planner", user="u1")
        meter.record_tool_call("search", True, 0.5, {"q": "secret"})
        with meter.run("research") as run:
            spend(meter)
        cost = meter.usage.cost_usd

    with Meter(store=str(tmp_path / "meter.db")) as again:
        spend(again, agent="planner")

        assert again.usage.requests == 5
        assert again.usage.cost_usd == cost / 4 * 5
        assert again.usage_by("agent")["planner"].requests == 4
        assert again.usage_by("agent", "user")["planner", "u1"].input_tokens == 300
        assert len(again.history()) == 5
        assert len(again.history(2)) == 2
        assert again.tree(run.id).name == "research"
        assert again.tree(run.id).usage.requests == 1
        assert len(again.usage.iterations) == 5
        assert len(again.usage_by("user")["u1"].iterations) == 3
        assert again.top("agent", 1, by="requests")[0][0] == "planner"
    assert b"secret" not in (tmp_path / "meter.db").read_bytes()


def test_a_meter_that_was_shut_still_answers_and_still_keeps_what_comes_late(tmp_path):
    meter = Meter(store=tmp_path / "meter.db")
    spend(meter)
    meter.shutdown()

    assert meter.usage.requests == 1
    spend(meter)
    meter.flush()
    assert Meter(store=tmp_path / "meter.db").usage.requests == 2


def test_flush_says_so_when_records_are_not_durable(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db", busy=0.2)
    meter = Meter(store=store)
    other = sqlite3.connect(tmp_path / "meter.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    spend(meter, 2)

    with pytest.raises(StoreError, match="locked"):
        meter.flush()

    assert meter.usage.requests == 2, "from memory, while the store cannot be had"
    assert meter.health()["store"]["queued"] == 2
    assert meter.health()["store"]["failures"] >= 1
    assert not meter.health()["ok"]
    other.execute("COMMIT")
    meter.flush()
    assert meter.health()["store"]["stored"] == 2
    assert store.usage().requests == 2


def test_a_store_that_cannot_be_opened_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError):
        Meter(store=tmp_path / "file" / "meter.db")
    (tmp_path / "letter.db").write_text("Dear Sir or Madam, " * 500)
    with pytest.raises(StoreError, match="not a database"):
        Meter(store=tmp_path / "letter.db")
    with pytest.raises(ValueError, match="durability"):
        Meter(store=tmp_path / "meter.db", durability="maybe")
    with pytest.raises(ValueError, match="redis"):
        Meter(store="redis://127.0.0.1")
    with pytest.raises(TypeError):
        Meter(store=7)


def test_readers_make_and_change_nothing(tmp_path):
    with pytest.raises(StoreError, match="no ledger"):
        open_store(tmp_path / "meter.db", readonly=True)
    with Meter(store=tmp_path / "meter.db") as meter:
        spend(meter, 3)

    reader = open_store(tmp_path / "meter.db", readonly=True)

    assert reader.usage().requests == 3
    reader.put(meter.history()[0])
    with pytest.raises(StoreError, match="read only"):
        reader.flush()


def test_a_store_of_ones_own_is_not_closed_with_the_meter():
    store = MemoryStore()
    with Meter(store=store) as meter:
        spend(meter)

    assert store.usage().requests == 1
    assert meter.store is store
    assert Meter().store is None


def test_threads_share_a_meter(tmp_path):
    meter = Meter(store=tmp_path / "meter.db")
    threads = [threading.Thread(target=spend, args=(meter, 200), kwargs={"agent": f"a{n}"}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    meter.flush()

    assert meter.usage.requests == 1600
    assert meter.usage_by("agent")["a3"].requests == 200
    assert meter.store.verify().ok


def test_reset_never_touches_the_ledger(tmp_path):
    meter = Meter(store=tmp_path / "meter.db")
    spend(meter)

    meter.reset()

    assert meter.usage.requests == 1


def test_durability_full_waits_for_the_disk(tmp_path):
    meter = Meter(store=tmp_path / "meter.db", durability="full")
    spend(meter)
    meter.flush()

    assert meter.store._db.rows("PRAGMA synchronous") == [(2,)]
    assert meter.store._db.rows("PRAGMA journal_mode") == [("wal",)]


def test_importing_the_store_imports_no_driver():
    code = "import sys, agent_meter.store; print('sqlite3' in sys.modules, 'psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert done.stdout.split() == ["False", "False"]
