"""The shelf in PostgreSQL: shared by everybody who uses the ledger."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from agent_meter import BudgetExceeded, Meter, TokenUsage
from agent_meter.controls import Controls
from agent_meter.shelf import shelf_of
from agent_meter.store import PostgresStore
from agent_meter.store.table_shelf import TableShelf


def eventually(claim, seconds=10.0):
    end = time.monotonic() + seconds
    while not claim() and time.monotonic() < end:
        time.sleep(0.02)
    return claim()


@pytest.fixture
def ledger(postgres_url):
    store = PostgresStore(postgres_url)
    yield store
    store.close()


def test_a_ledger_in_postgresql_has_its_shelf_in_a_table(ledger):
    shelf = shelf_of(ledger)
    assert isinstance(shelf, TableShelf)
    assert shelf.read() == {}

    assert shelf.change(lambda document: document.setdefault("n", 1)) == 1

    assert shelf.read() == TableShelf(ledger).read() == {"n": 1}


def test_a_change_by_somebody_else_is_seen_within_the_interval(ledger):
    mine, other = TableShelf(ledger, interval=0.02), TableShelf(ledger)
    mine.read()
    other.change(lambda document: document.update(n=1))

    assert eventually(lambda: mine.read() == {"n": 1})


def test_an_update_that_raises_changes_nothing(ledger):
    shelf = TableShelf(ledger)
    shelf.change(lambda document: document.update(n=1))
    with pytest.raises(ZeroDivisionError):
        shelf.change(lambda document: document.update(n=1 // 0))

    assert TableShelf(ledger).read() == {"n": 1}


def test_changes_of_many_processes_are_all_kept(ledger, postgres_url):
    source = (
        "import sys; from agent_meter.store import PostgresStore; from agent_meter.shelf import shelf_of\n"
        "s = shelf_of(PostgresStore(sys.argv[1], readonly=True))\n"
        "for n in range(10): s.change(lambda d: d.update(n=d.get('n', 0) + 1))"
    )
    TableShelf(ledger).read()
    workers = [subprocess.Popen([sys.executable, "-c", source, postgres_url]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0] * 3
    assert TableShelf(ledger).read() == {"n": 30}


def test_a_meter_hears_of_a_pause_by_another_process(ledger, postgres_url):
    with Meter(store=postgres_url) as meter, meter.scope(agent="researcher"):
        with meter.llm("gpt-4o") as one:
            one.finish(TokenUsage(1, 1))
        Controls(TableShelf(ledger)).pause("researcher")

        assert eventually(lambda: len(meter.controls) == 1)
        with pytest.raises(BudgetExceeded, match="paused"), meter.llm("gpt-4o"):
            pass


def test_a_server_that_is_away_is_told_of_and_changes_nothing(ledger):
    class Away:
        transaction = ledger.transaction

        def _reading(self):
            raise OSError("away")

    told = []
    shelf = TableShelf(ledger, interval=0.02)
    shelf.on_failure(told.append)
    shelf.change(lambda document: document.update(n=1))
    shelf.read()
    shelf._store = Away()

    assert eventually(lambda: bool(told))
    assert shelf.read() == {"n": 1}
