"""What can go wrong goes wrong without harm: to the user's run, to the totals, to what was acknowledged."""

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_meter import Meter, StoreError, UsageRecord
from agent_meter.records import LLM, OK, Cost, CostStatus, FrozenMap, TokenUsage, new_id
from agent_meter.store import SQLiteStore

from .traffic import metered


def call(**changes):
    record = UsageRecord(
        new_id(), LLM, datetime.now(UTC), 0.5, None, "openai", "gpt-4o", None, "gpt-4o", TokenUsage(10, 5),
        Cost(CostStatus.PRICED, 7, 7, 5, 2, "card", "gpt-4o"), OK,
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


# ------------------------------------------------------------------------------------------------- bad input

BAD = (
    None, float("nan"), float("inf"), -1, 2**63, 1.5, True, "12x", "", "\0", "a\0b", "\ud800", "x" * 100_000,
    b"bytes", object(), {"a": {1}}, [1], Decimal("1.23456789"), Decimal("NaN"), datetime(2026, 1, 1), 10**30,  # noqa: DTZ001

    TokenUsage(-1, 5), TokenUsage(2**64, 0), TokenUsage(1, 1, units={"s": Decimal("Infinity")}), {"k": object()},
    FrozenMap({f"t{n}": "x" * 900 for n in range(100)}), TokenUsage("7", 1), Cost("priced", 2**70, 0),
)  # fmt: skip
FIELDS = UsageRecord.__struct_fields__


def put_bad(store, pairs):
    for field, value in pairs:
        store.put(msgspec.structs.replace(call(), **{field: value}))
    store.flush(60)
    health = store.health()
    assert health["stored"] + health["dead"] + health["duplicates"] == len(pairs)
    assert health["queued"] == health["dropped"] == 0
    return health


def test_whatever_is_put_it_is_stored_or_buried_and_nobody_is_told_to_stop(durable):
    store = durable
    pairs = [(field, value) for field in FIELDS for value in BAD]
    random.Random(3).shuffle(pairs)

    health = put_bad(store, pairs)

    assert health["dead"] > 100
    assert store.usage().requests == health["stored"]
    assert len(list(store.records())) == health["stored"]
    audit = store.verify()
    assert audit.ok
    assert audit.dead == health["dead"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(BAD) | st.text() | st.integers() | st.floats())))
def test_random_nonsense_does_no_harm(tmp_path, pairs):
    path = tmp_path / f"{new_id()}.db"
    store = SQLiteStore(path)
    put_bad(store, pairs)

    assert store.verify().ok
    store.close()
    os.unlink(path)


def test_one_bad_record_among_a_thousand_is_the_only_one_that_is_missing(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db")
    for n in range(1000):
        store.put(call(usage=TokenUsage(-5, 0)) if n == 500 else call())
    store.flush()

    assert store.usage().requests == 999
    assert store.health()["dead"] == 1
    with store._reading() as db:
        ((reason, document),) = db.rows("SELECT reason, document FROM dead")
    assert "-5" in reason
    assert '"input_tokens":-5' in document


def test_what_the_database_refuses_is_found_by_halves(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db")
    with store.transaction() as connection:
        connection.execute(
            "CREATE TRIGGER no_judas BEFORE INSERT ON record WHEN NEW.agent = 'judas' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    for n in range(600):
        store.put(call(agent="judas" if n in (3, 400, 401) else "peter"))
    store.flush()

    assert store.usage_by("agent")["peter"].requests == 597
    assert store.health()["dead"] == 3
    assert store.verify().ok


def test_a_settlement_that_fails_does_not_take_its_record_along(durable):
    store = durable

    class Broken:
        def apply(self, connection):
            raise KeyError("a bug in a budget")

    told = []
    store.on_failure(told.append)
    record = call()
    store.attach(record.id, Broken())
    store.put(record)
    store.flush()

    assert store.usage().requests == 1
    assert "a bug in a budget" in str(told[0])


# ------------------------------------------------------------------------------------------------ bad places


def test_a_full_disk_keeps_records_waiting_and_then_takes_them_all(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db")
    meter = Meter(store=store)
    meter.record_usage(model="gpt-4o", input_tokens=1)
    meter.flush()
    db = store._db
    db.raw.execute(f"PRAGMA max_page_count = {db.rows('PRAGMA page_count')[0][0] + 2}")

    for n in range(500):
        meter.record_usage(model="gpt-4o", input_tokens=1, session=f"s{n}")
    with pytest.raises(StoreError, match="full"):
        meter.flush()
    assert meter.health()["store"]["dropped"] == 0

    db.raw.execute("PRAGMA max_page_count = 4294967294")
    meter.flush()
    assert store.usage().requests == 501
    assert store.verify().ok
    assert store._db.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_store_that_is_gone_at_the_end_leaves_what_waits_in_a_file_and_takes_it_up_again(tmp_path):
    path = tmp_path / "meter.db"
    store = SQLiteStore(path, busy=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(5):
        store.put(call())

    store.close(timeout=0.3)

    assert store.health()["spilled"] == 5
    assert len((tmp_path / "meter.db-spill").read_bytes().splitlines()) == 5
    other.execute("ROLLBACK")
    later = SQLiteStore(path)
    later.put(call())
    deadline = time.monotonic() + 10
    while later.usage().requests < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert later.usage().requests == 6
    assert not (tmp_path / "meter.db-spill").exists()


def test_the_queue_is_bounded_and_what_is_dropped_is_counted(tmp_path):
    puts = 200_000
    store = SQLiteStore(tmp_path / "meter.db", busy=0.05, limit=5_000)
    store._writer._spill = None
    other = sqlite3.connect(tmp_path / "meter.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store.put(call())
    with pytest.raises(StoreError):
        store.flush()
    record = call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(puts):
        store.put(record)

    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100
    health = store.health()
    assert health["queued"] + health["dropped"] == puts + 1
    assert health["queued"] < 12_000
    other.execute("ROLLBACK")
    with pytest.raises(StoreError, match="dropped"):
        store.flush()
    assert store.usage().requests == 2


def test_a_caller_who_is_faster_than_the_store_waits_for_it_and_loses_nothing(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db", limit=500)
    threads = [threading.Thread(target=lambda: [store.put(call()) for _ in range(1500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()

    assert store.usage().requests == 6000
    assert store.health()["dropped"] == 0


def test_the_writer_starts_anew_in_a_process_that_was_forked_while_the_store_was_locked(tmp_path):
    store = SQLiteStore(tmp_path / "meter.db")
    with store.transaction():
        if (child := os.fork()) == 0:
            store.put(call())
            os._exit(0 if store._shared is None else 1)
    assert os.waitpid(child, 0)[1] == 0


# --------------------------------------------------------------------------------- duplicates, crashes, damage


def delivered(records, path, seed):
    """Each record one to three times, in any order, by a process that may be killed any time."""
    store, chance = SQLiteStore(path), random.Random(seed)
    deliveries = [record for record in records for _ in range(chance.randrange(1, 4))]
    chance.shuffle(deliveries)
    for record in deliveries:
        store.put(record)
    store.flush()
    os._exit(0)


@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.soak)])
def test_duplicates_and_kills_leave_every_cell_as_if_each_record_came_once(tmp_path, kills):
    meter, records = metered(1500 if kills < 10 else 30_000, seed=11)
    path, chance = tmp_path / "meter.db", random.Random(kills)
    SQLiteStore(path).close()
    for kill in range(kills):
        if (child := os.fork()) == 0:
            try:
                delivered(records, path, kill)
            finally:
                os._exit(1)
        time.sleep(chance.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if (child := os.fork()) == 0:
        try:
            delivered(records, path, 99)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    store = SQLiteStore(path)
    assert store.usage() == meter.usage
    for dimensions in (("agent", "model"), ("user",), ("session",), ("tool",), ("day", "user"), ("team",)):
        assert store.usage_by(*dimensions) == meter.usage_by(*dimensions)
    assert store.verify().ok


WRITERS = """
import os, sys, time
from agent_meter import Meter
meter = Meter(store=sys.argv[1])
late = []
for n in range(int(sys.argv[2])):
    start = time.perf_counter()
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1, agent=f"a{n % 5}", user=f"u{n % 50}")
    late.append(time.perf_counter() - start)
meter.flush()
health = meter.health()
assert health["ok"], health
print(sorted(late)[int(len(late) * 0.99)] * 1000)
"""


@pytest.mark.parametrize("number", [1500, pytest.param(125_000, marks=pytest.mark.soak)])
def test_eight_processes_share_a_file(tmp_path, number):
    path = tmp_path / "meter.db"
    command = [sys.executable, "-c", WRITERS, str(path), str(number)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(8)]
    late = [float(child.communicate()[0]) for child in children]

    assert [child.returncode for child in children] == [0] * 8
    store = SQLiteStore(path)
    assert store.usage().requests == 8 * number
    assert store.usage_by("agent")["a3"].requests == 8 * number // 5
    assert store.verify().ok
    assert max(late) < 1000, "milliseconds that the 99th of 100 calls took on the caller's thread"


ACKNOWLEDGING = """
import os, sys
from agent_meter import Meter
meter = Meter(store=sys.argv[1])
n = 0
while True:
    ids = [meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1).id for _ in range(4)]
    meter.flush()
    os.write(1, ("".join(ids)).encode())
"""


@pytest.mark.parametrize(("trials", "workers"), [(2, 3), pytest.param(20, 8, marks=pytest.mark.soak)])
def test_what_was_acknowledged_survives_when_all_are_killed(tmp_path, trials, workers):
    path, acknowledged = tmp_path / "meter.db", []
    for trial in range(trials):
        command = [sys.executable, "-c", ACKNOWLEDGING, str(path)]
        files = [open(tmp_path / f"{trial}-{n}", "wb") for n in range(workers)]  # noqa: SIM115
        children = [subprocess.Popen(command, stdout=file) for file in files]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if all((tmp_path / f"{trial}-{n}").stat().st_size > 1500 for n in range(workers)):
                break
            time.sleep(0.05)
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        for child in children:
            child.wait()
        for n in range(workers):
            text = (tmp_path / f"{trial}-{n}").read_text()
            acknowledged += [text[place : place + 36] for place in range(0, len(text) // 36 * 36, 36)]

    store = SQLiteStore(path)
    stored = {record.id for record in store.records()}
    assert len(acknowledged) > trials * workers * 30
    assert set(acknowledged) <= stored
    assert store.verify().ok


@pytest.mark.parametrize("flips", [25, pytest.param(200, marks=pytest.mark.soak)])
def test_damage_is_found_or_harmless(tmp_path, flips):
    meter, records = metered(300)
    path = tmp_path / "meter.db"
    store = SQLiteStore(path)
    for record in records:
        store.put(record)
    store.flush()
    store.fold()
    store.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, chance = path.read_bytes(), random.Random(5)
    silent = 0
    for _ in range(flips):
        hurt = bytearray(whole)
        hurt[chance.randrange(len(hurt))] ^= 1 << chance.randrange(8)
        copy = tmp_path / f"{new_id()}.db"
        copy.write_bytes(hurt)
        try:
            store = SQLiteStore(copy)
            right = store.usage() == meter.usage and store.usage_by("user", "model") == meter.usage_by("user", "model")
            found = not store.verify().ok
        except (StoreError, ValueError, LookupError):
            continue  # it was told, and nothing else happened
        silent += not right and not found
        store.close()
    assert silent == 0


def test_wrong_sums_are_found_and_put_right(tmp_path):
    meter, records = metered(300)
    store = SQLiteStore(tmp_path / "meter.db")
    for record in records:
        store.put(record)
    store.flush()
    store.fold()
    with store.transaction() as connection:
        connection.execute("UPDATE cell SET input_tokens = input_tokens + 7 WHERE cube = 'user' AND grain = 2")
        connection.execute("DELETE FROM cell WHERE cube = 'model' AND grain = 3")

    audit = store.verify()
    assert not audit.ok
    assert {difference.what for difference in audit.differences} == {"rollup"}
    assert "input_tokens" in str(audit.differences[0]) or "requests" in str(audit.differences[0])

    assert store.verify(repair=True).ok
    assert store.verify().differences == []
    assert store.usage() == meter.usage
    assert store.usage_by("user") == meter.usage_by("user")


# ------------------------------------------------------------------------------------------------ migrations

MIGRATING = """
import sys
from agent_meter.store import SQLiteStore, schema
schema.VERSION = 2
schema.MIGRATIONS[1] = [
    "ALTER TABLE record ADD COLUMN region TEXT NOT NULL DEFAULT ''",
    "UPDATE record SET region = 'eu-' || (seq % 7)",
    "CREATE INDEX record_region ON record (region)",
]
store = SQLiteStore(sys.argv[1])
"""


@pytest.mark.parametrize(("number", "kills"), [(20_000, 5), pytest.param(1_000_000, 20, marks=pytest.mark.soak)])
def test_a_migration_that_is_killed_leaves_the_old_or_the_new(tmp_path, number, kills):
    path = tmp_path / "meter.db"
    store = SQLiteStore(path)
    record = call()
    for _ in range(number):
        store.put(msgspec.structs.replace(record, id=new_id()))
    store.close()
    chance, seen = random.Random(1), set()
    for attempt in range(kills + 1):
        child = subprocess.Popen([sys.executable, "-c", MIGRATING, str(path)])
        if attempt < kills:
            time.sleep(0.15 + chance.random() * (0.4 if number < 10**5 else 6))
            child.kill()
        child.wait()
        plain = sqlite3.connect(path)
        ((version,),) = plain.execute("PRAGMA user_version")
        columns = [row[1] for row in plain.execute("PRAGMA table_info(record)")]
        seen.add(version)
        assert ("region" in columns) == (version == 2)
        if version == 2:
            assert plain.execute("SELECT COUNT(*) FROM record WHERE region = ''").fetchone() == (0,)
        assert plain.execute("SELECT COUNT(*) FROM record").fetchone() == (number,)
        plain.close()
    assert 2 in seen
    assert sqlite3.connect(path).execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_two_versions_of_the_library_write_to_one_file(tmp_path):
    path = tmp_path / "meter.db"
    old = SQLiteStore(path)
    old.put(call(agent="old"))
    old.flush()
    newer = MIGRATING + textwrap.dedent("""
        from agent_meter import Meter
        Meter(store=store).record_usage(model="gpt-4o", agent="new")
        store.close()
    """)
    subprocess.run([sys.executable, "-c", newer, str(path)], check=True)

    old.put(call(agent="old"))
    old.flush()
    again = SQLiteStore(path)
    again.put(call(agent="old"))
    again.flush()

    assert {agent: usage.requests for agent, usage in again.usage_by("agent").items()} == {"old": 3, "new": 1}
    regions = sqlite3.connect(path).execute("SELECT region FROM record ORDER BY seq").fetchall()
    assert regions == [("eu-1",), ("",), ("",), ("",)], "what the newer one knows of is kept"
    sqlite3.connect(path, isolation_level=None).execute("UPDATE meta SET value = '2' WHERE name = 'readable_by'")
    with pytest.raises(StoreError, match="newer agent_meter"):
        SQLiteStore(path)
