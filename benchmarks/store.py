"""What a ledger costs: the caller, the machine, and whoever asks it. `python -m benchmarks.store [RECORDS]`.

RECORDS (a million unless said otherwise) is how many the reports are asked over; ten million take half an hour and
seven gigabytes.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agent_meter.records import LLM, OK, Cost, CostStatus, TokenUsage, UsageRecord, new_id
from agent_meter.store import SQLiteStore

from .measuring import machine, table, title

DAYS = 90
MODELS = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "o3"), ("anthropic", "claude-sonnet-4-5"),
          ("anthropic", "claude-haiku-4-5"), ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"),
          ("mistral", "mistral-large"), ("deepseek", "deepseek-chat"), ("groq", "llama-3.3-70b")]  # fmt: skip


class Traffic:
    """Records of 20 agents, 10 models and 1,000 users, ten calls a session, spread evenly over 90 days."""

    def __init__(self, number: int, seed: int = 1, days: float = DAYS) -> None:
        self._chance = random.Random(seed)
        self._at = datetime.now(UTC) - timedelta(days=days)
        self._step = timedelta(days=days) / number

    def next(self) -> UsageRecord:
        chance = self._chance
        self._at += self._step
        provider, model = MODELS[int(chance.random() * 10)]
        session = int(chance.random() * 500) + int(self._at.timestamp()) // 3600 * 500
        given, made = int(chance.random() * 4000), int(chance.random() * 900)
        return UsageRecord(
            new_id(), LLM, self._at, chance.random() * 9, None, provider, model, f"{model}-2026-06-01", model,
            TokenUsage(given, made, given // 3, 0, 0, made // 4),
            Cost(CostStatus.PRICED, given * 2_500_000 + made * 10_000_000, given * 2_500_000 + made * 10_000_000,
                 given * 2_500_000, made * 10_000_000, "c1f2e3d4a5b6", model),
            OK, None, False, False, False, 1, f"chatcmpl-{session}", "langchain", None, None,
            f"agent-{int(chance.random() * 20)}", "", f"user-{int(chance.random() * 1000)}", f"session-{session}",
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


def fill(path: Path, number: int) -> None:
    store, traffic = SQLiteStore(path), Traffic(number)
    start = time.perf_counter()
    for _ in range(number):
        store.put(traffic.next())
    store.flush()
    store.fold()
    spent = time.perf_counter() - start
    store.close()
    print(f"{number:,} records made and stored by one process in {spent:,.0f} s ({number / spent:,.0f}/s)")


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
        "SELECT agent, model, at - at % 86400000000, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(list_pico) "
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


def main(number: int = 1_000_000) -> None:
    print(f"\n{machine()}")
    with tempfile.TemporaryDirectory() as folder:
        append(Path(folder))
        processes(Path(folder))
        fill(Path(folder) / "large.db", number)
        report(Path(folder) / "large.db")


if __name__ == "__main__":
    main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000)
