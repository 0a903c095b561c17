"""The command as people run it, and as tests run it quickly: the same code, in a folder with two price lists."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.ledgers import make
from typer.testing import CliRunner

from agent_meter.cli.app import app

LISTS = Path(__file__).with_name("lists")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Invoke = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the price lists and files of `lists/`, at 80 columns, and nothing in the environment."""
    shutil.copytree(LISTS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("AGENT_METER_") or name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """The command in this process: `invoke("prices", "show", "gpt-4o")` has `output`, `stdout`, `exit_code`."""

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, list(arguments), prog_name="agent-meter", **options)

    return run


@pytest.fixture(scope="session")
def _ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ledger") / "meter.db")


@pytest.fixture
def ledger(folder: Path, _ledger: Path) -> Path:
    """`meter.db` in the working directory, with the records of `ledgers.py`."""
    for file in _ledger.parent.glob("meter.db*"):
        shutil.copy(file, folder)
    return folder / "meter.db"


def installed() -> str:
    found = shutil.which("agent-meter", path=sysconfig.get_path("scripts"))
    assert found, "agent-meter is not installed beside this Python: pip install -e ."
    return found


@pytest.fixture
def run(folder: Path) -> Run:
    """The installed command in a process of its own."""
    command = installed()

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, encoding="utf-8", check=False, **options
        )

    return run
