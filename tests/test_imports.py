"""What `import agent_meter` promises: light, and free of frameworks. And who may import what."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "agent_meter"
FRAMEWORKS = {
    "anthropic", "google", "langchain", "langchain_anthropic", "langchain_core", "langchain_openai", "langgraph",
    "llama_index", "mamba_agents", "openai", "pydantic", "pydantic_ai", "selectools",
}  # fmt: skip
HEAVY = {"genai_prices", "tiktoken", "httpx", "requests", "rich", "typer", "numpy"}
DRIVERS = {"sqlite3", "psycopg", "psycopg2", "asyncpg", "redis", "pyarrow"}


def loaded(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a program."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize(
    "program",
    [
        "import agent_meter",
        "from agent_meter import Meter, hookimpl, BudgetExceeded, TokenUsage; Meter()",
        "from agent_meter import Meter, AgentObserver; Meter().observe(AgentObserver())",
    ],
)
def test_the_front_door_loads_no_framework_no_price_list_no_tokenizer_and_no_database(program: str) -> None:
    assert loaded(program) & (FRAMEWORKS | HEAVY | DRIVERS) == set()


def test_the_adapters_of_packages_that_are_not_here_need_none_of_them() -> None:
    program = (
        "from agent_meter.adapters.selectools import MeterObserver, MeteredProvider; MeterObserver()\n"
        "from agent_meter.adapters.mamba import MeterWorkflowHooks; MeterWorkflowHooks()"
    )

    assert loaded(program) & (FRAMEWORKS | DRIVERS | {"tiktoken", "httpx"}) == set()


def test_a_metered_run_of_an_own_loop_loads_no_framework() -> None:
    program = (
        "from agent_meter import Meter, TokenUsage\n"
        "with (meter := Meter()).run('r') as run, run.step() as step:\n"
        "    with step.llm('gpt-4o') as call: call.finish(TokenUsage(1, 1))\n"
        "    with step.llm('gpt-4o') as call: call.finish({'usage': {'prompt_tokens': 1, 'completion_tokens': 1}})\n"
        "    with step.tool('t', {'q': 1}): pass\n"
        "assert meter.usage.total_tokens == 4, meter.usage\n"
        "str(meter.usage), meter.analytics.summary()"
    )

    assert loaded(program) & (FRAMEWORKS | DRIVERS | {"tiktoken"}) - {"pydantic", "google"} == set()


# Best of many, interleaved, in fresh interpreters: the best is what the machine can do when it is left alone.
TIMER = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def _seconds(module: str, environment: dict[str, str]) -> float:
    run = subprocess.run(
        [sys.executable, "-c", TIMER.format(module)], capture_output=True, text=True, check=True, env=environment
    )
    return float(run.stdout)


def test_it_is_imported_in_at_most_two_and_a_half_times_the_time_of_pluggy(tmp_path: Path) -> None:
    # With bytecode, as it is once installed: pluggy's was compiled when it was.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    best = {"pluggy": float("inf"), "agent_meter": float("inf")}
    for attempt in range(40):
        for module in best:
            best[module] = min(best[module], _seconds(module, environment))
        if attempt >= 4 and best["agent_meter"] <= 2.5 * best["pluggy"]:
            break

    assert best["agent_meter"] <= 2.5 * best["pluggy"]


# --------------------------------------------------------------------------------------------- who imports whom


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_frameworks_are_imported_in_their_adapters_only() -> None:
    outside = {
        str(path.relative_to(SOURCE)): names
        for path in SOURCE.rglob("*.py")
        if "adapters" not in path.parts and (names := {n.partition(".")[0] for n in imported(path)} & FRAMEWORKS)
    }

    assert outside == {}


def test_the_nouns_import_nothing_of_ours() -> None:
    def of_ours(name: str) -> set[str]:
        return {module for module in imported(SOURCE / name) if module.startswith((".", "agent_meter"))}

    assert of_ours("records.py") - {".usage", ".joining"} == set()  # types of fields, under TYPE_CHECKING
    assert of_ours("errors.py") == {".records"}
    assert of_ours("hookspecs.py") <= {".records", ".meter"}  # types of arguments


def test_the_core_imports_no_adapter_when_it_is_loaded() -> None:
    program = "import agent_meter, sys; agent_meter.Meter; print([m for m in sys.modules if '.adapters' in m])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("adapter", "name", "framework", "install"),
    [
        ("langchain", "MeterCallback", "langchain_core", "agent-meter[langchain]"),
        ("llama_index", "MeterHandler", "llama_index_instrumentation", "agent-meter[llama-index]"),
        ("mamba", "MeteredModel", "pydantic_ai", "pydantic-ai-slim"),
    ],
)
def test_an_adapter_without_its_framework_says_what_to_install(
    adapter: str, name: str, framework: str, install: str
) -> None:
    program = f"import sys; sys.modules[{framework!r}] = None; from agent_meter.adapters.{adapter} import {name}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert run.stderr.splitlines()[-1] == f"ModuleNotFoundError: {name} needs {framework}: pip install '{install}'"
