"""What the README shows runs, and prints what it claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from agent_meter import Meter

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo() -> str:
    """The output of `make demo`'s program, run as a newcomer runs it."""
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "quickstart_langchain.py"], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_demo_meters_what_the_provider_served(demo: str) -> None:
    served, paid = re.findall(r"served ([\d,]+) tokens; the meter says ([\d,]+) were", demo)[0]

    assert served == paid


def test_the_demo_shows_calls_tools_and_a_replay_live(demo: str) -> None:
    live, _, after = demo.partition("📊 Usage Summary")

    assert re.search(r"researcher +gpt-4o +420 in +42 out +\$0\.001470 +\d+ ms +12 reasoning", live)
    assert re.search(r"writer +claude-sonnet-4-6 +2,600 in +210 out", live)
    assert "search failed" in live
    assert "replayed, $0 billed" in live
    assert "Saved: $0.000148" in after
    assert "Success rate: 50.0% (1/2)" in after


def test_the_demo_stops_a_runaway_loop_in_eight_threads_at_ten_cents(demo: str) -> None:
    _, _, runaway = demo.partition("A runaway loop in 8 threads")
    served, used = re.findall(r"calls, \$([\d.]+); the meter says \$([\d.]+) of \$0\.10", runaway)[0]

    assert served == used
    assert 0.95 <= float(served) / 0.10 <= 1
    assert "editing: 80% of budget used ($0.08)" in runaway
    assert "8 threads were refused" in runaway
    assert "Held by calls in flight: $0." in runaway


def test_fifty_threads_ask_once_and_the_cache_says_what_that_saved() -> None:
    program = ROOT / "examples" / "replay_cached_answers.py"
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100)

    assert run.returncode == 0, run.stderr
    assert "50 questions, 1 request, answers: {'A plugin system.'}" in run.stdout
    assert "Cache: 49 hits, 1 misses (98.0%)" in run.stdout
    assert "Saved: $0.171500" in run.stdout


def test_the_own_loop_meters_what_the_provider_served() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_loop.py"], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr

    served, metered = re.findall(r"served ([\d,]+) tokens; the meter says ([\d,]+)\.", run.stdout)[0]
    assert served == metered == "2,502"
    assert re.findall(r"Step (\d) used ([\d,]+) tokens", run.stdout) == [
        ("1", "462"),
        ("2", "622"),
        ("3", "658"),
        ("4", "760"),
    ]
    assert "nothing billed error, attempt 1" in run.stdout
    assert "· search failed: LookupError" in run.stdout
    assert "Success rate: 50.0% (1/2)" in run.stdout


def test_the_readme_shows_a_real_capture(demo: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    capture = readme.split("```text\n", 1)[1].split("\n```", 1)[0]
    timeless = re.compile(r" *[\d,]+ ms|\d\.\d{3}s| +$", re.MULTILINE)

    shown = [timeless.sub("", line) for line in capture.splitlines() if line.strip()]

    assert not [line for line in shown if line not in timeless.sub("", demo).splitlines()]


def test_the_readme_plugin_prices_its_models() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = readme.split("A whole plugin:\n\n```python\n", 1)[1].split("```", 1)[0]
    plugin = ModuleType("acme_rates")
    exec(source, vars(plugin))
    meter = Meter()
    meter.register(plugin)

    record = meter.record_usage(model="m1", provider="acme", input_tokens=1_000_000, output_tokens=1_000_000)

    assert str(record.cost_usd) == "1"
