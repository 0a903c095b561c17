"""Agents, their tools, and whose they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput
from llama_index.core.tools.types import AsyncBaseTool
from llama_index.core.workflow import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from pydantic import BaseModel
from tests.adapters.llama_index.models import Completing, Scripted, turn

from agent_meter import Meter, ToolRecord, hookimpl
from agent_meter.adapters.llama_index import tagged
from agent_meter.records import Record, RunRecord

# LlamaIndex looks at every attribute of an agent, its deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def fail(why: str) -> str:
    """Fails."""
    raise ValueError(why)


async def confirm(ctx: Context, what: str) -> str:
    """Asks a person."""
    event = await ctx.wait_for_event(HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="sure?"))
    return str(event.response)


confirm.__annotations__["ctx"] = Context  # LlamaIndex looks for the class itself, not for its name


class Records:
    """Everything that was recorded, in the order of its end."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    @hookimpl
    def meter_record(self, record: Record) -> None:
        self.all.append(record)

    @property
    def tools(self) -> list[ToolRecord]:
        return [record for record in self.all if isinstance(record, ToolRecord)]

    @property
    def runs(self) -> list[RunRecord]:
        return [record for record in self.all if isinstance(record, RunRecord)]


@pytest.fixture
def records(meter: Meter) -> Records:
    records = Records()
    meter.register(records)
    return records


async def test_an_agent_is_a_run_of_steps_with_its_tools_and_its_name(meter: Meter, records: Records) -> None:
    script = [turn("", ("add", {"a": 1, "b": 2}), ("fail", {"why": "so"}), ("made_up", {"x": 1})), turn("done")]
    agent = FunctionAgent(name="alice", llm=Scripted(turns=script), tools=[add, fail])

    await agent.run("Go")

    assert [(r.input_tokens, r.agent, r.step, r.tools) for r in meter.history()] == [
        (100, "alice", "1", ("add", "fail", "made_up")),
        (200, "alice", "2", ()),
    ]
    assert sorted((t.name, str(t.status), t.error_type, t.agent, t.step, t.call_id) for t in records.tools) == [
        ("add", "ok", None, "alice", "1", "call-1-0"),
        ("fail", "error", "ValueError", "alice", "1", "call-1-1"),
        ("made_up", "error", "unknown_tool", "alice", "1", "call-1-2"),
    ]
    assert {t.name: dict(t.params) for t in records.tools} == {
        "add": {"a": 1, "b": 2},
        "fail": {"why": "so"},
        "made_up": {"x": 1},
    }
    (run,) = [record for record in records.runs if record.kind == "run"]
    assert (run.name, run.agent, run.status) == ("alice", "alice", "ok")
    assert {record.run_id for record in meter.history()} == {run.id}
    assert meter.tree(run.id).usage.input_tokens == 300


async def test_an_agent_that_fails_is_a_failed_run(meter: Meter, records: Records) -> None:
    agent = FunctionAgent(name="alice", llm=Scripted(turns=[RuntimeError("no")]), tools=[add])

    with pytest.raises(RuntimeError):
        await agent.run("Go")

    (run,) = [record for record in records.runs if record.kind == "run"]
    assert (run.status, run.error_type) == ("error", "RuntimeError")
    assert [record.status for record in meter.history()] == ["error"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_hand_offs_are_told_by_who_was_asked(streaming: bool, meter: Meter, records: Records) -> None:
    one = Scripted(turns=[turn("", ("handoff", {"to_agent": "bob", "reason": "better"}))])
    two = Scripted(turns=[turn("", ("add", {"a": 1, "b": 2})), turn("done")])
    alice = FunctionAgent(
        name="alice", description="first", llm=one, tools=[fail], can_handoff_to=["bob"], streaming=streaming
    )
    bob = FunctionAgent(name="bob", description="second", llm=two, tools=[add], streaming=streaming)

    with tagged(user_id="u1", thread_id="s1", team="search"):
        await AgentWorkflow(agents=[alice, bob], root_agent="alice").run("Go")

    assert [(r.agent, r.user, r.session, dict(r.tags)) for r in meter.history()] == [
        ("alice", "u1", "s1", {"team": "search"}),
        ("bob", "u1", "s1", {"team": "search"}),
        ("bob", "u1", "s1", {"team": "search"}),
    ]
    assert [(t.name, t.agent, t.success) for t in records.tools] == [("handoff", "alice", True), ("add", "bob", True)]
    assert {name: usage.requests for name, usage in meter.usage_by("agent").items()} == {"alice": 1, "bob": 2}


async def test_a_react_agent_is_counted_by_the_answer(meter: Meter, records: Records) -> None:
    script = [
        turn('Thought: I need it.\nAction: add\nAction Input: {"a": 1, "b": 2}'),
        turn("Thought: I can answer.\nAnswer: 3"),
    ]

    answer = await ReActAgent(name="rea", llm=Scripted(turns=script), tools=[add]).run("1 + 2?")

    assert str(answer) == "3"
    assert [(r.input_tokens, r.agent) for r in meter.history()] == [(100, "rea"), (200, "rea")]
    assert [(t.name, t.success, t.agent) for t in records.tools] == [("add", True, "rea")]


async def test_a_tool_that_waits_for_a_person_is_suspended_and_counted_when_it_goes_on(
    meter: Meter, records: Records
) -> None:
    script = [turn("", ("confirm", {"what": "it"})), turn("done")]
    handler = FunctionAgent(name="alice", llm=Scripted(turns=script), tools=[confirm]).run("Go")

    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await handler

    assert [(t.name, t.paused, t.success, dict(t.params)) for t in records.tools] == [
        ("confirm", True, False, {"what": "it"}),
        ("confirm", False, True, {"what": "it"}),
    ]
    assert meter.analytics.get_metrics("confirm").total_calls == 1
    assert meter.analytics.get_metrics("confirm").success_rate == 100


class Told(BaseModel):
    value: int


async def test_an_agents_structured_answer_is_one_more_call(meter: Meter, records: Records) -> None:
    script = [turn("three"), turn("", ("Told", {"value": 3}))]

    answer = await FunctionAgent(llm=Scripted(turns=script), tools=[add], output_cls=Told).run("1 + 2?")

    assert answer.structured_response == {"value": 3}
    assert [record.input_tokens for record in meter.history()] == [100, 200]
    assert records.tools == []


class Own(Workflow):
    """A workflow that is nobody's agent."""

    llm: Any

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=str(await self.llm.acomplete("Is it?")))


async def test_a_workflow_of_ones_own_is_a_run_with_its_steps(meter: Meter, records: Records) -> None:
    workflow = Own()
    workflow.llm = Completing(asked=[])

    await workflow.run()

    (record,) = meter.history()
    assert (record.step, record.input_tokens) == ("ask", 12)
    assert [(run.kind, run.name, run.status) for run in records.runs] == [("step", "ask", "ok"), ("run", "Own", "ok")]


async def test_runs_at_the_same_time_keep_their_own(meter: Meter, records: Records) -> None:
    async def one(name: str) -> None:
        script = [turn("", ("add", {"a": 1, "b": 2})), turn("done")]
        with tagged(user=name):
            await FunctionAgent(name=name, llm=Scripted(turns=script), tools=[add]).run("Go")

    await asyncio.gather(*(one(f"agent{n}") for n in range(8)))

    by = meter.usage_by("agent", "user")
    assert {key: usage.input_tokens for key, usage in by.items()} == {(f"agent{n}",) * 2: 300 for n in range(8)}
    assert all(tool.agent == tool.user for tool in records.tools)


class Saying(AsyncBaseTool):
    """A tool that tells of its failure instead of raising."""

    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata(name="saying", description="says")

    def call(self, input: str) -> ToolOutput:
        return ToolOutput(content="no", tool_name="saying", raw_input={}, raw_output=None, is_error=True)

    async def acall(self, input: str) -> ToolOutput:
        return self.call(input)


def test_a_tool_counts_once_however_it_is_called(meter: Meter, records: Records) -> None:
    tool = FunctionTool.from_defaults(add)

    tool(a=1, b=2)
    tool.call(a=1, b=2)
    asyncio.run(tool.acall(a=1, b=2))

    assert [(t.name, t.success, dict(t.params)) for t in records.tools] == [("add", True, {"a": 1, "b": 2})] * 3


def test_a_tool_that_says_it_failed_has_failed(meter: Meter, records: Records) -> None:
    asyncio.run(Saying().acall("x"))

    assert [(t.name, t.success, t.error_type, dict(t.params)) for t in records.tools] == [
        ("saying", False, "handled_error", {"input": "x"})
    ]


def test_what_a_tool_asks_a_model_is_the_tools(meter: Meter, records: Records) -> None:
    llm = Completing(asked=[])

    def think(about: str) -> str:
        """Thinks."""
        return str(llm.complete(about))

    FunctionTool.from_defaults(think)(about="it")

    assert meter.history()[0].parent_id == records.tools[0].id


def test_tags_of_nested_blocks_are_merged_and_llama_indexs_own_are_left_out(meter: Meter) -> None:
    with tagged(team="search", user_id="u1"), tagged(user_id="u2", **{"llamaindex.step.input_summary": "a secret"}):
        Completing(asked=[]).complete("Is it?")
    Completing(asked=[]).complete("Is it?")

    first, second = meter.history()
    assert (first.user, dict(first.tags)) == ("u2", {"team": "search"})
    assert (second.user, dict(second.tags)) == ("", {})
