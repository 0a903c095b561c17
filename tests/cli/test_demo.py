"""`agent-meter demo` runs the example where it is at hand, and says how to get it where it is not."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from agent_meter.cli import demo

from .conftest import Invoke, Run


def test_in_a_checkout_the_demo_runs(run: Run) -> None:
    result = run("demo")

    assert result.returncode == 0, result.stderr
    assert "researcher gpt-4o" in result.stdout
    assert result.stdout.endswith("Held by calls in flight: $0.\n")


@pytest.mark.parametrize("code", [0, 3])
def test_its_exit_code_is_the_examples(
    code: int, invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = folder / "example.py"
    example.write_text(f"raise SystemExit({code})", encoding="utf-8")
    monkeypatch.setattr(demo, "EXAMPLE", example)

    assert invoke("demo").exit_code == code


def test_what_is_missing_is_named_with_what_to_install(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("langchain", "langchain_openai"):
        monkeypatch.setitem(sys.modules, name, None)

    result = invoke("demo")

    sentence = "The demo needs langchain, langchain_openai: pip install 'agent-meter[demo]'\n"
    assert (result.exit_code, result.output) == (1, sentence)


def test_what_the_demo_needs_is_what_its_extra_installs() -> None:
    demanded = [line for line in metadata.requires("agent-meter") or () if "'demo'" in line.replace('"', "'")]

    for name in demo._NEEDS:
        assert any(line.startswith(name.replace("_", "-")) for line in demanded), name


def test_without_the_example_it_says_how_to_get_it(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "EXAMPLE", folder / "examples" / "quickstart_langchain.py")

    result = invoke("demo")

    assert result.exit_code == 1
    assert result.output.startswith(f"The demo is examples{os.sep}quickstart_langchain.py in the source distribution")
    assert "--no-binary agent-meter agent-meter" in result.output
