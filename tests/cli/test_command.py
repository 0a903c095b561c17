"""The command as a whole: how it starts, how it fails, what it looks like on a terminal and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from agent_meter import __version__
from agent_meter.cli import main

from .conftest import Invoke, Run, installed

HEAVY = ("genai_prices", "tiktoken", "agent_meter.pricing", "agent_meter.tokens", "agent_meter.meter")


def test_the_entry_point_is_the_main_function() -> None:
    (script,) = entry_points(group="console_scripts", name="agent-meter")

    assert script.load() is main


def test_version_is_printed_and_nothing_heavy_imported_for_it(folder: Path) -> None:
    program = (
        "import sys\n"
        "from agent_meter.cli import main\n"
        "try: main(['--version'])\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, f"agent-meter {__version__}\n[]\n")


@pytest.mark.parametrize("blocked", [("typer",), ("rich",), ("typer", "rich")])
def test_without_the_extra_one_sentence_says_what_to_install(blocked: tuple[str, ...], folder: Path) -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from agent_meter.cli import main; main()"

    result = subprocess.run([sys.executable, "-c", program, "prices"], capture_output=True, text=True, check=False)

    sentence = "agent-meter needs its command line extra: pip install 'agent-meter[cli]'\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", sentence)


@pytest.mark.parametrize("module", ["agent_meter", "agent_meter.cli"])
def test_it_runs_as_a_module_too(module: str, folder: Path) -> None:
    command = [sys.executable, "-m", module, "--version"]

    assert subprocess.check_output(command, text=True) == f"agent-meter {__version__}\n"


@pytest.mark.parametrize(
    "typed", ["", "--help", "prices --help", "prices show --help", "prices list --help", "prices diff --help",
              "prices update --help", "prices check --help", "whatif --help", "count --help", "demo --help"],
)  # fmt: skip
def test_help_fits_80_columns_and_shows_every_command(typed: str, invoke: Invoke) -> None:
    result = invoke(*typed.split())

    assert result.exit_code == (0 if typed else 2)
    assert max(map(len, result.output.splitlines())) <= 80
    if typed in ("", "--help"):
        assert {*re.findall(r"^  (\w+) ", result.output, re.MULTILINE)} >= {"prices", "whatif", "count", "demo"}


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("price show gpt-4o", "prices"),
        ("prices shwo gpt-4o", "show"),
        ("prices show gpt-4o --provder openai", "--provider"),
        ("prices show", "model"),
        ("prices update", "--file"),
        ("whatif --input 10", "--model"),
        ("whatif --model x --ouput 10", "--output"),
    ],
)
def test_a_usage_error_names_the_nearest_right_word_and_exits_with_2(typed: str, named: str, invoke: Invoke) -> None:
    result = invoke(*typed.split())

    assert result.exit_code == 2
    assert re.search(rf"^Error: .*{re.escape(named)}", result.output, re.MULTILINE), result.output


def test_a_broken_price_file_is_a_sentence_with_its_line_for_every_command_that_prices(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_PRICES", "misspelt.toml")
    for typed in ("prices show gpt-4o", "prices list", "whatif --model gpt-4o --input 1"):
        result = invoke(*typed.split())

        sentence = "Error: misspelt.toml, line 3: prices.\"house-model\".ouput: unknown key; did you mean 'output'?\n"
        assert (result.exit_code, result.output) == (1, sentence)


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    with subprocess.Popen(
        [installed(), "prices", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "US$" in process.stdout.readline()
        process.stdout.close()

        assert process.stderr.read() == ""


def test_an_old_code_page_gets_question_marks_and_not_an_error(run: Run, folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "AGENT_METER_PRICE_LIST": "may.json"}

    result = run("whatif", "--model", "acme/wren-embed", "--input", "1000", "--output", "1", env=environment)

    assert result.returncode == 0
    assert "? $0.00002" in result.stdout


def test_in_a_pipe_nothing_is_folded_and_nothing_coloured(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")

    result = run("prices", "list")

    assert "\x1b" not in result.stdout
    assert "nests/wren-mini-with-a-name-that-is-longer-than-any-table:free " in result.stdout
    assert "cache_write" in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def on_a_terminal(columns: int, *typed: str) -> str:
    """What the installed command writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen([installed(), *typed], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0
    return written.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_table_fits_a_terminal_of_80_columns_and_widens_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")
    narrow, wide = (plain(on_a_terminal(columns, "prices", "list")) for columns in (80, 140))

    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert "cache_write" not in narrow
    assert "cache_write" in wide
    assert "nests/wren-mini-with-a-name-that-is-longer-than-any-table:free " in wide


def test_no_color_leaves_no_colour_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ("prices", "diff", "may.json", "june.json")
    colour = re.compile(r"\x1b\[(?:[0-9]+;)*[349][0-7]m")

    assert colour.search(on_a_terminal(80, *typed))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(on_a_terminal(80, *typed))
