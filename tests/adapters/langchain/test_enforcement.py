"""A used-up budget stops LangChain's calls, counted at the provider; whatever retries, falls back or streams."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.caches import InMemoryCache
from langchain_core.prompt_values import StringPromptValue
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy
from tests.adapters.langchain.clients import anthropic, openai
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter, Status, hookimpl
from agent_meter.adapters.langchain import MeterCallback, MeteredCache, MeterMiddleware
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
HELLO: Any = {"messages": [("user", "hello")]}
PAID = Reply("x", input_tokens=1000, output_tokens=100)  # $0.0035 at gpt-4o's prices


def budgeted(requests: int = 1, **options: Any) -> tuple[Meter, Any]:
    if not options.keys() & {"usd", "tokens"}:
        options["requests"] = requests
    meter = Meter(budgets=[Budget("day", **options)])
    return meter, {"callbacks": [MeterCallback(meter)]}


async def _all(stream: Any) -> list[Any]:
    return [item async for item in stream]


HI = [StringPromptValue(text="hello")]
ASKING: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, config: model.invoke("hello", config),
    "stream": lambda model, config: list(model.stream("hello", config)),
    "batch": lambda model, config: model.batch(["hello"], config),
    "generate": lambda model, config: model.generate_prompt(HI, **config),
    "chain": lambda model, config: (RunnableLambda(lambda q: q) | model).invoke("hello", config),
    "parallel": lambda model, config: RunnableParallel(a=model).invoke("hello", config),
}
ASKING_ASYNC: dict[str, Callable[[Any, Any], Any]] = {
    "ainvoke": lambda model, config: model.ainvoke("hello", config),
    "astream": lambda model, config: _all(model.astream("hello", config)),
    "astream_events": lambda model, config: _all(model.astream_events("hello", config, version="v2")),
    "abatch": lambda model, config: model.abatch(["hello"], config),
    "agenerate": lambda model, config: model.agenerate_prompt(HI, **config),
    "chain": lambda model, config: (RunnableLambda(lambda q: q) | model).ainvoke("hello", config),
}


# ----------------------------------------------------------------------------------------- whichever way it asks


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("way", ASKING)
def test_the_call_beyond_the_budget_is_not_sent(client: Any, way: str, loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(1)
    ASKING[way](client(provider), config)

    with pytest.raises(BudgetExceeded, match="1 request of 1 request used") as failure:
        ASKING[way](client(provider), config)

    assert (failure.value.budget, failure.value.limit, failure.value.used) == ("day", 1, 1)
    assert len(provider.requests) == 1
    assert refused(meter) == 1


@pytest.mark.parametrize("way", ASKING_ASYNC)
async def test_the_call_beyond_the_budget_is_not_sent_by_async_code(way: str, loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(1)
    await ASKING_ASYNC[way](openai(provider), config)

    with pytest.raises(BudgetExceeded):
        await ASKING_ASYNC[way](openai(provider), config)

    assert len(provider.requests) == 1
    assert refused(meter) == 1


def test_a_batch_is_refused_where_the_budget_ends(loopback: Loopback) -> None:
    provider = loopback(lambda request: PAID)
    meter, config = budgeted(3)

    answers = openai(provider).batch(["hello"] * 8, config, return_exceptions=True)

    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 5
    assert len(provider.requests) == 3
    assert refused(meter) == 5


async def test_an_async_batch_is_refused_where_the_budget_ends(loopback: Loopback) -> None:
    provider = loopback(lambda request: PAID)
    meter, config = budgeted(3)

    answers = await openai(provider).abatch(["hello"] * 8, config, return_exceptions=True)

    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 5
    assert len(provider.requests) == 3
    assert refused(meter) == 5


@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event'")  # LangChain's, of the prompts after the refused one
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_prompts_that_were_let_through_before_a_refused_one_give_back_what_they_held(
    asynchronous: bool, loopback: Loopback
) -> None:
    """`generate` starts all of its prompts first, and sends none when one of them is refused."""
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(2)
    model, prompts = openai(provider), [StringPromptValue(text=text) for text in "abcd"]

    with pytest.raises(BudgetExceeded):
        await model.agenerate_prompt(prompts, **config) if asynchronous else model.generate_prompt(prompts, **config)

    assert provider.requests == []
    refused(meter)
    assert meter.budgets.status("day").used == 0


# ------------------------------------------------------------------- what retries, falls back, or handles errors


def _model_retry(provider: LoopbackProvider) -> Any:
    return create_agent(openai(provider), [], middleware=[ModelRetryMiddleware(max_retries=2, initial_delay=0.01)])


def _model_fallback(provider: LoopbackProvider) -> Any:
    return create_agent(openai(provider), [], middleware=[ModelFallbackMiddleware(anthropic(provider))])


def _node_retry(provider: LoopbackProvider) -> Any:
    graph = StateGraph(MessagesState)
    patience = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=Exception)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello")]}, retry_policy=patience)
    graph.add_edge(START, "ask")
    return graph.compile()


def _tool_that_asks(provider: LoopbackProvider, **options: Any) -> Any:
    @tool
    def research(topic: str = "") -> str:
        """Ask a model."""
        return str(openai(provider).invoke("hello").content)

    return research


def _tool_retry(provider: LoopbackProvider) -> Any:
    asks = Reply(tool_calls=[ToolCall("research", {"topic": "meters"})], input_tokens=10, output_tokens=1)
    agent = openai(loopback_of(provider, asks))
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0.01)
    return create_agent(agent, [_tool_that_asks(provider)], middleware=[retry])


def _tool_node(provider: LoopbackProvider) -> Any:
    """A ToolNode that hands every error of a tool to the model."""
    asks = Reply(tool_calls=[ToolCall("research", {"topic": "meters"})], input_tokens=10, output_tokens=1)
    model = openai(loopback_of(provider, asks)).bind_tools([_tool_that_asks(provider)])
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([_tool_that_asks(provider)], handle_tool_errors=True))
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "tools")
    graph.add_edge("tools", "ask")
    return graph.compile()


_beside: dict[int, LoopbackProvider] = {}


def loopback_of(provider: LoopbackProvider, reply: Reply) -> LoopbackProvider:
    """A second provider for the agent itself, so that the first counts what its tool sends."""
    return _beside.setdefault(id(provider), LoopbackProvider([reply], loop=True).start())


@pytest.fixture(autouse=True)
def _stop_what_runs_beside() -> Any:
    yield
    for provider in _beside.values():
        provider.stop()
    _beside.clear()


@pytest.mark.parametrize("make", [_model_retry, _model_fallback, _node_retry, _tool_retry, _tool_node])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_nothing_retries_replaces_or_handles_a_refusal(make: Any, asynchronous: bool, loopback: Loopback) -> None:
    """The agent's own first call is let through where it must ask for its tool; the next call is refused, once."""
    provider = loopback([PAID], loop=True)
    first = 1 if make in (_tool_retry, _tool_node) else 0
    meter, config = budgeted(first)
    agent = make(provider)

    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(HELLO, config) if asynchronous else agent.invoke(HELLO, config)

    assert provider.requests == []
    assert refused(meter) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_with_retry_and_with_fallbacks_ask_again_and_are_refused_again(
    asynchronous: bool, loopback: Loopback
) -> None:
    """They take every exception: each attempt is a call, is refused, and none is sent."""
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(0)
    model = openai(provider).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    model = model.with_fallbacks([anthropic(provider)])

    with pytest.raises(BudgetExceeded):
        await model.ainvoke("hello", config) if asynchronous else model.invoke("hello", config)

    assert provider.requests == []
    assert refused(meter) == 4


# ------------------------------------------------------------------------------------- cancelled, left, miscounted


def test_a_stream_that_is_left_is_paid_for_with_what_was_seen(loopback: Loopback) -> None:
    provider = loopback(lambda request: Reply("word " * 40, input_tokens=1000, output_tokens=400, chunk_delay=0.01))
    meter, config = budgeted(usd="0.02", per="total")

    stream = openai(provider, max_tokens=500).stream("hello", config)
    next(stream)
    del stream
    gc.collect()

    assert refused(meter) == 0
    assert 0 < meter.budgets.status("day").used < Decimal("0.02")


async def test_a_call_that_is_cancelled_after_it_was_sent_is_charged(loopback: Loopback) -> None:
    """LangChain tells of no end; the run it was made in does. The provider has read the prompt, and bills it."""
    provider = loopback(lambda request: Reply("late", input_tokens=1000, output_tokens=10, delay=5))
    meter, config = budgeted(usd="0.02", per="total")
    chain = RunnableLambda(lambda q: q) | openai(provider, max_tokens=500)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(chain.ainvoke("hello " * 200, config), 0.5)

    assert len(provider.requests) == 1
    assert refused(meter) == 0
    assert meter.budgets.status("day").used > 0


def test_an_answer_that_cost_more_than_was_held_is_kept_and_the_next_call_is_refused(loopback: Loopback) -> None:
    provider = loopback([Reply("far too long", input_tokens=2_000, output_tokens=3_000)], loop=True)
    meter, config = budgeted(usd="0.01", per="total")

    answer = openai(provider, max_tokens=50).invoke("hello", config)
    with pytest.raises(BudgetExceeded, match=r"\$0\.035 of \$0\.01 used \(in total\); this call needs up to"):
        openai(provider, max_tokens=50).invoke("hello", config)

    assert answer.content == "far too long"
    assert len(provider.requests) == 1
    assert meter.health()["budgets"]["overruns"] == 1
    assert refused(meter) == 1


class Broken:
    @hookimpl
    def meter_record(self, record: Any) -> None:
        raise ArithmeticError("the accounts are in disorder")


def test_an_accounting_error_after_a_paid_call_never_reaches_the_run(loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(1)
    meter.register(Broken())

    assert openai(provider).invoke("hello", config).content == "x"
    with pytest.raises(BudgetExceeded):
        openai(provider).invoke("hello", config)

    assert len(provider.requests) == 1
    assert meter.health()["failures"] == {"Broken": {"meter_record": 2}}
    assert refused(meter) == 1


def test_a_call_that_the_provider_refuses_gives_back_what_it_held(loopback: Loopback) -> None:
    from agent_meter.testing import ErrorReply

    provider = loopback([ErrorReply(400), PAID])
    meter, config = budgeted(1)

    with pytest.raises(Exception, match="400"):
        openai(provider).invoke("hello", config)
    assert openai(provider).invoke("hello", config).content == "x"

    assert refused(meter) == 0
    assert meter.budgets.status("day").used == 1


def test_a_caller_without_a_maximum_is_told_what_was_assumed(loopback: Loopback) -> None:
    provider = loopback([Reply("x", input_tokens=1000, output_tokens=2000)], loop=True)
    meter, config = budgeted(usd="0.03", per="total")
    openai(provider).invoke("hello", config)

    with pytest.raises(BudgetExceeded, match=r"its answer is assumed at [\d,]+ tokens: no maximum was asked for"):
        openai(provider).invoke("hello", config)

    assert len(provider.requests) == 1
    assert refused(meter) == 1


def test_grace_lets_through_a_little_more(loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(10, grace=0.2)
    for _ in range(12):
        openai(provider).invoke("hello", config)

    with pytest.raises(BudgetExceeded):
        openai(provider).invoke("hello", config)

    assert len(provider.requests) == 12
    assert meter.budgets.status("day").percent == 120
    assert refused(meter) == 1


# -------------------------------------------------------------------------------------------------- cached hits


@pytest.mark.parametrize("metered", [False, True], ids=["InMemoryCache", "MeteredCache"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_cached_hit_passes_a_used_up_budget(metered: bool, asynchronous: bool, loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(1)
    cache = MeteredCache(InMemoryCache(), meter) if metered else InMemoryCache()
    model = openai(provider, cache=cache)

    async def ask(text: str) -> Any:
        return await model.ainvoke(text, config) if asynchronous else model.invoke(text, config)

    await ask("hello")
    again = await ask("hello")
    with pytest.raises(BudgetExceeded):
        await ask("something else")

    assert again.content == "x"
    assert len(provider.requests) == 1
    assert [(r.status, r.cached) for r in meter.history()] == [(Status.OK, False), (Status.OK, True)]
    assert refused(meter) == 1
    assert meter.budgets.status("day").denied == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_so_does_an_agents_with_the_middleware(asynchronous: bool, loopback: Loopback) -> None:
    provider, meter = loopback([PAID], loop=True), Meter(budgets=[Budget("day", requests=1)])
    model = openai(provider, cache=InMemoryCache(), rate_limiter=InMemoryRateLimiter(requests_per_second=100))
    agent = create_agent(model, [], middleware=[MeterMiddleware(meter)])
    said = []
    for question in ("hello", "hello", "something else"):
        asked: Any = {"messages": [("user", question)]}
        answer = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
        said.append(answer["messages"][-1].text)

    assert said[:2] == ["x", "x"]
    assert said[2].startswith("I have to stop here: 1 request of 1 request used")
    assert len(provider.requests) == 1
    assert refused(meter) == 1


def test_a_budget_in_list_prices_counts_replays_and_refuses_them(loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(usd="0.004", per="total", metric="list")
    model = openai(provider, cache=InMemoryCache(), max_tokens=100)
    model.invoke("hello", config)

    with pytest.raises(BudgetExceeded):
        model.invoke("hello", config)

    assert refused(meter) == 1


def test_a_stream_looks_into_no_cache_and_is_refused(loopback: Loopback) -> None:
    provider = loopback([PAID], loop=True)
    meter, config = budgeted(1)
    model = openai(provider, cache=InMemoryCache())
    model.invoke("hello", config)

    with pytest.raises(BudgetExceeded):
        list(model.stream("hello", config))

    assert len(provider.requests) == 1
    assert refused(meter) == 1
