"""What only a server can do to us: go away, come back, be shared by many."""

import subprocess
import sys
import threading
import time

import pytest

from agent_meter import Meter, StoreError
from agent_meter.store import PostgresStore, open_store

from .traffic import metered


def spend(meter, calls=1, **attribution):
    for _ in range(calls):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=100, output_tokens=10, **attribution)


def hang_up(url):
    """The server ends all connections to this ledger's schema, as it does when it is restarted."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
        )


def test_a_url_is_enough(postgres_url):
    with Meter(store=postgres_url) as meter:
        spend(meter, 3, agent="planner")

    assert Meter(store=postgres_url).usage_by("agent")["planner"].requests == 3
    assert open_store(postgres_url, readonly=True).usage().requests == 3


def test_connections_that_break_are_made_anew(postgres_url):
    meter = Meter(store=postgres_url)
    spend(meter)
    assert meter.usage.requests == 1

    hang_up(postgres_url)
    spend(meter)
    meter.flush()

    assert meter.usage.requests == 2
    assert meter.health()["store"]["dropped"] == 0


def test_while_the_server_is_away_records_wait(postgres_url, monkeypatch):
    meter = Meter(store=postgres_url)
    store = meter.store
    there, store._url = store._url, "postgresql://nobody@127.0.0.1:9/nothing"
    hang_up(postgres_url)
    spend(meter, 5)

    with pytest.raises(StoreError):
        meter.flush()
    assert meter.usage.requests == 5
    assert meter.health()["store"]["queued"] == 5
    assert "nobody" not in str(meter.health()), "a URL may hold a password"

    store._url = there
    meter.flush()
    assert store.usage().requests == 5


def test_beyond_its_limit_what_waits_goes_to_the_spill_file_and_comes_back(postgres_url, tmp_path):
    store = PostgresStore(postgres_url, limit=10, spill=str(tmp_path / "spill"))
    meter = Meter(store=store)
    there, store._url = store._url, "postgresql://nobody@127.0.0.1:9/nothing"
    spend(meter)
    with pytest.raises(StoreError):
        meter.flush()
    spend(meter, 30)
    assert store.health()["spilled"] >= 5
    assert store.health()["dropped"] == 0

    store._url = there
    deadline = time.monotonic() + 20
    while store.usage().requests < 31 and time.monotonic() < deadline:
        time.sleep(0.1)

    assert store.usage().requests == 31
    assert not (tmp_path / "spill").exists()


def test_without_a_spill_file_what_is_dropped_is_counted(postgres_url):
    store = PostgresStore(postgres_url, limit=10)
    meter = Meter(store=store)
    there, store._url = store._url, "postgresql://nobody@127.0.0.1:9/nothing"
    hang_up(postgres_url)
    spend(meter)
    with pytest.raises(StoreError):
        meter.flush()
    spend(meter, 30)
    dropped = store.health()["dropped"]
    assert 0 < dropped <= 21

    store._url = there
    with pytest.raises(StoreError, match="dropped"):
        meter.flush()
    assert store.usage().requests + dropped == 31


def test_many_hosts_write_at_once(postgres_url):
    _, records = metered(120)
    code = (
        "import sys; from agent_meter import Meter\n"
        "meter = Meter(store=sys.argv[1])\n"
        "for n in range(300):\n"
        "    meter.record_usage(model='gpt-4o', provider='openai', input_tokens=7, agent=f'a{n % 7}')\n"
        "meter.flush()\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, postgres_url]) for _ in range(3)]
    store = PostgresStore(postgres_url)
    for record in records:
        store.put(record)
        store.put(record)
    store.flush()

    assert [child.wait() for child in children] == [0, 0, 0]
    calls = sum(record.kind in ("llm", "embedding") and record.status != "denied" for record in records)
    assert store.usage().requests == 900 + calls
    assert store.verify().ok


def test_a_transaction_has_the_tables_to_itself(postgres_url):
    store = PostgresStore(postgres_url)
    with store.transaction() as connection:
        connection.execute("CREATE TABLE counter (n BIGINT)")
        connection.execute("INSERT INTO counter VALUES (0)")

    def count():
        own = PostgresStore(postgres_url)
        for _ in range(25):
            with own.transaction() as connection:
                (n,) = connection.execute("SELECT n FROM counter").fetchone()
                connection.execute("UPDATE counter SET n = %s", (n + 1,))
        own.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.transaction() as connection:
        assert connection.execute("SELECT n FROM counter").fetchone() == (100,)


def test_time_is_the_servers(postgres_url):
    store = PostgresStore(postgres_url)

    assert store.now().tzinfo is not None


def test_tables_of_something_else_are_left_alone(postgres_url):
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE record (artist TEXT)")

    with pytest.raises(StoreError, match="something else"):
        PostgresStore(postgres_url)
