"""What a power cut leaves: everything that was acknowledged with durability="full", a beginning of it with "normal".

The disk is a model: what was not waited for may be there or not, whole writes of it in any combination, which is more
than most disks dare to do.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent_meter.store import SQLiteStore

WRITES = """
import os, sys
from agent_meter import Meter
meter = Meter(store=sys.argv[1], durability=sys.argv[2])
acknowledged = os.open(os.path.join(os.path.dirname(sys.argv[1]), "ledger.acks"), os.O_WRONLY | os.O_CREAT)
for n in range(int(sys.argv[3])):
    ids = [meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1).id for _ in range(5)]
    meter.flush()
    os.write(acknowledged, "".join(ids).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if (compiler is None or not sys.platform.startswith("linux")) and not os.environ.get("CI"):
        pytest.skip("needs Linux and a C compiler: apt-get install gcc")
    library = tmp_path_factory.mktemp("shim") / "powercut.so"
    source = Path(__file__).with_name("powercut.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def events(log):
    data, place = log.read_bytes(), 0
    while place < len(data):
        end = data.index(b"\n", place)
        what, name, offset, size = data[place:end].decode().split(" ")
        place = end + 1
        content = b""
        if what in "wa":
            content = data[place : place + int(size)]
            place += int(size)
        yield what, name, int(offset), int(size), content


class Disk:
    """Files as a power cut would leave them: what was waited for, and some of the rest."""

    def __init__(self):
        self.safe, self.loose = {}, {}

    def see(self, what, name, offset, size, content):
        if what in "wt":
            self.loose.setdefault(name, []).append((what, offset, size, content))
        elif what == "s":
            self.safe[name] = self._with(name, self.loose.pop(name, []))
        elif what == "u":  # SQLite waits for the folder after it has deleted a journal
            self.safe.pop(name, None)
            self.loose.pop(name, None)

    def _with(self, name, changes):
        file = bytearray(self.safe.get(name, b""))
        for what, offset, size, content in changes:
            if what == "t":
                del file[size:]
                file.extend(bytes(size - len(file)))
            else:
                file.extend(bytes(max(0, offset + len(content) - len(file))))
                file[offset : offset + len(content)] = content
        return bytes(file)

    def cut(self, folder, chance):
        kept = chance.choice((0.0, 0.5, 0.9))
        for name in {*self.safe, *self.loose}:
            changes = [change for change in self.loose.get(name, ()) if chance.random() < kept]
            (folder / name).write_bytes(self._with(name, changes))


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("cuts", [12, pytest.param(50, marks=pytest.mark.soak)])
def test_a_power_cut(tmp_path, shim, durability, cuts):
    number = 60 if cuts < 20 else 400
    live = tmp_path / "live"
    live.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "POWERCUT_LOG": str(tmp_path / "log")}
    command = [sys.executable, "-c", WRITES, str(live / "ledger.db"), durability, str(number)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    seen = list(events(tmp_path / "log"))
    first = next(place for place, event in enumerate(seen) if event[0] == "a")
    acks = sum(event[0] == "a" for event in seen)
    assert acks == number

    chance, lost = random.Random(cuts), 0
    for cut in range(cuts):
        folder, disk, acknowledged = tmp_path / f"cut-{cut}", Disk(), []
        folder.mkdir()
        for event in seen[: chance.randrange(first + 1, len(seen))]:
            if event[0] == "a":
                text = event[4].decode()
                acknowledged += [text[place : place + 36] for place in range(0, len(text), 36)]
            else:
                disk.see(*event)
        disk.cut(folder, chance)

        assert sqlite3.connect(folder / "ledger.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store = SQLiteStore(folder / "ledger.db")
        stored = [record.id for record in store.changes(limit=10**6)[0]]
        assert store.verify().ok
        if durability == "full":
            assert set(acknowledged) <= set(stored)
        else:
            lost += len(set(acknowledged) - set(stored))
            assert stored[: len(acknowledged)] == acknowledged[: len(stored)], "what is left is the beginning"
        store.close()
        shutil.rmtree(folder)
    if durability == "normal":
        assert lost > 0, "the model cuts nothing off"
