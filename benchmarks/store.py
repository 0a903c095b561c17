"""What a ledger costs: the caller, the machine, and whoever asks it. `python -m benchmarks.store [RECORDS | FILE]`.

RECORDS (a million unless said otherwise) is how many the reports are asked over, of a ledger that `benchmarks.large`
makes for it; or name one that it has made.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agent_meter.records import LLM, OK, Cost, CostStatus, TokenUsage, UsageRecord, new_id
from agent_meter.store import SQLiteStore

from .large import DAYS, MODELS, fill
from .measuring import machine, table, title


class Traffic:
    """Ten calls a session, 500 sessions an hour, each of one user (of 1,000) and one agent (of 20); 10 models."""

    def __init__(self, number: int, seed: int = 1, days: float = DAYS) -> None:
        self._chance = random.Random(seed)
        self._at = datetime.now(UTC) - timedelta(days=days)
        self._step = timedelta(days=days) / number

    def next(self) -> UsageRecord:
        chance = self._chance
        self._at += self._step
        session = int(chance.random() * 500) + int(self._at.timestamp()) // 3600 * 500
        provider, model = MODELS[(session + (chance.random() < 0.2)) % 10]
        given, made = int(chance.random() * 4000), int(chance.random() * 900)
        return UsageRecord(
            new_id(), LLM, self._at, chance.random() * 9, None, provider, model, f"{model}-2026-06-01", model,
            TokenUsage(given, made, given // 3, 0, 0, made // 4),
            Cost(CostStatus.PRICED, given * 2_500_000 + made * 10_000_000, given * 2_500_000 + made * 10_000_000,
                 given * 2_500_000, made * 10_000_000, "c1f2e3d4a5b6", model),
            OK, None, False, False, False, 1, f"chatcmpl-{session}", "langchain", None, None,
            f"agent-{session % 20}", "", f"user-{session * 7 % 1000}", f"session-{session}",
        )  # fmt: skip


def microseconds(do: Callable[[], object], number: int) -> tuple[str, str]:
    """Median and 99th percentile."""
    times = []
    for _ in range(number):
        start = time.perf_counter_ns()
        do()
        times.append((time.perf_counter_ns() - start) / 1000)
    times.sort()
    return f"{statistics.median(times):.1f}", f"{times[int(number * 0.99)]:.0f}"


def append(folder: Path) -> None:
    title("Recording one call (µs on the caller's thread)")
    traffic = Traffic(100_000)
    rows = []
    for durability, number in (("normal", 2000), ("full", 300)):
        store = SQLiteStore(folder / f"append-{durability}.db", durability)
        records = iter([traffic.next() for _ in range(6000)])
        rows.append((f"put, {durability}", *microseconds(partial(_behind, store, records), 2000)))
        store.flush()
        rows.append((f"put and flush, {durability}", *microseconds(partial(_acknowledged, store, records), number)))
        store.close()
    table(("", "median", "p99"), rows)


def _behind(store: SQLiteStore, records: Iterator[UsageRecord]) -> None:
    store.put(next(records))


def _acknowledged(store: SQLiteStore, records: Iterator[UsageRecord]) -> None:
    store.put(next(records))
    store.flush()


def processes(folder: Path, workers: int = 8, number: int = 20_000) -> None:
    title(f"{workers} processes, one file, all at once")
    path = folder / "shared.db"
    SQLiteStore(path).close()
    code = (
        "import sys, time; from benchmarks.store import Traffic; from agent_meter.store import SQLiteStore\n"
        f"traffic = Traffic({number}, int(sys.argv[2]), 1 / 86400)\n"
        f"records = [traffic.next() for _ in range({number})]\n"
        "store = SQLiteStore(sys.argv[1]); print('ready', flush=True); input()\n"
        "for record in records: store.put(record)\n"
        "store.flush()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    running = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(workers)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        process.wait()
    spent = time.perf_counter() - start
    store = SQLiteStore(path)
    stored = store.usage().requests
    whole = workers * number
    table(
        ("records", "records/s", "lost", "rollups"),
        [(f"{whole:,}", f"{whole / spent:,.0f}", f"{whole - stored:,}", "right" if store.verify().ok else "WRONG")],
    )
    store.close()


def alone(folder: Path, number: int = 50_000) -> None:
    title("One process, a day of traffic as fast as it can")
    store, traffic = SQLiteStore(folder / "alone.db"), Traffic(number, days=1)
    records = [traffic.next() for _ in range(number)]
    start, spent = time.perf_counter(), time.process_time()
    for record in records:
        store.put(record)
    store.flush()
    wall, cpu = time.perf_counter() - start, time.process_time() - spent
    store.fold()
    store.close()
    rows = [(f"{number:,}", f"{number / wall:,.0f}", f"{cpu / number * 1e6:.0f}", size(folder / "alone.db", number))]
    table(("records", "records/s", "µs CPU/record", "bytes/record"), rows)


def reserve(folder: Path, number: int = 600) -> None:
    title("A budget's counter while the ledger writes 500 records/s: one file, or two (µs a transaction)")
    rows = []
    for name, durability, shared in (
        ("one file, normal", "normal", True),
        ("one file, full", "full", True),
        ("two files, ledger full", "full", False),
    ):
        ledger = SQLiteStore(folder / f"{name}-ledger.db", durability)
        counters = ledger if shared else SQLiteStore(folder / f"{name}-budgets.db")
        with counters.transaction() as connection:
            connection.execute("CREATE TABLE counter (name TEXT PRIMARY KEY, used INTEGER)")
            connection.executemany("INSERT INTO counter VALUES (?, 0)", [(f"b{n}",) for n in range(5)])
        stop = threading.Event()
        writing = threading.Thread(target=_steadily, args=(ledger, stop))
        writing.start()
        rows.append((name, *microseconds(partial(_take, counters), number)))
        stop.set()
        writing.join()
        ledger.close()
        counters.close()
    table(("", "median", "p99"), rows)


def _steadily(ledger: SQLiteStore, stop: threading.Event) -> None:
    traffic = Traffic(100_000, days=1)
    while not stop.wait(0.002):
        ledger.put(traffic.next())


def _take(store: SQLiteStore) -> None:
    with store.transaction() as connection:
        for budget in range(5):
            connection.execute("SELECT used FROM counter WHERE name = ?", (f"b{budget}",)).fetchone()
            connection.execute("UPDATE counter SET used = used + 1 WHERE name = ?", (f"b{budget}",))


QUESTIONS = (
    ("everything", ()),
    ("by agent", ("agent",)),
    ("by model", ("model",)),
    ("by user", ("user",)),
    ("by day", ("day",)),
    ("by agent and model", ("agent", "model")),
    ("by day and model", ("day", "model")),
    ("by agent, model and day", ("agent", "model", "day")),
    ("by user and model", ("user", "model")),
)


def report(path: Path) -> None:
    store = SQLiteStore(path, readonly=True)
    number = store.usage().requests
    title(f"Reports over {number:,} records (ms, median of 5)")
    rows = []
    for name, dimensions in QUESTIONS:

        def ask(dimensions: tuple[str, ...] = dimensions) -> object:
            return store.usage_by(*dimensions) if dimensions else store.usage()

        rows.append((name, milliseconds(ask), f"{len(store.usage_by(*dimensions)) if dimensions else 1:,}"))
    since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=7)
    rows.append(("by user, last 7 days", milliseconds(lambda: store.usage_by("user", since=since)), "1,000"))
    table(("from rollups", "ms", "rows"), rows)

    print("\nThe same question, by agent, model and day, without rollups:\n")
    query = (
        "SELECT agent, model, at / 86400000000, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(list_pico) "
        "FROM record GROUP BY 1, 2, 3"
    )
    plain = sqlite3.connect(path)
    others = [("SQLite, all rows", milliseconds(lambda: plain.execute(query).fetchall(), 1), size(path, number))]
    others += duckdb(path, number)
    table(("", "ms", "bytes/record"), others)


def duckdb(path: Path, number: int) -> list[tuple[str, str, str]]:
    try:
        import duckdb
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        print("(DuckDB and pyarrow are not installed)")
        return []
    parquet = path.with_suffix(".parquet")
    columns = ("id", "agent", "user", "session", "model", "at", "input_tokens", "output_tokens", "list_pico")
    rows = sqlite3.connect(path).execute(f"SELECT {', '.join(columns)} FROM record ORDER BY at")
    writer = None
    while page := rows.fetchmany(200_000):
        piece = pyarrow.table(dict(zip(columns, map(list, zip(*page, strict=True)), strict=True)))
        writer = writer or pyarrow.parquet.ParquetWriter(parquet, piece.schema, compression="zstd")
        writer.write_table(piece)
    assert writer is not None
    writer.close()
    query = (
        'SELECT agent, model, "at" - "at" % 86400000000, COUNT(*), SUM(input_tokens), SUM(output_tokens), '
        "SUM(list_pico) "
        f"FROM '{parquet}' GROUP BY 1, 2, 3"
    )
    spent = milliseconds(lambda: duckdb.sql(query).fetchall(), 3)
    return [(f"DuckDB {duckdb.__version__} over Parquet ({len(columns)} columns)", spent, size(parquet, number))]


def milliseconds(do: Callable[[], object], runs: int = 5) -> str:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        do()
        times.append((time.perf_counter() - start) * 1000)
    return f"{statistics.median(times):,.1f}"


def size(path: Path, number: int) -> str:
    return f"{path.stat().st_size / number:,.0f}"


def main(what: str = "1_000_000") -> None:
    print(f"\n{machine()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        append(folder)
        alone(folder)
        processes(folder)
        reserve(folder)
        if Path(what).exists():
            report(Path(what))
        else:
            fill(folder / "large.db", int(what.replace("_", "")))
            report(folder / "large.db")


if __name__ == "__main__":
    main(*sys.argv[1:2])
