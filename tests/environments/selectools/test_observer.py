"""What an observer hears is recorded once, and as it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from selectools import InMemoryCache, ToolPolicy, UsageStats, tool
from selectools.observer import AgentObserver as TheirObserver

from agent_meter import Meter
from agent_meter.adapters.selectools import MeterObserver
from agent_meter.records import RunRecord, Status, ToolRecord
from agent_meter.testing import ErrorReply, RecordingPlugin, Reply, ToolCall

ASKS_TWO = Reply(
    tool_calls=[ToolCall("search", {"query": "pluggy"}), ToolCall("divide", {"number": 1})],
    input_tokens=100,
    output_tokens=20,
)
DONE = Reply("done", input_tokens=200, output_tokens=30)
REFUSED = ErrorReply(429, should_retry=False)


def test_an_agent_is_metered_as_its_provider_counts(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([ASKS_TWO, DONE])
    result = agent(openai(served), MeterObserver(meter)).run("Hi")

    assert result.content == "done"
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (300, 50)
    assert meter.usage.total_tokens == served.total.total_tokens == result.usage.total_tokens
    assert meter.usage.cost_usd == Decimal("0.00125")
    assert meter.usage.tool_tokens == {"search": 60, "divide": 60}
    assert [record.tools for record in meter.history()] == [("search", "divide"), ()]
    assert meter.health()["open_calls"] == 0


def test_tools_have_their_arguments_their_errors_and_their_time(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    meter.register(heard := RecordingPlugin())
    agent(openai(loopback([ASKS_TWO, DONE])), MeterObserver(meter)).run("Hi")
    tools = [record for record in heard.records if isinstance(record, ToolRecord)]

    assert [(record.name, record.success, record.error_type) for record in tools] == [
        ("search", True, None),
        ("divide", False, "ZeroDivisionError"),
    ]
    assert tools[0].params == {"query": "pluggy"}
    assert all(record.call_id for record in tools)
    assert meter.analytics.get_metrics("divide").failure_rate == 100


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "in turn"])
def test_tools_of_one_name_and_without_ids_are_told_apart(agent: Any, meter: Meter, parallel: bool) -> None:
    @tool(name="wait", description="Wait.")
    def wait(seconds: float) -> str:
        time.sleep(seconds)
        return "waited"

    class Asks:
        name, supports_streaming, supports_async = "openai", False, False
        asked = 0

        def complete(self, **asked: Any) -> Any:
            from selectools import Message, Role
            from selectools import ToolCall as Call

            self.asked += 1
            calls = [Call(tool_name="wait", parameters={"seconds": s}) for s in (0.15, 0.01)] if self.asked == 1 else []
            return Message(role=Role.ASSISTANT, content="", tool_calls=calls or None), UsageStats(
                10, 5, model="gpt-4o", provider="openai"
            )

    meter.register(heard := RecordingPlugin())
    agent(Asks(), MeterObserver(meter), tools=[wait], parallel_tool_execution=parallel).run("Hi")
    tools = {r.params["seconds"]: r.duration for r in heard.records if isinstance(r, ToolRecord)}

    assert tools[0.15] >= 0.15
    assert 0.01 <= tools[0.01] < 0.15


def test_attempts_are_numbered_and_failed_ones_are_errors(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    agent(openai(loopback([REFUSED, REFUSED, DONE])), MeterObserver(meter)).run("Hi")

    assert [(r.status, r.attempt, r.error_type) for r in meter.history()] == [
        (Status.ERROR, 1, "RateLimitError"),
        (Status.ERROR, 2, "RateLimitError"),
        (Status.OK, 3, None),
    ]
    assert meter.usage.cost_usd == meter.history()[-1].cost_usd
    assert meter.usage.unpriced_requests == 0


def test_retries_that_are_used_up_leave_failed_calls_and_a_failed_run(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    meter.register(heard := RecordingPlugin())
    result = agent(openai(loopback([REFUSED, REFUSED])), MeterObserver(meter), retries=1).run("Hi")
    run = next(r for r in heard.records if isinstance(r, RunRecord) and r.parent_id is None)

    assert result.content.startswith("Provider error")  # selectools calls it a success
    assert [r.status for r in meter.history()] == [Status.ERROR, Status.ERROR]
    assert run.status is Status.ERROR


def test_an_error_of_another_kind_ends_the_call_and_the_run(agent: Any, meter: Meter) -> None:
    class Broken:
        name, supports_streaming, supports_async = "openai", False, False

        def complete(self, **asked: Any) -> Any:
            raise LookupError("no such deployment")

    meter.register(heard := RecordingPlugin())
    with pytest.raises(LookupError):
        agent(Broken(), MeterObserver(meter)).run("Hi")

    assert [(r.status, r.error_type, r.estimated) for r in meter.history()] == [(Status.ERROR, "LookupError", True)]
    assert {r.status for r in heard.records if isinstance(r, RunRecord)} == {Status.ERROR}
    assert meter.health()["open_calls"] == 0


def test_a_cached_answer_is_replayed_and_never_billed(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([ASKS_TWO, DONE])
    cached = agent(openai(served), MeterObserver(meter), cache=InMemoryCache())
    cached.run("Hi")
    cached.reset()
    cached.run("Hi")

    assert len(served.requests) == 2
    assert [r.cached for r in meter.history()] == [False, False, True, True]
    assert meter.usage.total_tokens == 700
    assert (meter.usage.cost_usd, meter.usage.billed_cost_usd) == (Decimal("0.0025"), Decimal("0.00125"))


def test_a_replay_counts_what_the_answer_said_whatever_was_written_into_it_since(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    cached = agent(openai(loopback([DONE])), MeterObserver(meter), cache=InMemoryCache())
    cached.run("Hi")
    before = meter.history()[0]
    cached.usage.iterations[0].prompt_tokens = 9_999

    assert meter.history()[0] is before
    assert before.input_tokens == 200


@pytest.mark.parametrize("asynchronous", [False, True], ids=["run", "arun"])
def test_a_stream_is_estimated_and_says_so(
    agent: Any, openai: Any, loopback: Any, meter: Meter, asynchronous: bool
) -> None:
    text = "The committee will meet again on Thursday to discuss the results of the survey."
    streaming = agent(
        openai(loopback([Reply(text, input_tokens=40, output_tokens=16)])), MeterObserver(meter), stream=True
    )
    if asynchronous:
        asyncio.run(streaming.arun("When do they meet?"))
    else:
        streaming.run("When do they meet?")
    record = meter.history()[0]

    assert (record.streamed, record.estimated, record.status) == (True, True, Status.OK)
    assert record.usage is not None
    assert set(record.usage.missing) == {"input_tokens", "output_tokens"}
    assert record.output_tokens == pytest.approx(16, rel=0.4)
    assert meter.usage.estimated_requests == 1


def test_a_stream_that_is_left_ends_with_its_task(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    reply = Reply("word " * 50, chunks=50, chunk_delay=0.01)

    async def leave() -> None:
        async for _ in agent(openai(loopback([reply])), MeterObserver(meter)).astream("Hi"):
            break

    asyncio.run(leave())

    assert [r.status for r in meter.history()] in ([Status.CANCELLED], [Status.ERROR])
    assert meter.health()["open_calls"] == 0


def test_a_run_that_times_out_is_over(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    meter.register(heard := RecordingPlugin())

    async def impatient() -> None:
        slow = agent(openai(loopback([Reply("late", delay=1.0)])), MeterObserver(meter))
        await asyncio.wait_for(slow.arun("Hi"), 0.1)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(impatient())

    assert meter.health()["open_calls"] == 0
    assert len(meter.history()) == 1
    assert meter.history()[0].status is not Status.OK
    assert [r.status for r in heard.records if isinstance(r, RunRecord) and r.parent_id is None] != [Status.OK]


def test_a_tool_that_takes_too_long_failed(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    @tool(name="search", description="Look something up, slowly.")
    def slow(query: str) -> str:
        time.sleep(0.4)
        return query

    served = loopback([Reply(tool_calls=[ToolCall("search", {"query": "x"})]), DONE])
    agent(openai(served), MeterObserver(meter), tools=[slow], tool_timeout_seconds=0.05).run("Hi")

    assert meter.analytics.get_metrics("search").failed_calls == 1


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "in turn"])
def test_tools_that_did_not_run_are_told_by_the_trace(
    agent: Any, openai: Any, loopback: Any, meter: Meter, parallel: bool
) -> None:
    meter.register(heard := RecordingPlugin())
    asks = Reply(tool_calls=[ToolCall("search", {"query": "x"}), ToolCall("nowhere", {}), ToolCall("divide", {})])
    agent(
        openai(loopback([asks, DONE])),
        MeterObserver(meter),
        tool_policy=ToolPolicy(allow=["search", "nowhere"], deny=["divide"]),
        parallel_tool_execution=parallel,
    ).run("Hi")
    tools = {(r.name, r.status, r.error_type) for r in heard.records if isinstance(r, ToolRecord)}

    assert tools == {
        ("search", Status.OK, None),
        ("nowhere", Status.ERROR, "UnknownTool"),
        ("divide", Status.DENIED, "PolicyDenied"),
    }
    assert meter.analytics.get_metrics("nowhere").failed_calls == 1


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "in turn"])
def test_a_cached_tool_is_marked(agent: Any, openai: Any, loopback: Any, meter: Meter, parallel: bool) -> None:
    @tool(name="search", description="Look something up.", cacheable=True)
    def kept(query: str) -> str:
        return query

    meter.register(heard := RecordingPlugin())
    twice = Reply(tool_calls=[ToolCall("search", {"query": "x"}), ToolCall("search", {"query": "y"})])
    again = Reply(tool_calls=[ToolCall("search", {"query": "x"}), ToolCall("search", {"query": "z"})])
    agent(
        openai(loopback([twice, again, DONE])),
        MeterObserver(meter),
        tools=[kept],
        cache=InMemoryCache(),
        parallel_tool_execution=parallel,
    ).run("Hi")
    tools = [r for r in heard.records if isinstance(r, ToolRecord)]

    assert len(tools) == 4
    assert [r.params for r in tools if r.tags.get("cached")] == [{"query": "x"}]


def test_runs_steps_and_calls_make_a_tree(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    meter.register(heard := RecordingPlugin())
    with meter.scope(agent="librarian", user="u1"):
        agent(openai(loopback([ASKS_TWO, DONE])), MeterObserver(meter)).run("Hi")
    runs = [r for r in heard.records if isinstance(r, RunRecord)]
    root = next(r for r in runs if r.parent_id is None)

    assert [(r.step, r.agent, r.user, r.run_id) for r in meter.history()] == [
        ("step 1", "librarian", "u1", root.id),
        ("step 2", "librarian", "u1", root.id),
    ]
    assert [r.step_number for r in runs if r is not root] == [1, 2]
    assert meter.tree(root.id).usage.total_tokens == 350


def test_an_agent_inside_a_tool_belongs_to_it(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([Reply(tool_calls=[ToolCall("ask", {"query": "x"})]), Reply("inner"), DONE])
    inner = agent(openai(served), MeterObserver(meter), tools=[])

    @tool(name="ask", description="Ask a colleague.")
    def ask(query: str) -> str:
        return inner.run(query).content

    meter.register(heard := RecordingPlugin())
    agent(openai(served), MeterObserver(meter), tools=[ask]).run("Hi")
    runs = [r for r in heard.records if isinstance(r, RunRecord) and r.step_number is None]
    called = next(r for r in heard.records if isinstance(r, ToolRecord))

    assert sorted(r.parent_id or "" for r in runs) == sorted(["", called.id])
    assert meter.usage.requests == 3


def test_batches_are_counted_run_by_run(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    meter.register(heard := RecordingPlugin())
    served = loopback(lambda request: Reply("ok", input_tokens=10, output_tokens=5))
    many = agent(openai(served), MeterObserver(meter))
    many.batch(["a", "b", "c"], max_concurrency=3)
    asyncio.run(many.abatch(["d", "e"], max_concurrency=2))

    assert meter.usage.total_tokens == served.total.total_tokens == 75
    assert len([r for r in heard.records if isinstance(r, RunRecord) and r.step_number is None]) == 5
    assert meter.health()["open_calls"] == 0


def test_two_observers_of_one_meter_count_once(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    agent(openai(loopback([ASKS_TWO, DONE])), MeterObserver(meter), MeterObserver(meter)).run("Hi")

    assert meter.usage.total_tokens == 350
    assert meter.analytics.get_metrics("search").total_calls == 1


def test_whatever_goes_wrong_in_the_meter_the_run_goes_on_and_it_is_counted(
    agent: Any, openai: Any, loopback: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(meter, "open", fail)
    result = agent(openai(loopback([DONE])), MeterObserver(meter)).run("Hi")

    assert result.content == "done"
    assert meter.health()["failures"]


def test_every_event_of_selectools_is_taken() -> None:
    observer = MeterObserver(Meter())
    events = [name for name in dir(TheirObserver) if name.startswith("on_")]

    assert len(events) >= 47
    assert all(callable(getattr(observer, name)) for name in events)


def test_anthropics_cached_tokens_are_added_and_openais_are_not(meter: Meter) -> None:
    observer = MeterObserver(meter)
    for provider, model in (("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o")):
        observer.on_usage(
            "r",
            UsageStats(
                100,
                10,
                model=model,
                provider=provider,
                cache_read_input_tokens=60,
                cache_creation_input_tokens=20 if provider == "anthropic" else None,
            ),
        )
    anthropic, openai = meter.history()

    assert (anthropic.input_tokens, anthropic.cache_read_tokens, anthropic.cache_write_tokens) == (180, 60, 20)
    assert (openai.input_tokens, openai.cache_read_tokens) == (100, 60)


def test_what_selectools_keeps_to_itself_is_flagged(meter: Meter) -> None:
    observer = MeterObserver(meter)
    for provider, model in (("gemini", "gemini-2.5-pro"), ("openai", "o3"), ("openai", "gpt-4o")):
        observer.on_usage("r", UsageStats(100, 10, model=model, provider=provider))

    assert [r.estimated for r in meter.history()] == [True, True, False]


def test_a_server_that_counts_nothing_is_not_free(agent: Any, meter: Meter) -> None:
    class Silent:
        name, supports_streaming, supports_async = "openai", False, False

        def complete(self, **asked: Any) -> Any:
            from selectools import Message, Role

            return Message(role=Role.ASSISTANT, content="a long enough answer"), UsageStats(
                model="gpt-4o", provider="openai"
            )

    agent(Silent(), MeterObserver(meter)).run("Hi")
    record = meter.history()[0]

    assert record.estimated
    assert record.output_tokens > 0
    assert record.cost_usd


def test_a_graph_holds_the_runs_of_its_nodes(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    from selectools import AgentGraph

    served = loopback(lambda request: Reply("ok", input_tokens=10, output_tokens=5))
    observer = MeterObserver(meter)
    graph = AgentGraph(name="desk", observers=[observer])
    graph.add_node("writer", agent(openai(served), observer))
    graph.add_edge("writer", AgentGraph.END)
    graph.set_entry("writer")
    meter.register(heard := RecordingPlugin())
    graph.run("Hi")
    runs = {r.name: r for r in heard.records if isinstance(r, RunRecord)}

    assert runs["desk"].parent_id is None
    assert runs["agent"].parent_id == runs["writer"].id
    assert meter.tree(runs["desk"].id).usage.total_tokens == 15


def test_a_long_life_leaves_nothing_behind(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    served = loopback(lambda request: Reply("ok"))
    observer = MeterObserver(meter)
    many: Callable[[str], Any] = agent(openai(served), observer).run
    for _ in range(20):
        many("Hi")

    assert observer._desk.runs == {}
    assert observer._desk.announced == {}
