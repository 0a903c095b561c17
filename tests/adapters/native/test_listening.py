"""Ready-made observers: async twins, one callback for everything, one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.adapters.native.listener import USAGE

from agent_meter import AgentObserver, AsyncAgentObserver, LoggingObserver, Meter, SimpleStepObserver, StepObserver

ALL = sorted(name for name in dir(AgentObserver) if name.startswith("on_"))


def agent(meter: Meter) -> None:
    """A run with everything in it: a tool that works, one that fails, a failed call, a replay."""
    with meter.run("research", agent="researcher") as run, run.step() as step:
        with contextlib.suppress(TimeoutError), step.llm("gpt-4o", provider="openai"):
            raise TimeoutError("the prompt was: SECRET")
        with step.llm("gpt-4o", provider="openai") as call:
            call.call.content = [{"role": "user", "content": "SECRET"}]
            call.finish({"usage": {"prompt_tokens": 30, "completion_tokens": 15}, "choices": [{"text": "SECRET"}]})
        with step.llm("gpt-4o", provider="openai") as call:
            call.finish(USAGE, cached=True)
        with step.tool("search", {"q": "SECRET"}) as tool:
            tool.result("SECRET")
        with contextlib.suppress(LookupError), step.tool("search", {"q": "SECRET"}):
            raise LookupError("SECRET")


# ---------------------------------------------------------------------------------------------- async twins


def test_every_event_has_an_async_twin_with_the_same_arguments() -> None:
    for name in ALL:
        twin = getattr(AsyncAgentObserver, f"a_{name}")

        assert inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin) == inspect.signature(getattr(AgentObserver, name))


class Both(AsyncAgentObserver):
    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def on_usage(self, run_id: str, usage: Any) -> None:
        self.heard.append(("plain", usage.total_tokens))

    async def a_on_usage(self, run_id: str, usage: Any) -> None:
        await asyncio.sleep(0)
        self.heard.append(("twin", usage.total_tokens))


def test_a_twin_is_told_beside_the_plain_event_in_synchronous_code() -> None:
    observer, meter = Both(), Meter()
    meter.observe(observer)
    meter.record_usage(model="gpt-4o", input_tokens=45)
    observer.drain()

    assert observer.heard == [("plain", 45), ("twin", 45)]


async def test_a_twin_is_told_beside_the_plain_event_under_an_event_loop() -> None:
    observer, meter = Both(), Meter()
    meter.observe(observer)
    meter.record_usage(model="gpt-4o", input_tokens=45)
    await observer.adrain()

    assert observer.heard == [("plain", 45), ("twin", 45)]


def test_a_twin_that_nobody_wrote_costs_no_task() -> None:
    observer, meter = AsyncAgentObserver(), Meter(strict=True)
    meter.observe(observer)
    agent(meter)

    assert observer._tasks == set()


def test_a_failing_event_does_not_keep_its_twin_from_being_told() -> None:
    class Failing(Both):
        def on_usage(self, run_id: str, usage: Any) -> None:
            raise RuntimeError("out of paper")

    observer, meter = Failing(), Meter()
    meter.observe(observer)
    meter.record_usage(model="gpt-4o", input_tokens=45)
    observer.drain()

    assert observer.heard == [("twin", 45)]
    assert meter.health()["failures"] == {"Failing": {"on_usage": 1}}


# ------------------------------------------------------------------------------------------- one callback


def test_a_step_observer_hears_every_event_by_name() -> None:
    heard: list[tuple[str, str, dict[str, Any]]] = []
    meter = Meter(strict=True)
    meter.observe(StepObserver(lambda event, run_id, **told: heard.append((event, run_id, told))))
    agent(meter)

    assert [event for event, _, _ in heard] == [
        "run_start", "iteration_start",
        "llm_start", "llm_error", "usage",
        "llm_start", "llm_end", "usage",
        "llm_start", "llm_end", "cache_hit", "usage",
        "tool_start", "tool_end", "tool_start", "tool_error",
        "iteration_end", "run_end",
    ]  # fmt: skip
    assert len({run_id for _, run_id, _ in heard}) == 1
    assert heard[2][2] == {"messages": None, "model": "gpt-4o", "system_prompt": ""}
    assert heard[12][2] == {"call_id": heard[12][2]["call_id"], "tool_name": "search", "tool_args": {"q": "SECRET"}}


def test_a_step_observer_serves_a_framework_that_calls_it_directly() -> None:
    """selectools calls the methods by position, and only those that the observer has."""
    heard: list[Any] = []
    observer = SimpleStepObserver(lambda event, run_id, **told: heard.append((event, run_id, told)))
    observer.on_batch_start("b1", 3)
    observer.on_memory_trim("r1", 2, 5, "full")

    assert heard == [
        ("batch_start", "b1", {"prompts_count": 3}),
        ("memory_trim", "r1", {"messages_removed": 2, "messages_remaining": 5, "reason": "full"}),
    ]
    assert SimpleStepObserver is StepObserver


def test_the_callback_may_be_async() -> None:
    heard: list[str] = []

    async def callback(event: str, run_id: str, **told: Any) -> None:
        heard.append(event)

    observer, meter = StepObserver(callback), Meter()
    meter.observe(observer)
    meter.record_usage(model="gpt-4o", input_tokens=1)
    observer.drain()

    assert heard == ["llm_end", "usage"]


# ------------------------------------------------------------------------------------------- lines of a log


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


@pytest.fixture
def log() -> Iterator[Lines]:
    logger, lines = logging.getLogger("agent_meter.observer"), Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(logging.NOTSET)


def test_a_log_has_one_json_object_a_line_for_every_event(log: Lines) -> None:
    meter = Meter(strict=True)
    meter.observe(LoggingObserver())
    agent(meter)

    assert len(log.lines) == 18
    assert all(list(line)[:3] == ["event", "run_id", "ts"] for line in log.lines)
    assert all("\n" not in text for text in log.texts)
    assert None not in [value for line in log.lines for value in line.values()]


def test_sums_over_a_log_are_what_the_meter_says(log: Lines) -> None:
    meter = Meter(strict=True)
    meter.observe(LoggingObserver())
    agent(meter)

    assert sum(line.get("total_tokens", 0) for line in log.lines) == meter.usage.total_tokens == 90
    assert sum(line.get("cost_pico", 0) for line in log.lines) == meter.usage.totals.list_pico
    assert sum(line.get("billed_pico", 0) for line in log.lines) == meter.usage.totals.billed_pico


def test_a_usage_line_says_what_is_known_and_leaves_out_what_is_not(log: Lines) -> None:
    meter = Meter(strict=True)
    meter.observe(LoggingObserver())
    with meter.llm("zz-unpriced", user="ada"):
        pass

    (line,) = [line for line in log.lines if line["event"] == "usage"]
    assert (line["model"], line["user"], line["cost_status"], line["estimated"]) == (
        "zz-unpriced",
        "ada",
        "unpriced",
        True,
    )
    assert not {"cost_usd", "cost_pico", "total_tokens", "input_tokens"} & set(line)


def test_a_log_has_no_content_unless_asked(log: Lines) -> None:
    meter = Meter(strict=True)
    meter.observe(plain := LoggingObserver())
    agent(meter)

    assert not [text for text in log.texts if "SECRET" in text]
    assert [line["tool_args"] for line in log.lines if line["event"] == "tool_start"] == [["q"], ["q"]]
    assert [line["error"] for line in log.lines if "error" in line] == ["TimeoutError", "LookupError"]

    log.texts.clear()
    meter.unregister(plain)
    meter.observe(LoggingObserver(wants_content=True))
    agent(meter)
    assert {line["event"] for line, text in zip(log.lines, log.texts, strict=True) if "SECRET" in text} == {
        "llm_error", "llm_end", "tool_start", "tool_end", "tool_error",
    }  # fmt: skip


def test_nothing_is_written_where_nobody_reads(log: Lines) -> None:
    logging.getLogger("agent_meter.observer").setLevel(logging.WARNING)
    meter = Meter(strict=True)
    meter.observe(LoggingObserver())
    agent(meter)

    assert log.texts == []


def test_a_log_may_have_another_name_and_level(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(strict=True)
    meter.observe(LoggingObserver("mine", logging.WARNING))
    meter.record_usage(model="gpt-4o", input_tokens=1)

    assert [(record.name, record.levelname) for record in caplog.records if record.name == "mine"] == [
        ("mine", "WARNING")
    ] * 2


def test_a_log_reads_the_usage_of_the_framework_that_calls_it(log: Lines) -> None:
    class UsageStats:
        """selectools' own."""

        prompt_tokens, completion_tokens, total_tokens = 30, 15, 45
        cost_usd, model, provider = 0.5, "gpt-4o", "openai"

    LoggingObserver().on_usage("r1", UsageStats())

    (line,) = log.lines
    assert (line["event"], line["run_id"], line["total_tokens"], line["cost_usd"], line["model"]) == (
        "usage",
        "r1",
        45,
        0.5,
        "gpt-4o",
    )
