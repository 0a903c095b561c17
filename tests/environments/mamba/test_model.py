"""A metered model sees every request and refuses those that are denied; a metered toolset does so for tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mamba_agents.workflows.react import ReActWorkflow
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import ModelRetry
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import RequestUsage

from agent_meter import Budget, BudgetExceeded, Meter, hookimpl
from agent_meter.adapters.mamba import MeteredModel, MeteredToolset, MeterWorkflowHooks
from agent_meter.records import Call, Denial, Kind, Status, ToolRecord
from agent_meter.testing import ErrorReply, RecordingPlugin, Reply, ToolCall

ASKS = Reply(tool_calls=[ToolCall("search", {"query": "pluggy"})], input_tokens=100, output_tokens=20)
DONE = Reply("done", input_tokens=200, output_tokens=30)


class Guard:
    """Lets so many calls of a kind through."""

    def __init__(self, calls: int, kind: Kind = Kind.LLM) -> None:
        self.left = calls
        self.kind = kind
        self.asked: list[Call] = []

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not self.kind:
            return None
        self.asked.append(call)
        self.left -= 1
        return Denial("spent") if self.left < 0 else None


def test_a_denial_stops_a_run_before_the_request_is_sent(agent: Any, model: Any, loopback: Any, meter: Meter) -> None:
    meter.register(Guard(1))
    served = loopback([ASKS, DONE])

    with pytest.raises(BudgetExceeded, match="spent"):
        agent(MeteredModel(model(served), meter)).run_sync("Hi")

    assert len(served.requests) == 1
    assert [r.status for r in meter.history(include_denied=True)] == [Status.OK, Status.DENIED]
    assert meter.health()["open_calls"] == 0


def test_a_budget_stops_a_run_when_it_is_spent(agent: Any, model: Any, loopback: Any) -> None:
    meter = Meter(budgets=[Budget("small", requests=1)])
    served = loopback([ASKS, DONE])

    with pytest.raises(BudgetExceeded) as refused:
        agent(MeteredModel(model(served), meter)).run_sync("Hi")

    assert (refused.value.budget, len(served.requests)) == ("small", 1)


def test_a_denial_ends_a_workflow_as_failed(agent: Any, model: Any, loopback: Any, meter: Meter) -> None:
    meter.register(Guard(1))
    served = loopback([ASKS, DONE])
    flow = ReActWorkflow(agent(MeteredModel(model(served), meter)), hooks=MeterWorkflowHooks(meter))
    result = flow.run_sync("Hi")

    assert (result.success, len(served.requests)) == (False, 1)
    assert "spent" in str(result.error)
    assert meter.usage.failed_requests == 0


def test_a_denial_stops_a_stream_before_the_request_is_sent(
    agent: Any, model: Any, loopback: Any, meter: Meter
) -> None:
    meter.register(Guard(0))
    served = loopback([DONE])

    async def stream() -> None:
        async with PydanticAgent(MeteredModel(model(served), meter)).run_stream("Hi") as answer:
            await answer.get_output()

    with pytest.raises(BudgetExceeded):
        asyncio.run(stream())

    assert served.requests == []


def test_a_guard_knows_what_the_call_may_use(model: Any, loopback: Any, meter: Meter) -> None:
    meter.register(guard := Guard(9))
    asked = PydanticAgent(MeteredModel(model(loopback([DONE])), meter), model_settings={"max_tokens": 500})
    asked.run_sync("Hi " * 200)
    reserve = guard.asked[0].reserve

    assert reserve is not None
    assert reserve.output_tokens == 500
    assert reserve.input_tokens is not None
    assert reserve.input_tokens >= 100


def test_a_stream_is_exact_when_it_is_read_to_its_end(model: Any, loopback: Any, meter: Meter) -> None:
    async def stream() -> None:
        async with PydanticAgent(MeteredModel(model(loopback([DONE])), meter)).run_stream("Hi") as answer:
            assert await answer.get_output() == "done"

    asyncio.run(stream())
    record = meter.history()[0]

    assert (record.streamed, record.total_tokens, record.estimated, record.status) == (True, 230, False, Status.OK)


def test_a_stream_that_is_left_is_estimated(model: Any, loopback: Any, meter: Meter) -> None:
    long = Reply("word " * 200, chunks=100, chunk_delay=0.005)

    async def leave() -> None:
        async with PydanticAgent(MeteredModel(model(loopback([long])), meter)).run_stream("Hi") as answer:
            async for _ in answer.stream_text():
                raise KeyError("enough")

    with pytest.raises(KeyError):
        asyncio.run(leave())
    record = meter.history()[0]

    assert record.estimated
    assert 0 < record.output_tokens < 150
    assert meter.health()["open_calls"] == 0


def test_failed_requests_are_counted_and_cost_nothing(model: Any, loopback: Any, meter: Meter) -> None:
    with pytest.raises(Exception, match="503"):
        PydanticAgent(MeteredModel(model(loopback([ErrorReply(503, should_retry=False)])), meter)).run_sync("Hi")
    record = meter.history()[0]

    assert (record.status, record.error_type, record.estimated) == (Status.ERROR, "ModelHTTPError", False)
    assert record.billed_cost_usd == 0


def test_a_fallback_is_counted_once_from_outside_and_each_attempt_from_inside(model: Any, loopback: Any) -> None:
    outside, inside = Meter(), Meter()
    down, up = model(loopback([ErrorReply(503, should_retry=False)])), model(loopback([DONE]))
    falling = FallbackModel(MeteredModel(down, inside), MeteredModel(up, inside))
    PydanticAgent(MeteredModel(falling, outside)).run_sync("Hi")

    assert [r.status for r in inside.history()] == [Status.ERROR, Status.OK]
    assert [(r.status, r.total_tokens) for r in outside.history()] == [(Status.OK, 230)]


def test_nested_models_of_one_meter_count_once(model: Any, loopback: Any, meter: Meter) -> None:
    PydanticAgent(MeteredModel(MeteredModel(model(loopback([DONE])), meter), meter)).run_sync("Hi")

    assert meter.usage.requests == 1


def test_anthropics_cached_tokens_are_part_of_the_input(loopback: Any, meter: Meter) -> None:
    served = loopback([Reply("done", input_tokens=200, output_tokens=30, cache_read_tokens=120)])
    asked = AnthropicModel(
        "claude-sonnet-4-5", provider=AnthropicProvider(base_url=served.anthropic_base_url, api_key="none")
    )
    PydanticAgent(MeteredModel(asked, meter)).run_sync("Hi")
    record = meter.history()[0]

    assert (record.provider, record.input_tokens, record.cache_read_tokens) == ("anthropic", 200, 120)
    assert not record.estimated


def test_reasoning_is_a_part_of_the_output(model: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([Reply("done", input_tokens=200, output_tokens=90, reasoning_tokens=64)])
    PydanticAgent(MeteredModel(model(served), meter)).run_sync("Hi")

    assert meter.history()[0].reasoning_tokens == 64
    assert meter.history()[0].output_tokens == 90


def test_usage_is_there_for_mamba_agents_too(agent: Any, model: Any, loopback: Any, meter: Meter) -> None:
    worker = agent(MeteredModel(model(loopback([DONE])), meter))
    worker.run_sync("Hi")

    assert worker.get_usage().total_tokens == 230


def test_an_answer_without_usage_is_estimated(loopback: Any, meter: Meter) -> None:
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel

    def silent(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse(parts=[TextPart("a long enough answer")], usage=RequestUsage())

    from pydantic_ai.models.wrapper import WrapperModel

    class Silent(WrapperModel):
        async def request(self, *args: Any, **named: Any) -> ModelResponse:
            answer = await self.wrapped.request(*args, **named)
            answer.usage = RequestUsage()
            return answer

    PydanticAgent(MeteredModel(Silent(FunctionModel(silent)), meter)).run_sync("Hi")
    record = meter.history()[0]

    assert record.estimated
    assert record.output_tokens > 0


def test_tools_have_their_own_time_and_errors(model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin) -> None:
    tries: list[str] = []

    def search(query: str) -> str:
        """Look something up."""
        tries.append(query)
        if len(tries) == 1:
            try:
                raise LookupError("not there")
            except LookupError as error:
                raise ModelRetry("try again") from error
        return query

    toolset = MeteredToolset(FunctionToolset([search], max_retries=2), meter)
    asked = PydanticAgent(MeteredModel(model(loopback([ASKS, ASKS, DONE])), meter), toolsets=[toolset])
    asked.run_sync("Hi")
    tools = [r for r in heard.records if isinstance(r, ToolRecord)]

    assert [(r.name, r.success, r.error_type) for r in tools] == [
        ("search", False, "LookupError"),
        ("search", True, None),
    ]
    assert meter.analytics.get_metrics("search").success_rate == 50


def test_a_tool_that_is_denied_is_not_run(model: Any, loopback: Any, meter: Meter) -> None:
    meter.register(Guard(0, Kind.TOOL))
    ran: list[str] = []

    def search(query: str) -> str:
        """Look something up."""
        ran.append(query)
        return query

    asked = PydanticAgent(
        MeteredModel(model(loopback([ASKS, DONE])), meter), toolsets=[MeteredToolset(FunctionToolset([search]), meter)]
    )
    with pytest.raises(BudgetExceeded):
        asked.run_sync("Hi")

    assert ran == []


def test_a_tool_that_waits_for_a_person_has_not_failed(
    model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin
) -> None:
    from pydantic_ai import ApprovalRequired, DeferredToolRequests

    def search(query: str) -> str:
        """Look something up."""
        raise ApprovalRequired

    asked = PydanticAgent(
        MeteredModel(model(loopback([ASKS])), meter),
        toolsets=[MeteredToolset(FunctionToolset([search]), meter)],
        output_type=[str, DeferredToolRequests],
    )
    asked.run_sync("Hi")
    (tool,) = [r for r in heard.records if isinstance(r, ToolRecord)]

    assert tool.paused
    assert meter.analytics.get_metrics("search") is None or meter.analytics.get_metrics("search").failed_calls == 0


def test_an_agent_inside_a_tool_belongs_to_it(model: Any, loopback: Any, meter: Meter, heard: RecordingPlugin) -> None:
    served = loopback([ASKS, Reply("inner"), DONE])
    inner = PydanticAgent(MeteredModel(model(served), meter))

    async def search(query: str) -> str:
        """Ask a colleague."""
        return (await inner.run(query)).output

    asked = PydanticAgent(
        MeteredModel(model(served), meter), toolsets=[MeteredToolset(FunctionToolset([search]), meter)]
    )
    asked.run_sync("Hi")
    (tool,) = [r for r in heard.records if isinstance(r, ToolRecord)]

    assert [r.parent_id for r in meter.history()] == [None, tool.id, None]
