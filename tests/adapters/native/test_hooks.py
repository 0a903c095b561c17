"""WorkflowHooks: which callbacks come, with what, and what happens when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.adapters.native.listener import USAGE
from tests.pages import run_examples

from agent_meter import (
    AgentObserver,
    Budget,
    BudgetExceeded,
    Call,
    Kind,
    Meter,
    Status,
    TokenUsage,
    WorkflowHooks,
    WorkflowResult,
    WorkflowState,
    WorkflowStep,
)
from agent_meter.adapters.native import ReActHooks
from agent_meter.testing import FakeClock

CALLBACKS = [
    "on_workflow_start",
    "on_workflow_complete",
    "on_workflow_error",
    "on_step_start",
    "on_step_complete",
    "on_step_error",
    "on_iteration_start",
    "on_iteration_complete",
    "on_thought",
    "on_action",
    "on_observation",
    "on_compaction",
]


def listening(heard: list[tuple[Any, ...]], **options: Any) -> WorkflowHooks:
    """Hooks that write down every callback with its arguments."""
    hooks = {name: (lambda *args, name=name: heard.append((name, *args))) for name in CALLBACKS}
    return WorkflowHooks(**hooks, **options)


def test_the_sample_of_the_seed_document_works_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def log_usage(state, step):  # type: ignore[no-untyped-def]
        usage = state.context.get("usage", {})
        print(f"Step {step.step_number} used {usage.get('tokens', 0)} tokens")

    hooks = WorkflowHooks(on_step_complete=log_usage)
    meter = Meter(strict=True)
    meter.observe(hooks)
    with meter.run("research") as run:
        for tokens in (30, 70):
            with run.step() as step, step.llm("gpt-4o") as call:
                call.finish(TokenUsage(tokens, 15))

    assert capsys.readouterr().out == "Step 1 used 45 tokens\nStep 2 used 85 tokens\n"


def test_a_run_is_told_from_beginning_to_end() -> None:
    heard: list[tuple[Any, ...]] = []
    clock = FakeClock()
    meter = Meter(strict=True, clock=clock)
    meter.observe(listening(heard))
    with meter.run("research") as run, run.step("plan") as step:
        with step.llm("gpt-4o") as call:
            call.finish(USAGE)
        with step.tool("search", {"q": "x"}) as tool:
            clock.advance(2)
            tool.result(["found"])

    assert [event for event, *_ in heard] == [
        "on_workflow_start", "on_iteration_start", "on_step_start", "on_action", "on_observation", "on_step_complete",
        "on_iteration_complete", "on_workflow_complete",
    ]  # fmt: skip
    told = {event: args for event, *args in heard}
    state, step_told = told["on_step_complete"]
    result = told["on_workflow_complete"][0]
    assert told["on_step_start"][1:] == [1, "plan"]
    assert told["on_iteration_start"][1:] == told["on_iteration_complete"][1:] == [1]
    assert told["on_action"][1:] == ["search", {"q": "x"}]
    assert told["on_observation"][1:] == ["['found']", False]
    assert (state.run_id, state.name, state.current_step, state.total_steps) == (run.id, "research", 1, 1)
    assert (step_told.step_number, step_told.step_type, step_told.success) == (1, "plan", True)
    assert (step_told.duration_seconds, step_told.started_at.tzinfo, step_told.usage.requests) == (2.0, UTC, 1)
    assert step_told.metadata["id"] == step.id
    assert state.get_latest_step() is state.get_step(1) is step_told
    assert state.context["usage"]["cost_usd"] == Decimal("0.000225")
    assert isinstance(result, WorkflowResult)
    assert (result.success, result.total_steps, result.total_iterations, result.duration_seconds) == (True, 1, 1, 2.0)
    assert (result.termination_reason, result.state.is_complete, result.state.is_failed) == ("completed", True, False)


def test_a_steps_usage_is_its_own_and_the_runs_is_everything() -> None:
    """Each model call counts in the nearest step around it, through tools and sub-agents without steps."""
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))

    def ask(tokens: int) -> None:
        with meter.llm("gpt-4o") as call:
            call.finish(TokenUsage(tokens))

    with meter.run("outer") as outer:
        ask(1)
        with outer.step("tools"):
            ask(10)
            with meter.tool("t"):
                ask(100)
                with meter.run("plain sub-agent"):
                    ask(1_000)
                with meter.run("sub-agent with steps") as inner, inner.step("below"):
                    ask(10_000)

    steps = {step.description: state.context["usage"]["tokens"] for event, state, step in heard_of(heard, 3)}
    runs = {args[0].state.name: args[0].state.context["usage"]["tokens"] for _, *args in heard_of(heard, 2)}
    assert steps == {"below": 10_000, "tools": 1_110}
    assert runs == {"plain sub-agent": 1_000, "sub-agent with steps": 10_000, "outer": 11_111}


def heard_of(heard: list[tuple[Any, ...]], length: int) -> list[tuple[Any, ...]]:
    event = {2: "on_workflow_complete", 3: "on_step_complete"}[length]
    return [told for told in heard if told[0] == event]


def test_a_failed_step_and_a_failed_run_are_errors_and_never_complete() -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    error = ValueError("no")
    with contextlib.suppress(ValueError), meter.run("r") as run, run.step() as step:
        with step.llm("gpt-4o") as call:
            call.finish(USAGE)
        raise error

    told = {event: args for event, *args in heard}
    assert list(told) == [
        "on_workflow_start", "on_iteration_start", "on_step_start", "on_step_error", "on_iteration_complete",
        "on_workflow_error",
    ]  # fmt: skip
    state, failed, what = told["on_step_error"]
    assert (failed.success, failed.error, what) == (False, error, error)
    assert state.context["usage"]["tokens"] == 45
    state, what = told["on_workflow_error"]
    assert (what, state.is_failed, state.is_complete, state.context["usage"]["tokens"]) == (error, True, False, 45)


@pytest.mark.parametrize(("status", "told"), [("cancelled", "cancelled"), ("abandoned", "expired"), ("error", "error")])
def test_where_there_is_no_exception_its_name_is_told(status: str, told: str) -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    run = meter.open(Call(Kind.RUN, "r"))
    if status == "abandoned":
        meter.expire(older_than=-1)
    else:
        meter.close(run, status=Status(status))

    assert heard[-1][0] == "on_workflow_error"
    assert heard[-1][2] == told


def test_a_tool_that_fails_is_an_observation_of_an_error() -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    with contextlib.suppress(LookupError), meter.tool("search", {"q": 1}):
        raise LookupError("nothing found")
    with meter.tool("search") as tool:
        tool.fail("not_found")

    observations = [(text, failed) for event, _, text, failed in [h for h in heard if h[0] == "on_observation"]]
    assert observations == [("LookupError: nothing found", True), ("not_found", True)]


def test_an_observation_is_the_text_of_the_message_that_a_framework_makes_of_it() -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    with meter.tool("search") as tool:
        tool.result(SimpleNamespace(content="3 articles", tool_call_id="c1"))
    with meter.tool("search") as tool:
        tool.result(["found"])

    assert [told[2] for told in heard if told[0] == "on_observation"] == ["3 articles", "['found']"]


def test_content_is_asked_for_when_somebody_hears_it() -> None:
    heard: list[tuple[Any, ...]] = []
    quiet = WorkflowHooks(on_step_complete=lambda *_: None)
    assert quiet.wants_content is False
    meter = Meter(strict=True)
    meter.observe(listening(heard, wants_content=False))
    with meter.tool("search") as tool:
        tool.result("SECRET")
    with contextlib.suppress(LookupError), meter.tool("search"):
        raise LookupError("SECRET")

    assert meter.wants_content is False
    assert [told[2:] for told in heard if told[0] == "on_observation"] == [("", False), ("LookupError", True)]
    assert WorkflowHooks(on_observation=print).wants_content is True


def test_thoughts_and_compactions_are_told_by_the_loop() -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    with meter.run("r") as run:
        with run.step() as step:
            step.thought("I should search")
        meter.tell("on_compaction", {"removed_count": 3})

    thought, compaction = (told for told in heard if told[0] in ("on_thought", "on_compaction"))
    assert (thought[0], thought[1].run_id, thought[1].current_thought) == ("on_thought", run.id, "I should search")
    assert thought[2] == "I should search"
    assert compaction == ("on_compaction", {"removed_count": 3})


@pytest.mark.parametrize("under_a_loop", [True, False])
def test_callbacks_may_be_async_and_find_their_own_steps_usage(under_a_loop: bool) -> None:
    """A callback that runs later still finds the usage of its step, not that of the latest."""
    seen: list[tuple[int, int]] = []

    async def on_step_complete(state: WorkflowState, step: WorkflowStep) -> None:
        await asyncio.sleep(0.01)
        seen.append((step.step_number, state.context["usage"]["tokens"]))

    hooks, meter = WorkflowHooks(on_step_complete=on_step_complete), Meter()
    meter.observe(hooks)

    def work() -> None:
        with meter.run("r") as run:
            for number in range(1, 6):
                with run.step() as step, step.llm("gpt-4o") as call:
                    call.finish(TokenUsage(number * 10))

    async def main() -> None:
        work()
        await hooks.adrain()

    if under_a_loop:
        asyncio.run(main())
    else:
        work()
        hooks.drain()

    assert sorted(seen) == [(number, number * 10) for number in range(1, 6)]


def test_steps_of_one_run_in_many_threads_keep_their_usage_apart() -> None:
    wrong: list[Any] = []
    barrier = threading.Barrier(4)

    def on_step_complete(state: WorkflowState, step: WorkflowStep) -> None:
        if state.context["usage"]["tokens"] != int(step.description):
            wrong.append((state, step))

    hooks, meter = WorkflowHooks(on_step_complete=on_step_complete), Meter(strict=True)
    meter.observe(hooks)

    def work(thread: int) -> None:
        barrier.wait()
        for number in range(50):
            tokens = 1 + thread * 1000 + number
            with run.step(str(tokens)) as step, step.llm("gpt-4o") as call:
                call.finish(TokenUsage(tokens))

    with meter.run("r") as run, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
        state = hooks._states[run.id]

    assert wrong == []
    assert (state.total_steps, state.iteration_count) == (200, 200)


def test_metadata_is_one_for_the_whole_run() -> None:
    counts: list[int] = []

    def on_step_complete(state: WorkflowState, step: WorkflowStep) -> None:
        state.metadata["steps"] = state.metadata.get("steps", 0) + 1

    meter = Meter(strict=True)
    meter.observe(
        WorkflowHooks(
            on_step_complete=on_step_complete,
            on_workflow_complete=lambda result: counts.append(result.state.metadata["steps"]),
        )
    )
    with meter.run("r") as run:
        for _ in range(3):
            with run.step():
                pass

    assert counts == [3]


def test_a_long_run_keeps_its_last_thousand_steps() -> None:
    results: list[WorkflowResult] = []
    meter = Meter(strict=True)
    meter.observe(WorkflowHooks(on_workflow_complete=results.append))
    with meter.run("r") as run:
        for _ in range(1_200):
            with run.step():
                pass

    state = results[0].state
    assert state is not None
    assert (state.total_steps, len(state.steps), state.get_step(1), state.steps[-1].step_number) == (
        1_200,
        1_000,
        None,
        1_200,
    )


def test_hooks_keep_nothing_of_what_has_ended() -> None:
    hooks, meter = listening([]), Meter(strict=True)
    meter.observe(hooks)
    for _ in range(5):
        with meter.run("r") as run, run.step() as step, step.tool("t"):
            pass
        with meter.step(), meter.tool("t"):
            pass

    assert (hooks._states, hooks._calls, hooks._numbers) == ({}, {}, {})


def test_a_step_that_stands_alone_is_told_too() -> None:
    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True)
    meter.observe(listening(heard))
    with meter.step("alone") as step, step.llm("gpt-4o") as call:
        call.finish(USAGE)

    (_, state, told) = heard_of(heard, 3)[0]
    assert (told.step_number, told.step_type, state.context["usage"]["tokens"]) == (1, "alone", 45)


def test_a_callback_that_raises_is_counted_and_the_run_goes_on() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of paper")

    meter = Meter()
    meter.observe(WorkflowHooks(**dict.fromkeys(CALLBACKS, broken)))
    with meter.run("r") as run, run.step() as step, step.tool("t"):
        meter.tell("on_thought", run.id, "hm")

    assert meter.health()["failures"] == {
        "WorkflowHooks": dict.fromkeys(
            [
                "on_workflow_start", "on_iteration_start", "on_step_start", "on_action", "on_thought",
                "on_observation", "on_step_complete", "on_iteration_complete", "on_workflow_complete",
            ],
            1,
        )
    }  # fmt: skip


# ------------------------------------------------------------------ frameworks that dispatch hooks themselves


def test_the_callbacks_are_plain_attributes_in_the_seeds_order() -> None:
    hooks = WorkflowHooks(*range(12))  # type: ignore[arg-type]

    assert [getattr(hooks, name) for name in CALLBACKS] == list(range(12))
    assert all(getattr(WorkflowHooks(), name) is None for name in CALLBACKS)
    assert ReActHooks is WorkflowHooks


async def test_every_callback_can_be_triggered_by_a_framework() -> None:
    heard: list[tuple[Any, ...]] = []
    hooks = listening(heard)

    async def on_action(*args: Any) -> None:
        heard.append(("on_action", *args))

    hooks.on_action = on_action
    arguments: dict[str, tuple[Any, ...]] = {
        "workflow_start": ("state",),
        "workflow_complete": ("result",),
        "workflow_error": ("state", "error"),
        "step_start": ("state", 1, "thought"),
        "step_complete": ("state", "step"),
        "step_error": ("state", "step", "error"),
        "iteration_start": ("state", 1),
        "iteration_complete": ("state", 1),
        "thought": ("state", "hm"),
        "action": ("state", "search", '{"q": 1}'),
        "observation": ("state", "found", False),
        "compaction": ("result",),
    }
    for name, args in arguments.items():
        await getattr(hooks, f"trigger_{name}")(*args)
        await getattr(WorkflowHooks(), f"trigger_{name}")(*args)

    assert heard == [(f"on_{name}", *args) for name, args in arguments.items()]


async def test_what_a_triggered_callback_raises_does_not_fail_the_workflow(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of paper")

    hooks, meter = WorkflowHooks(on_thought=broken), Meter()
    await hooks.trigger_thought(None, "hm")
    assert "WorkflowHooks failed in on_thought" in caplog.text

    meter.observe(hooks)
    await hooks.trigger_thought(None, "hm")
    assert meter.health()["failures"] == {"WorkflowHooks": {"on_thought": 1}}


def test_results_are_made_as_in_the_seed() -> None:
    state = WorkflowState(total_steps=3, iteration_count=2)
    good, bad = WorkflowResult.ok("out", state, 1.5), WorkflowResult.fail("why", state, 2.5, "timeout")

    assert (good.success, good.output, good.total_steps, good.total_iterations, good.termination_reason) == (
        True,
        "out",
        3,
        2,
        "completed",
    )
    assert (bad.success, bad.error, bad.duration_seconds, bad.termination_reason) == (False, "why", 2.5, "timeout")


def test_with_a_store_no_event_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(AgentObserver):
        def on_budget_exceeded(self, run_id: str, reason: str, tokens_used: int, cost_used: Decimal) -> None:
            heard.append(("denied", tokens_used))

    heard: list[tuple[Any, ...]] = []
    meter = Meter(strict=True, store=tmp_path / "meter.db", budgets=[Budget("one", requests=1)])
    meter.observe(
        WorkflowHooks(on_step_complete=lambda state, step: heard.append(("step", state.context["usage"]["tokens"])))
    )
    meter.observe(Denied())

    flush, flushed = meter.store.flush, []

    def waited(timeout: float | None = None) -> None:
        flushed.append(timeout)
        flush(timeout)

    monkeypatch.setattr(meter.store, "flush", waited)
    with meter.run("r") as run, run.step() as step, step.llm("gpt-4o") as call:
        call.finish(USAGE)
    assert flushed == []
    with contextlib.suppress(BudgetExceeded), meter.llm("gpt-4o"):
        pytest.fail("it was called")
    assert len(flushed) == 1  # the budget's own, which refuses nobody before it knows what was settled
    meter.shutdown()

    assert heard == [("step", 45), ("denied", 45)]


def test_the_page_runs() -> None:
    assert run_examples("reference/workflow-hooks.md")["meter"].usage.requests > 0
