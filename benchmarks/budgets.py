"""Holding and settling: what a budget adds to a call, and what each engine takes by itself. Run it alone."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent_meter import Budget, Call, Kind, Meter, Model, TokenUsage
from agent_meter.budgets import Engine, Entry, MemoryEngine

from .measuring import machine, microseconds, table, title

PROMISED = {"memory": 8.0, "sqlite": 150.0, "redis": 400.0}
CALL_PROMISED = 20.0
FAR = 1 << 60


def main() -> None:
    in_the_path()
    engines()


def in_the_path() -> None:
    title(f"open + close, CPU µs a call ({machine()})")
    gpt, usage = Model("openai", "gpt-4o"), TokenUsage(1000, 500)

    def calls(meter: Meter) -> Callable[[int], None]:
        def timed(number: int) -> None:
            for _ in range(number):
                meter.close(meter.open(Call(Kind.LLM, model=gpt)), usage)

        return timed

    three = [Budget("day", usd=10**6), Budget("hour", tokens=10**15, per="rolling 1h"), Budget("all", requests=10**9)]
    medians = microseconds(
        {
            "without a budget": calls(Meter()),
            "one budget in memory": calls(Meter(budgets=three[:1])),
            "three budgets, one of them rolling": calls(Meter(budgets=three)),
        },
        10_000,
    )
    table(("what", "µs"), [(name, f"{median:.1f}") for name, median in medians.items()])
    print(f"\npromised with a budget in memory: ≤ {CALL_PROMISED:.0f} µs")


def engines() -> None:
    title("reserve + settle over one and over five counters, wall µs, median of 2,000")
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as afterwards:
        for name, engine in _engines(Path(folder), afterwards):
            one, five = (_median(engine, count) for count in (1, 5))
            promised = PROMISED.get(name)
            rows.append((name, f"{one:.1f}", f"{five:.1f}", "" if promised is None else f"≤ {promised:.0f}"))
            engine.close()
    table(("engine", "one", "five", "promised"), rows)


def _median(engine: Engine, counters: int, number: int = 2000) -> float:
    entries = [Entry(f"bench {index}", 0, 0, FAR, 1000, 10**15) for index in range(counters)]
    amounts = [400] * counters
    samples = []
    for index in range(number):
        hold = f"{os.getpid()}-{counters}-{index}"
        start = time.perf_counter_ns()
        engine.reserve(hold, entries, FAR)
        engine.settle(hold, amounts)
        samples.append(time.perf_counter_ns() - start)
    return statistics.median(samples) / 1000


def _engines(folder: Path, afterwards: ExitStack) -> list[tuple[str, Any]]:
    """All that can be had here: servers where the environment names them, or where they usually are."""
    from agent_meter.budgets.sqlite import SqliteEngine
    from agent_meter.store import SQLiteStore

    store = SQLiteStore(folder / "meter.db")
    afterwards.callback(store.close)
    found: list[tuple[str, Any]] = [
        ("memory", MemoryEngine()),
        ("sqlite", SqliteEngine(folder / "budgets.db")),
        ("sqlite, in the ledger", SqliteEngine(transaction=store.transaction)),
    ]
    try:
        from agent_meter.budgets.redis import RedisEngine

        url = os.environ.get("AGENT_METER_REDIS", "redis://127.0.0.1:6379/0")
        found.append(("redis", RedisEngine(url, name=f"bench-{os.getpid()}")))
        afterwards.callback(RedisEngine(url, name=f"bench-{os.getpid()}").clear)
    except Exception as error:
        print(f"no Redis: {error}")
    try:
        import psycopg

        from agent_meter.budgets.postgres import PostgresEngine

        url = os.environ.get("AGENT_METER_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
        schema = f"bench_{os.getpid()}"
        admin = afterwards.enter_context(psycopg.connect(url, autocommit=True))
        admin.execute(f"CREATE SCHEMA {schema}".encode())
        afterwards.callback(admin.execute, f"DROP SCHEMA {schema} CASCADE".encode())
        found.append(("postgres", PostgresEngine(f"{url}?options=-csearch_path%3D{schema}")))
    except Exception as error:
        print(f"no PostgreSQL: {error}")
    return found


if __name__ == "__main__":
    main()
