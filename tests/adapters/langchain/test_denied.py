"""A denied call is not made, the caller learns it, nothing that retries or handles errors swallows it."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.prompt_values import StringPromptValue
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from tests.adapters.langchain.clients import anthropic, openai

from agent_meter import BudgetExceeded, Call, Denial, Kind, Meter, Status, hookimpl
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.adapters.langchain.fence import denial_for_langchain
from agent_meter.testing import LoopbackProvider, RecordingPlugin, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
HELLO = {"messages": [("user", "hello")]}
FULL = Reply("x", input_tokens=1000, output_tokens=100)


class Guard:
    """Lets `calls` calls of one kind through."""

    def __init__(self, calls: int = 0, kind: Kind = Kind.LLM) -> None:
        self.left, self.kind = calls, kind

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not self.kind:
            return None
        self.left -= 1
        return Denial(f"no {self.kind} calls left", by="the guard") if self.left < 0 else None


def guarded(*guards: Guard) -> tuple[Meter, Any]:
    meter = Meter(guards)
    return meter, {"callbacks": [MeterCallback(meter)]}


def settled(meter: Meter) -> bool:
    return not meter.health()["failures"] and meter.health()["open_calls"] == 0


def denied(meter: Meter) -> int:
    return meter.usage.denied_requests


# ------------------------------------------------------------------------------------------------ model calls


async def _all(stream: Any) -> list[Any]:
    return [item async for item in stream]


ASKING: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, config: model.invoke("hello", config),
    "stream": lambda model, config: list(model.stream("hello", config)),
    "batch": lambda model, config: model.batch(["hello"], config),
    "generate": lambda model, config: model.generate_prompt([StringPromptValue(text="hello")], **config),
    "chain": lambda model, config: (RunnableLambda(lambda q: q) | model).invoke("hello", config),
}
ASKING_ASYNC: dict[str, Callable[[Any, Any], Any]] = {
    "ainvoke": lambda model, config: model.ainvoke("hello", config),
    "astream": lambda model, config: _all(model.astream("hello", config)),
    "abatch": lambda model, config: model.abatch(["hello"], config),
    "agenerate": lambda model, config: model.agenerate_prompt([StringPromptValue(text="hello")], **config),
    "async chain": lambda model, config: (RunnableLambda(lambda q: q) | model).ainvoke("hello", config),
}


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("way", ASKING)
def test_a_denied_call_is_never_sent(client: Any, way: str, loopback: Loopback) -> None:
    provider = loopback([FULL])
    meter, config = guarded(Guard(0))

    with pytest.raises(BudgetExceeded, match="the guard: no llm calls left") as failure:
        ASKING[way](client(provider), config)

    assert failure.value.denial == Denial("no llm calls left", by="the guard")
    assert provider.requests == []
    assert settled(meter)
    (record,) = meter.history(include_denied=True)
    assert (record.status, record.billed_cost_usd, record.estimated) == (Status.DENIED, 0, False)
    assert meter.history() == []


@pytest.mark.parametrize("way", ASKING_ASYNC)
async def test_a_denied_call_is_never_sent_by_async_code(way: str, loopback: Loopback) -> None:
    provider = loopback([FULL])
    meter, config = guarded(Guard(0))

    with pytest.raises(BudgetExceeded):
        await ASKING_ASYNC[way](openai(provider), config)

    assert provider.requests == []
    assert (settled(meter), denied(meter)) == (True, 1)


async def _generate(model: Any, prompts: Any, asynchronous: bool, config: Any) -> Any:
    if asynchronous:
        return await model.agenerate_prompt(prompts, **config)
    return model.generate_prompt(prompts, **config)


async def _run(agent: Any, asynchronous: bool, config: Any) -> Any:
    return await agent.ainvoke(HELLO, config) if asynchronous else agent.invoke(HELLO, config)


@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event'")  # LangChain's, of the prompts after the denied one
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_when_one_prompt_of_generate_is_denied_none_is_sent(asynchronous: bool, loopback: Loopback) -> None:
    """All of them have been started by then, and LangChain ends none."""
    provider = loopback([FULL])
    meter, config = guarded(Guard(2))
    prompts: Any = [StringPromptValue(text=text) for text in "abcd"]

    with pytest.raises(BudgetExceeded):
        await _generate(openai(provider), prompts, asynchronous, config)

    assert provider.requests == []
    assert (settled(meter), denied(meter)) == (True, 3)
    assert meter.usage.requests == 0


def test_a_denial_is_not_logged_as_an_error_of_the_callback(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BudgetExceeded):
        openai(loopback([FULL])).invoke("hello", {"callbacks": [MeterCallback(Meter([Guard(0)]))]})

    assert caplog.messages == []


def test_an_agent_stops_at_the_call_that_is_denied(loopback: Loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("now")]), "never said"])
    seen = RecordingPlugin()
    meter, config = guarded(Guard(1))
    meter.register(seen)

    @tool
    def now() -> str:
        """The time."""
        return "noon"

    with pytest.raises(BudgetExceeded):
        create_agent(openai(provider), [now], name="boss").invoke(HELLO, config)

    assert len(provider.requests) == 1
    assert (settled(meter), denied(meter)) == (True, 1)
    runs = [(run.name, run.status, run.error_type) for run in seen.run_records if run.kind is Kind.RUN]
    assert runs == [("boss", Status.ERROR, "BudgetExceeded")]


# ------------------------------------------------------------- what retries, falls back, or handles errors


def _with_model_retry(provider: LoopbackProvider) -> Any:
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.01)
    return create_agent(openai(provider), [], middleware=[retry])


def _with_model_fallback(provider: LoopbackProvider) -> Any:
    fallback = ModelFallbackMiddleware(anthropic(provider))
    return create_agent(openai(provider), [], middleware=[fallback])


def _with_node_retry(provider: LoopbackProvider) -> Any:
    graph = StateGraph(MessagesState)
    patience = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=Exception)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello")]}, retry_policy=patience)
    graph.add_edge(START, "ask")
    return graph.compile()


@pytest.mark.parametrize("make", [_with_model_retry, _with_model_fallback, _with_node_retry])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_nothing_retries_or_replaces_a_denied_model_call(
    make: Any, asynchronous: bool, loopback: Loopback
) -> None:
    provider = loopback([FULL], loop=True)
    meter, config = guarded(Guard(0))

    with pytest.raises(BudgetExceeded):
        await _run(make(provider), asynchronous, config)

    assert provider.requests == []
    assert (settled(meter), denied(meter)) == (True, 1)


@pytest.mark.parametrize("middleware", [[], [ToolRetryMiddleware(max_retries=2, initial_delay=0.01)]])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_denied_tool_is_not_run_and_not_turned_into_a_message(
    middleware: Any, asynchronous: bool, loopback: Loopback
) -> None:
    provider, ran = loopback([Reply(tool_calls=[ToolCall("buy")]), "never said"]), []
    seen = RecordingPlugin()
    meter, config = guarded(Guard(0, Kind.TOOL))
    meter.register(seen)

    @tool
    def buy() -> str:
        """Buy."""
        ran.append(1)
        return "bought"

    agent = create_agent(openai(provider), [buy], middleware=middleware)
    with pytest.raises(BudgetExceeded, match="no tool calls left"):
        await _run(agent, asynchronous, config)

    assert (ran, len(provider.requests)) == ([], 1)
    assert [(r.name, r.status) for r in seen.tool_records] == [("buy", Status.DENIED)]
    assert settled(meter)


def test_a_sub_agent_that_is_denied_stops_the_agent_above(loopback: Loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("ask_researcher")]), "never said"])
    meter, config = guarded(Guard(1))
    researcher = create_agent(openai(provider), [], name="researcher")

    @tool
    def ask_researcher() -> str:
        """Ask."""
        return str(researcher.invoke(HELLO))

    with pytest.raises(BudgetExceeded):
        create_agent(openai(provider), [ask_researcher], name="boss").invoke(HELLO, config)

    assert len(provider.requests) == 1
    assert (settled(meter), denied(meter)) == (True, 1)


async def test_branches_beside_a_denied_one_are_finished_and_metered(loopback: Loopback) -> None:
    """Any other exception would cancel them, paid for and unseen."""
    provider = loopback(lambda request: Reply("x", input_tokens=1000, output_tokens=100, delay=0.3))
    meter, config = guarded(Guard(1))

    async def ask(state: Any) -> Any:
        return {"messages": [await openai(provider).ainvoke("hello")]}

    graph = StateGraph(MessagesState)
    for name in ("a", "b"):
        graph.add_node(name, ask)
        graph.add_edge(START, name)

    with pytest.raises(BudgetExceeded):
        await graph.compile().ainvoke(HELLO, config)

    assert [(r.status, r.total_tokens) for r in meter.history()] == [(Status.OK, 1100)]
    assert settled(meter)


def test_langchains_own_retries_ask_the_guard_again(loopback: Loopback) -> None:
    """`with_retry` and `with_fallbacks` take every exception: each attempt is denied anew, none is sent."""
    provider = loopback([FULL], loop=True)
    meter, config = guarded(Guard(0))
    model = openai(provider).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)

    with pytest.raises(BudgetExceeded):
        model.with_fallbacks([anthropic(provider)]).invoke("hello", config)

    assert provider.requests == []
    assert (settled(meter), denied(meter)) == (True, 4)


# --------------------------------------------------------------------------------------------- the exception


class Stingy(BaseRateLimiter):
    def acquire(self, *, blocking: bool = True) -> bool:
        raise BudgetExceeded(Denial("not today", by="the limiter"))

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


async def test_a_limiter_may_deny_as_well(loopback: Loopback) -> None:
    """It is asked after the cache, so that replays pass."""
    provider, meter = loopback([FULL]), Meter()
    model, config = openai(provider, rate_limiter=Stingy()), {"callbacks": [MeterCallback(meter)]}

    with pytest.raises(BudgetExceeded):
        model.invoke("hello", config)
    with pytest.raises(BudgetExceeded):
        await model.ainvoke("hello", config)

    assert (settled(meter), denied(meter), meter.usage.requests) == (True, 2, 0)
    assert {(r.estimated, r.notes) for r in meter.history(include_denied=True)} == {(False, ())}


def test_the_exception_travels_to_another_process() -> None:
    error = denial_for_langchain(Denial("no more", by="the guard"))

    twin = pickle.loads(pickle.dumps(error))

    assert type(twin) is BudgetExceeded
    assert (twin.denial, str(twin)) == (error.denial, "the guard: no more")


def test_without_langgraph_it_is_the_plain_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "langgraph.errors")

    assert type(denial_for_langchain(Denial("no more"))) is BudgetExceeded
