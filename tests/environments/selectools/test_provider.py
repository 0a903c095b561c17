"""A metered provider sees every request, refuses those that are denied, and counts none twice."""

from __future__ import annotations

import asyncio
import copy
from decimal import Decimal
from typing import Any

import pytest
from selectools import FallbackProvider, InMemoryCache, Message, Role, ToolConfig, UsageStats, tool
from selectools.providers.base import Provider
from selectools.providers.stubs import LocalProvider

from agent_meter import Budget, BudgetExceeded, Meter, hookimpl
from agent_meter.adapters.selectools import MeteredProvider, MeterObserver
from agent_meter.records import Call, Denial, Kind, RunRecord, Status, ToolRecord
from agent_meter.testing import ErrorReply, RecordingPlugin, Reply, ToolCall

ASKS = Reply(tool_calls=[ToolCall("search", {"query": "pluggy"})], input_tokens=100, output_tokens=20)
DONE = Reply("done", input_tokens=200, output_tokens=30)
REFUSED = ErrorReply(429, should_retry=False)
MESSAGES = [Message(role=Role.USER, content="Hi")]
ASKED: dict[str, Any] = {"model": "gpt-4o", "system_prompt": "Be brief.", "messages": MESSAGES}


class Guard:
    """Lets so many model calls through, and notes what it was asked about."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.asked: list[Call] = []

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not Kind.LLM:
            return None
        self.asked.append(call)
        self.left -= 1
        return Denial("spent") if self.left < 0 else None


def run(agent: Any, way: str) -> Any:
    async def stream() -> None:
        async for _ in agent.astream("Hi"):
            pass

    if way == "run":
        return agent.run("Hi")
    return asyncio.run(agent.arun("Hi") if way == "arun" else stream())


@pytest.mark.parametrize("way", ["run", "arun", "astream"])
@pytest.mark.parametrize("observed", [True, False], ids=["observed", "alone"])
def test_a_denial_stops_the_run_before_the_request_is_sent(
    agent: Any, openai: Any, loopback: Any, meter: Meter, way: str, observed: bool
) -> None:
    guard = Guard(1)
    meter.register(guard)
    served = loopback([ASKS, DONE])
    observers = [MeterObserver(meter)] if observed else []
    stopped = agent(MeteredProvider(openai(served), meter), *observers)

    with pytest.raises(BudgetExceeded, match="spent"):
        run(stopped, way)

    assert len(served.requests) == 1
    assert [r.status for r in meter.history(include_denied=True)] == [Status.OK, Status.DENIED]
    assert meter.usage.denied_requests == 1
    assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("way", ["run", "arun", "astream"])
def test_a_budget_stops_a_run_when_it_is_spent(agent: Any, openai: Any, loopback: Any, way: str) -> None:
    meter = Meter(budgets=[Budget("small", usd="0.012", agent="librarian")])
    served = loopback([ASKS, ASKS, ASKS, DONE])
    stopped = agent(MeteredProvider(openai(served), meter), MeterObserver(meter), max_tokens=1000)

    # Each call asks for 1,000 tokens of output at most: $0.010, and uses 20. Beside the second one is no room for it.
    with meter.scope(agent="librarian"), pytest.raises(BudgetExceeded) as refused:
        run(stopped, way)

    assert refused.value.budget == "small"
    assert 1 <= len(served.requests) <= 3
    assert meter.usage_by("agent")["librarian"].cost_usd <= Decimal("0.012")


def test_a_denial_stops_a_stream_before_the_request_is_sent(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    meter.register(Guard(0))
    served = loopback([DONE])

    with pytest.raises(BudgetExceeded):
        agent(MeteredProvider(openai(served), meter), MeterObserver(meter), stream=True).run("Hi")

    assert served.requests == []


def test_an_observer_alone_cannot_stop_a_call_and_says_so_once(
    agent: Any, openai: Any, loopback: Any, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(0)
    meter.register(guard)
    agent(openai(loopback([ASKS, DONE])), MeterObserver(meter)).run("Hi")

    assert meter.usage.total_tokens == 350
    assert meter.usage.denied_requests == 0
    assert len([r for r in caplog.records if "MeteredProvider" in r.getMessage()]) == 1


def test_a_guard_knows_what_the_call_may_use(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    guard = Guard(9)
    meter.register(guard)
    agent(MeteredProvider(openai(loopback([DONE])), meter), MeterObserver(meter), max_tokens=500).run("Hi " * 100)
    reserve = guard.asked[0].reserve

    assert reserve is not None
    assert reserve.output_tokens == 500
    assert reserve.input_tokens is not None
    assert reserve.input_tokens > 100
    assert reserve.pico


@pytest.mark.parametrize("way", ["run", "arun", "astream"])
def test_provider_and_observer_together_count_once(
    agent: Any, openai: Any, loopback: Any, meter: Meter, way: str
) -> None:
    served = loopback([ASKS, DONE])
    run(agent(MeteredProvider(openai(served), meter), MeterObserver(meter)), way)

    assert [(r.status, r.step) for r in meter.history()] == [(Status.OK, "step 1"), (Status.OK, "step 2")]
    if way != "astream":
        assert meter.usage.total_tokens == served.total.total_tokens
        assert not meter.usage.estimated_requests


def test_failed_attempts_have_numbers_and_replays_are_counted_beside_the_provider(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    served = loopback([REFUSED, DONE])
    both = agent(MeteredProvider(openai(served), meter), MeterObserver(meter), cache=InMemoryCache())
    both.run("Hi")
    both.reset()
    both.run("Hi")

    assert [(r.status, r.attempt, r.cached, r.error_type) for r in meter.history()] == [
        (Status.ERROR, 1, False, "RateLimitError"),
        (Status.OK, 2, False, None),
        (Status.OK, 1, True, None),
    ]
    assert meter.usage.billed_cost_usd == meter.history()[1].cost_usd


def test_requests_that_no_observer_hears_of_are_counted_in_their_run(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    @tool(name="search", description="Look something up.")
    def long(query: str) -> str:
        return "word " * 400

    served = loopback([ASKS, Reply("short", input_tokens=500, output_tokens=40), DONE])
    compressing = ToolConfig(compress_results=True, compress_threshold=200)
    agent(MeteredProvider(openai(served), meter), MeterObserver(meter), tools=[long], tool=compressing).run("Hi")

    assert len(served.requests) == 3
    assert meter.usage.total_tokens == served.total.total_tokens
    assert len({r.run_id for r in meter.history()}) == 1


def test_what_a_tool_asks_a_provider_itself_is_the_tools_and_may_be_cancelled_alone(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    slow = loopback([Reply("late", delay=1.0)])
    provider = MeteredProvider(openai(loopback([ASKS, DONE])), meter)
    inner = MeteredProvider(openai(slow), meter)

    @tool(name="search", description="Ask somebody who is slow.")
    async def ask(query: str) -> str:
        await inner.acomplete(**ASKED)
        return query

    meter.register(heard := RecordingPlugin())
    asyncio.run(agent(provider, MeterObserver(meter), tools=[ask], tool_timeout_seconds=0.1).arun("Hi"))
    (called,) = [r for r in heard.records if isinstance(r, ToolRecord)]
    (root,) = [r for r in heard.records if isinstance(r, RunRecord) and r.parent_id is None]

    assert [(r.status, r.parent_id == called.id) for r in meter.history()] == [
        (Status.OK, False),
        (Status.CANCELLED, True),
        (Status.OK, False),
    ]
    assert (called.error_type, root.status) == ("TimeoutError", Status.OK)


def test_a_stream_is_timed_and_its_tools_are_known(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    agent(MeteredProvider(openai(loopback([ASKS, DONE])), meter), MeterObserver(meter), stream=True).run("Hi")
    first, last = meter.history()

    assert (first.tools, last.tools) == (("search",), ())
    assert first.streamed
    assert first.estimated
    assert last.time_to_first_token is not None


@pytest.mark.parametrize("refusing", [True, False], ids=["provider", "observer"])
@pytest.mark.parametrize("way", ["run", "astream"])
def test_a_stream_is_exact_where_it_is_read_as_it_arrives(
    agent: Any, openai: Any, loopback: Any, meter: Meter, refusing: bool, way: str
) -> None:
    served = loopback([DONE])
    provider = MeteredProvider(openai(served), meter, wire=True) if refusing else openai(served)
    run(agent(provider, MeterObserver(meter, wire=not refusing), stream=way == "run"), way)

    assert [(r.total_tokens, r.estimated, r.streamed) for r in meter.history()] == [(230, False, True)]
    meter.shutdown()


def test_a_stream_that_is_left_is_cancelled_with_what_was_heard(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    long = Reply("word " * 200, chunks=100, chunk_delay=0.01)

    async def leave() -> None:
        chunks = agent(MeteredProvider(openai(loopback([long])), meter), MeterObserver(meter)).astream("Hi")
        async for _ in chunks:
            break
        await chunks.aclose()
        assert [r.status for r in meter.history()] == [Status.CANCELLED]
        assert meter.health()["open_calls"] == 0

    asyncio.run(leave())

    record = meter.history()[0]
    assert 0 < record.output_tokens < 100
    assert record.estimated


def test_a_sync_stream_that_is_dropped_ends(openai: Any, loopback: Any, meter: Meter) -> None:
    provider = MeteredProvider(openai(loopback([Reply("word " * 50, chunks=50)])), meter)
    items = provider.stream(**ASKED)
    next(items)
    items.close()

    assert [r.status for r in meter.history()] == [Status.CANCELLED]


def test_a_broken_stream_is_an_error_with_what_was_heard(openai: Any, loopback: Any, meter: Meter) -> None:
    from agent_meter.testing import Cut

    provider = MeteredProvider(openai(loopback([Cut(3, Reply("word " * 50, chunks=10))])), meter)
    with pytest.raises(Exception, match="stream"):
        list(provider.stream(**ASKED))
    record = meter.history()[0]

    assert (record.status, record.estimated) == (Status.ERROR, True)
    assert record.output_tokens > 0


def test_a_cancelled_request_ends_its_run(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    async def impatient() -> None:
        slow = agent(MeteredProvider(openai(loopback([Reply("late", delay=1.0)])), meter), MeterObserver(meter))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(slow.arun("Hi"), 0.1)
        assert meter.health()["open_calls"] == 0

    asyncio.run(impatient())

    assert [(r.status, r.estimated) for r in meter.history()] == [(Status.CANCELLED, True)]


def test_nested_providers_count_the_outermost_request(agent: Any, openai: Any, loopback: Any, meter: Meter) -> None:
    served = loopback([DONE])
    inside = MeteredProvider(openai(served), meter)
    agent(MeteredProvider(FallbackProvider([inside]), meter), MeterObserver(meter)).run("Hi")

    assert meter.usage.total_tokens == 230
    assert meter.history()[0].provider == "openai"


def test_wrapped_providers_inside_a_fallback_show_each_attempt(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    first, second = openai(loopback([ErrorReply(503, should_retry=False)])), openai(loopback([DONE]))
    falling = FallbackProvider([MeteredProvider(first, meter), MeteredProvider(second, meter)])
    agent(falling, MeterObserver(meter)).run("Hi")

    assert [r.status for r in meter.history()] == [Status.ERROR, Status.OK]
    assert meter.usage.total_tokens == 230


def test_two_meters_count_both(openai: Any, loopback: Any) -> None:
    one, other = Meter(), Meter()
    MeteredProvider(MeteredProvider(openai(loopback([DONE])), one), other).complete(**ASKED)

    assert one.usage.total_tokens == other.usage.total_tokens == 230


def test_it_stands_in_for_the_provider_it_was_given(openai: Any, loopback: Any, meter: Meter) -> None:
    plain = openai(loopback([]))
    provider = MeteredProvider(plain, meter)
    provider.default_model = "gpt-4o-mini"

    assert isinstance(provider, Provider)
    assert (provider.name, plain.default_model, provider.meter) == ("openai", "gpt-4o-mini", meter)
    assert copy.copy(provider).name == "openai"
    assert not hasattr(MeteredProvider(_Sync(), meter), "acomplete")


def test_a_provider_that_echoes_is_free(meter: Meter) -> None:
    MeteredProvider(LocalProvider(), meter).complete(**ASKED)
    record = meter.history()[0]

    assert (record.total_tokens, record.cost_usd, record.estimated) == (0, 0, False)


def test_what_the_caller_passes_and_gets_is_untouched(meter: Meter) -> None:
    provider = _Sync()
    answer = MeteredProvider(provider, meter).complete(**ASKED, response_format={"type": "object"})

    assert answer is provider.answer
    assert provider.asked == {**ASKED, "response_format": {"type": "object"}}


def test_an_answer_that_cannot_be_read_is_counted_as_unknown(meter: Meter) -> None:
    provider = _Sync()
    provider.answer = "not a pair"
    answer = MeteredProvider(provider, meter).complete(**ASKED)

    assert answer == "not a pair"
    assert meter.history()[0].estimated
    assert meter.health()["open_calls"] == 0


def test_whatever_goes_wrong_in_the_meter_the_request_is_made(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(meter, "close", fail)
    provider = _Sync()

    assert MeteredProvider(provider, meter).complete(**ASKED) is provider.answer
    assert meter.health()["failures"]


class _Sync:
    """The least that a provider of selectools is."""

    name, supports_streaming, supports_async = "openai", False, False

    def __init__(self) -> None:
        self.answer: Any = (
            Message(role=Role.ASSISTANT, content="ok"),
            UsageStats(10, 5, model="gpt-4o", provider="openai"),
        )
        self.asked: dict[str, Any] = {}

    def complete(self, **asked: Any) -> Any:
        self.asked = asked
        return self.answer
