"""What a workflow's hooks are told becomes a run, its steps and their calls, each of them once."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

import pytest
from mamba_agents.workflows import Workflow, WorkflowConfig, WorkflowHooks, WorkflowState, WorkflowStep
from mamba_agents.workflows.react import ReActConfig, ReActHooks, ReActWorkflow
from pydantic_ai.toolsets import FunctionToolset

from agent_meter import Meter, install
from agent_meter.adapters.mamba import MeteredModel, MeteredToolset, MeterWorkflowHooks
from agent_meter.records import RunRecord, Status, ToolRecord, UsageRecord
from agent_meter.testing import ErrorReply, RecordingPlugin, Reply, ToolCall

ASKS_TWO = Reply(
    tool_calls=[ToolCall("search", {"query": "pluggy"}), ToolCall("divide", {"number": 1})],
    input_tokens=100,
    output_tokens=20,
)
ANSWERS = Reply(tool_calls=[ToolCall("final_answer", {"answer": "42"})], input_tokens=200, output_tokens=30)
DONE = Reply("done", input_tokens=300, output_tokens=10)
THINKS = Reply("let me think", input_tokens=50, output_tokens=5)


def runs(heard: RecordingPlugin) -> list[RunRecord]:
    return [record for record in heard.records if isinstance(record, RunRecord)]


def tools(heard: RecordingPlugin) -> dict[str, ToolRecord]:
    return {record.name: record for record in heard.records if isinstance(record, ToolRecord)}


def test_a_workflow_is_metered_by_its_hooks_alone(agent: Any, model: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([ASKS_TWO, ANSWERS, DONE])
    flow = ReActWorkflow(agent(model(served)), hooks=MeterWorkflowHooks(meter))
    result = flow.run_sync("Hi")

    assert result.success
    assert meter.usage.total_tokens == served.total.total_tokens == 660
    assert meter.usage.requests == 3  # mamba-agents counts one: the run
    assert meter.usage.cost_usd == Decimal("0.0021")
    assert [r.tools for r in meter.history()] == [("search", "divide"), ("final_answer",), ()]
    assert meter.usage.estimated_requests == 0
    assert meter.health()["open_calls"] == 0
    assert not meter.health()["failures"]


def test_tools_are_told_by_the_messages(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    ReActWorkflow(agent(model(loopback([ASKS_TWO, ANSWERS, DONE]))), hooks=MeterWorkflowHooks(meter)).run_sync("Hi")
    found = tools(heard)

    assert found["search"].success
    assert found["search"].params == {"query": "pluggy"}
    assert (found["divide"].success, found["divide"].error_type) == (False, "ZeroDivisionError")
    assert found["search"].call_id
    assert {r.step for r in found.values()} == {"step 1"}


def test_steps_and_runs_make_a_tree(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    served = loopback([THINKS, ANSWERS, DONE])
    ReActWorkflow(agent(model(served)), hooks=MeterWorkflowHooks(meter)).run_sync("Hi")
    root = next(r for r in runs(heard) if r.parent_id is None)

    assert [(r.name, r.step_number, r.status) for r in runs(heard) if r is not root] == [
        ("step 1", 1, Status.OK),
        ("step 2", 2, Status.OK),
    ]
    assert [r.step for r in meter.history()] == ["step 1", "step 2", "step 2"]
    assert meter.tree(root.id).usage.total_tokens == served.total.total_tokens


@pytest.mark.parametrize("wrapped", ["model", "model and toolset"])
def test_what_models_toolsets_and_hooks_see_is_counted_once(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin, wrapped: str
) -> None:
    served = loopback([ASKS_TWO, ANSWERS, DONE])
    metered = MeteredModel(model(served), meter)

    def search(query: str) -> str:
        """Look something up."""
        return query

    def divide(number: int) -> str:
        """Divide by one."""
        return str(number)

    if wrapped == "model":
        worker = agent(metered, tools=[search, divide])
    else:
        worker = agent(metered, tools=[], toolsets=[MeteredToolset(FunctionToolset([search, divide]), meter)])
    ReActWorkflow(worker, hooks=MeterWorkflowHooks(meter)).run_sync("Hi")

    assert meter.usage.total_tokens == served.total.total_tokens
    assert meter.usage.requests == 3
    assert sorted(tools(heard)) == ["divide", "final_answer", "search"]
    assert len([r for r in heard.records if isinstance(r, ToolRecord)]) == 3
    assert {r.step for r in heard.records if isinstance(r, (UsageRecord, ToolRecord))} == {"step 1"}


def test_a_second_run_of_one_agent_counts_its_own_messages_only(
    agent: Any, model: Any, loopback: Any, meter: Meter
) -> None:
    served = loopback([ANSWERS, DONE, ANSWERS, DONE])
    flow = ReActWorkflow(agent(model(served)), hooks=MeterWorkflowHooks(meter))
    flow.run_sync("Hi")
    flow.run_sync("Again")

    assert meter.usage.total_tokens == served.total.total_tokens
    assert meter.usage.requests == 4


def test_a_failed_step_has_its_paid_requests_and_the_failed_one(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    served = loopback([ASKS_TWO, ErrorReply(500, should_retry=False)])
    result = ReActWorkflow(agent(model(served)), hooks=MeterWorkflowHooks(meter)).run_sync("Hi")

    assert not result.success
    assert [(r.status, r.error_type, r.total_tokens) for r in meter.history()] == [
        (Status.OK, None, 120),
        (Status.ERROR, "ModelHTTPError", 0),
    ]
    assert meter.usage.unpriced_requests == 0  # a 500 is no answer: it costs nothing
    assert [(r.kind, r.status, r.error_type) for r in runs(heard)] == [
        ("step", Status.ERROR, "ModelHTTPError"),
        ("run", Status.ERROR, "ModelHTTPError"),
    ]


@pytest.mark.parametrize("metered", [True, False], ids=["metered model", "hooks alone"])
def test_a_timeout_of_which_no_hook_tells_ends_the_run_with_what_was_paid(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin, metered: bool
) -> None:
    served = loopback([ASKS_TWO, Reply("late", delay=3.0)])
    asked = MeteredModel(model(served), meter) if metered else model(served)
    config = ReActConfig(timeout_seconds=1.5)
    result = ReActWorkflow(agent(asked), config=config, hooks=MeterWorkflowHooks(meter)).run_sync("Hi")

    assert result.termination_reason == "timeout"
    assert [(r.status is Status.OK, r.total_tokens, r.estimated) for r in meter.history()] == [
        (True, 120, False),
        (False, 0, True),
    ]
    assert [(r.status, r.error_type) for r in runs(heard) if r.parent_id is None] == [(Status.ERROR, "TimeoutError")]
    assert meter.health()["open_calls"] == 0


def test_a_run_that_timed_out_is_not_the_parent_of_the_next_one(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    hooks = MeterWorkflowHooks(meter)
    slow = ReActWorkflow(
        agent(model(loopback([Reply("late", delay=2.0)]))), config=ReActConfig(timeout_seconds=0.5), hooks=hooks
    )
    quick = ReActWorkflow(agent(model(loopback([ANSWERS, DONE]))), hooks=hooks)

    async def both() -> None:
        await slow.run("Hi")
        await quick.run("Hi")

    asyncio.run(both())

    assert [(r.status, r.parent_id) for r in runs(heard) if r.kind == "run"] == [
        (Status.ERROR, None),
        (Status.OK, None),
    ]


def test_workflows_side_by_side_keep_their_own_calls(
    agent: Any, model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    hooks = MeterWorkflowHooks(meter)
    flows = [ReActWorkflow(agent(model(loopback([ANSWERS, DONE]))), hooks=hooks) for _ in range(3)]

    async def together() -> None:
        await asyncio.gather(*(flow.run("Hi") for flow in flows))

    asyncio.run(together())

    assert [meter.tree(r.id).usage.requests for r in runs(heard) if r.kind == "run"] == [2, 2, 2]
    assert meter.usage.requests == 6


def test_hooks_of_ones_own_are_called_after_ours_with_the_usage_of_the_step(
    agent: Any, model: Any, loopback: Any, meter: Meter
) -> None:
    seen: list[Any] = []

    def complete(state: WorkflowState[Any], step: WorkflowStep[Any]) -> None:
        seen.append((step.step_number, state.metadata["usage"]["tokens"]))

    async def end(result: Any) -> None:
        seen.append(result.output)

    def thought(state: Any, text: str) -> None:
        seen.append(text)

    mine = ReActHooks(on_step_complete=complete, on_workflow_complete=end, on_thought=thought)
    served = loopback([THINKS, ANSWERS, DONE])
    ReActWorkflow(agent(model(served)), hooks=MeterWorkflowHooks(meter, hooks=mine)).run_sync("Hi")

    assert seen[:3] == ["let me think", (1, 55), (2, 540)]
    assert "42" in seen[3]


def test_a_workflow_of_ones_own_has_its_usage_in_a_context_that_is_a_mapping(
    agent: Any, model: Any, loopback: Any, meter: Meter
) -> None:
    seen: list[Any] = []

    class Two(Workflow[None, str, dict]):  # type: ignore[type-arg]
        name = "two"  # type: ignore[assignment]

        def _create_initial_state(self, prompt: str) -> WorkflowState[dict[str, Any]]:
            return WorkflowState(context={})

        async def _execute(self, prompt: str, state: Any, deps: Any = None) -> str:
            step = WorkflowStep(1, "ask", "asks", prompt)
            await self.hooks.trigger_step_start(state, 1, "ask")
            step.agent_result = await worker.run(prompt)
            await self.hooks.trigger_step_complete(state, step)
            return "ok"

    worker = agent(model(loopback([DONE])))
    mine = WorkflowHooks(on_step_complete=lambda state, step: seen.append(state.context.get("usage", {}).get("tokens")))
    result = Two(WorkflowConfig(), MeterWorkflowHooks(meter, hooks=mine)).run_sync("Hi")

    assert result.success
    assert seen == [310]


def test_whatever_goes_wrong_in_the_meter_the_workflow_goes_on(
    agent: Any, model: Any, loopback: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(meter, "open", fail)
    asked = MeteredModel(model(loopback([ANSWERS, DONE])), meter)
    result = ReActWorkflow(agent(asked), hooks=MeterWorkflowHooks(meter)).run_sync("Hi")

    assert result.success
    assert meter.health()["failures"]


@pytest.mark.parametrize("metered", [True, False], ids=["metered model", "hooks alone"])
@pytest.mark.parametrize("fails", [True, False], ids=["failed step", "step"])
def test_requests_that_a_transport_tap_sees_are_counted_once(
    agent: Any, model: Any, loopback: Any, meter: Meter, metered: bool, fails: bool
) -> None:
    served = loopback([ASKS_TWO, ErrorReply(500, should_retry=False)] if fails else [ASKS_TWO, ANSWERS, DONE])
    asked = MeteredModel(model(served), meter) if metered else model(served)
    with contextlib.closing(install(meter, wire=True)):
        ReActWorkflow(agent(asked), hooks=MeterWorkflowHooks(meter)).run_sync("Hi")

    assert meter.usage.requests == len(served.requests)
    assert meter.usage.total_tokens == served.total.total_tokens


def test_a_long_life_leaves_nothing_behind(agent: Any, model: Any, loopback: Any, meter: Meter) -> None:
    hooks = MeterWorkflowHooks(meter)
    for _ in range(5):
        ReActWorkflow(agent(model(loopback([ANSWERS, DONE]))), hooks=hooks).run_sync("Hi")

    assert hooks._desk.runs == {}
