"""However a process ends, what was acknowledged is in the ledger; and but for the rudest ends, so is the rest."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from agent_meter.store import SQLiteStore

PRELUDE = """
import asyncio, multiprocessing, os, signal, sys, threading, time
from agent_meter import Meter

def spend(meter, calls, **who):
    for _ in range(calls):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=10, output_tokens=1, **who)

PATH = sys.argv[1]
"""

SPEND = "meter = Meter(store=PATH); spend(meter, 200)"
ENDS = {
    "return": (SPEND, 0),
    "sys.exit": (f"{SPEND}; sys.exit(3)", 3),
    "exception": (f"{SPEND}; raise RuntimeError('no')", 1),
    "with": ("with Meter(store=PATH) as meter: spend(meter, 200); raise RuntimeError('no')", 1),
    "SIGINT": (
        "meter = Meter(store=PATH); spend(meter, 200); os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
        None,
    ),
    "SIGTERM": (
        "meter = Meter(store=PATH); spend(meter, 200); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
        -15,
    ),
    "SIGTERM with a handler of one's own": (
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        meter = Meter(store=PATH); spend(meter, 200)
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)
        """,
        7,
    ),
    "SIGTERM with a later handler": (
        """
        meter = Meter(store=PATH); spend(meter, 200)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)
        """,
        7,
    ),
    "SIGTERM in the middle of everything": (
        """
        meter = Meter(store=PATH)
        def busy():
            while True: meter.flush()
        spend(meter, 200)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        busy()
        """,
        -15,
    ),
    "os.fork": (
        """
        meter = Meter(store=PATH); spend(meter, 100)
        if (child := os.fork()) == 0:
            spend(meter, 100)
            sys.exit(0)
        os.waitpid(child, 0)
        """,
        0,
    ),
    "fork from a busy process": (
        """
        meter = Meter(store=PATH)
        stop = threading.Event()
        def work():
            while not stop.is_set(): meter.flush(); time.sleep(0)
        threading.Thread(target=work, daemon=True).start()
        children = []
        for _ in range(10):
            spend(meter, 10)
            if (child := os.fork()) == 0:
                spend(meter, 10); meter.flush(); os._exit(0)
            children.append(child)
        for child in children: assert os.waitpid(child, 0)[1] == 0
        stop.set()
        """,
        0,
    ),
    "multiprocessing fork": (
        """
        meter = Meter(store=PATH); spend(meter, 100)
        child = multiprocessing.get_context("fork").Process(target=spend, args=(meter, 100))
        child.start(); child.join(); assert child.exitcode == 0
        """,
        0,
    ),
    "prefork": (
        """
        meter = Meter(store=PATH); spend(meter, 20)          # a server loads the application, then forks its workers
        def worker():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            spend(meter, 45); os.write(ready, b"."); time.sleep(60)
        seen, ready = os.pipe()
        children = []
        for _ in range(4):
            if (child := os.fork()) == 0: worker()
            children.append(child)
        for _ in children: os.read(seen, 1)
        for child in children: os.kill(child, signal.SIGTERM)
        for child in children: os.waitpid(child, 0)
        """,
        0,
    ),
    "asyncio cancellation": (
        """
        meter = Meter(store=PATH)
        async def work(done):
            with meter.run("agent"):
                for _ in range(200):
                    spend(meter, 1); await asyncio.sleep(0)
                done.set(); await asyncio.sleep(60)
        async def main():
            done = asyncio.Event()
            task = asyncio.create_task(work(done)); await done.wait(); task.cancel()
            try: await task
            except asyncio.CancelledError: pass
        asyncio.run(main())
        """,
        0,
    ),
}


def run(tmp_path, body):
    path = tmp_path / "meter.db"
    code = PRELUDE + textwrap.dedent(body)
    return path, subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost(tmp_path, end):
    body, code = ENDS[end]

    path, done = run(tmp_path, body)

    assert code is None or done.returncode == code, done.stderr
    store = SQLiteStore(path)
    assert store.usage().requests == 200, done.stderr
    assert store.verify().ok


def test_spawned_processes_share_the_file(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent("""
            def work(path, number):
                spend(Meter(store=path), 50, agent=f"a{number}")
            if __name__ == "__main__":
                context = multiprocessing.get_context("spawn")
                children = [context.Process(target=work, args=(PATH, number)) for number in range(3)]
                for child in children: child.start()
                for child in children: child.join()
                spend(Meter(store=PATH), 50)
            """)
    )

    subprocess.run([sys.executable, script, tmp_path / "meter.db"], check=True, timeout=60)

    assert SQLiteStore(tmp_path / "meter.db").usage().requests == 200


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    body = """
        meter = Meter(store=PATH)
        while True:
            spend(meter, 3)
            meter.flush()
            os.write(1, b"3")
        """
    path, found = tmp_path / "meter.db", 0
    for _ in range(4):
        code = PRELUDE + textwrap.dedent(body)
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        acknowledged = len(child.stdout.read(30))
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += len(child.stdout.read())
        child.wait()
        before, store = found, SQLiteStore(path)
        found = store.usage().requests

        assert found - before >= acknowledged * 3
        assert store.verify().ok
