"""Does a budget hold when everybody calls at once? Counted at the provider, where every call costs exactly $0.01.

The limit is $0.10, so ten calls are allowed. `spent/limit` above 1 is an overshoot; ours promises 0.85 to 1.00 in
every mode. serial: 40 attempts, one after the other. threads: 32 workers, up to 8 calls each. tasks: 200 asyncio
tasks of one call. processes: 4 of 8 threads, one file. A worker stops at its first refusal; a call takes 60–80 ms.
Peers are in the table when they are installed, each in the way that its authors recommend.

    python -m benchmarks.budget_race [name …]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from agent_meter.testing import LoopbackProvider, Reply

from .measuring import machine, table, title
from .racers import INPUT, LIMIT, OUTPUT, PRICE, Call, Racer, present

THREADS, CALLS, TASKS, ATTEMPTS, PROCESSES, EACH = 32, 8, 200, 40, 4, 8
ROOT = Path(__file__).parents[1]


def main(names: list[str]) -> None:
    title(f"Budget race, spent / limit ({machine()})")
    rows = []
    for racer in present():
        if not names or any(name in racer.name for name in names):
            rows.append((racer.name, *(_cell(racer, mode) for mode in MODES)))
            print(f"{racer.name}: {', '.join(rows[-1][1:])}", file=sys.stderr)
    table(("racer", *MODES), rows)


def _cell(racer: Racer, mode: str) -> str:
    if (racer.make_async if mode == "tasks" else racer.make) is None or (mode == "processes" and not racer.processes):
        return "–"
    # In a process and a folder of its own: some peers patch the SDK, some keep files where they are started.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.budget_race", "--cell", racer.name, mode]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout else "failed"


def race(racer: Racer, mode: str) -> float:
    """Spent / limit, as the provider counts."""
    dice = random.Random(1)
    with LoopbackProvider(
        lambda _: Reply("ok", input_tokens=INPUT, output_tokens=OUTPUT, delay=dice.uniform(0.06, 0.08))
    ) as provider:
        MODES[mode](racer, provider.openai_base_url)
        return len(provider.truth) * PRICE / LIMIT


def serial(racer: Racer, url: str) -> None:
    assert racer.make is not None
    call = racer.make(url, None)
    with contextlib.suppress(Exception):
        for _ in range(ATTEMPTS):
            call()


def threads(racer: Racer, url: str) -> None:
    assert racer.make is not None
    work(racer.make(url, None), THREADS)


def tasks(racer: Racer, url: str) -> None:
    assert racer.make_async is not None
    make = racer.make_async

    async def together() -> None:
        call = make(url)
        await asyncio.gather(*(call() for _ in range(TASKS)), return_exceptions=True)

    asyncio.run(together())


def processes(racer: Racer, url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.budget_race", "--worker", racer.name, url, f"{folder}/race.db"]
        workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(PROCESSES)]
        for worker in workers:
            if worker.wait(120):
                raise RuntimeError(f"a worker of {racer.name} ended with {worker.returncode}")


def work(call: Call, number: int) -> None:
    """So many threads, each up to `CALLS` calls or to its first exception, all beginning at once."""
    start = threading.Barrier(number)

    def worker() -> None:
        start.wait()
        with contextlib.suppress(Exception):
            for _ in range(CALLS):
                call()

    workers = [threading.Thread(target=worker) for _ in range(number)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()


MODES = {"serial": serial, "threads": threads, "tasks": tasks, "processes": processes}


def _worker(name: str, url: str, path: str) -> None:
    make = _named(name).make
    assert make is not None
    work(make(url, path), EACH)


def _named(name: str) -> Racer:
    return next(racer for racer in present() if racer.name == name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker(*sys.argv[2:5])
    elif sys.argv[1:2] == ["--cell"]:
        print(f"\n{race(_named(sys.argv[2]), sys.argv[3]):.2f}")
    else:
        main(sys.argv[1:])
