"""Budgets through LangChain: what a real provider is asked, what it was paid, and what the agent does at the limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelRetryMiddleware
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tests.adapters.langchain.clients import Scripted
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter, Status
from agent_meter.adapters.langchain import MeterCallback, MeterMiddleware
from agent_meter.adapters.langchain.deciding import limited
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

CENT = Reply("Yes.", input_tokens=1000, output_tokens=750)  # of gpt-4o: $0.0025 + $0.0075
PROMPT = "What is a budget that holds, and who would have thought of that? " * 62  # about 1,000 tokens
QUESTION: Any = {"messages": [HumanMessage("How is the weather in Oslo?")]}

Loopback = Callable[..., LoopbackProvider]


def model(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", max_retries=0, **options)


def paid(provider: LoopbackProvider) -> Decimal:
    return len(provider.requests) * Decimal("0.01")


@pytest.mark.parametrize("limited", [True, False], ids=["max_tokens", "no maximum"])
def test_thirty_two_threads_pay_no_more_than_the_limit(loopback: Loopback, limited: bool) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("race", usd="0.10")])
    chat = model(provider, **({"max_tokens": 750} if limited else {}))
    start = threading.Barrier(32)

    def work() -> None:
        start.wait()
        with suppress(BudgetExceeded):
            for _ in range(12):
                chat.invoke(PROMPT, {"callbacks": [MeterCallback(meter)]})

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Decimal("0.085") <= paid(provider) <= Decimal("0.10")
    assert meter.usage.cost_usd == paid(provider) == meter.budgets.status("race").used
    assert meter.budgets.status("race").reserved == 0


async def test_so_do_a_hundred_tasks(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("race", usd="0.10")])
    chat = model(provider, max_tokens=750)

    async def work() -> None:
        for _ in range(8):
            await chat.ainvoke(PROMPT, {"callbacks": [MeterCallback(meter)]})

    await asyncio.gather(*(work() for _ in range(100)), return_exceptions=True)

    assert Decimal("0.085") <= paid(provider) <= Decimal("0.10")


def test_every_prompt_of_a_batch_that_is_denied_gives_back_what_it_held(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", usd="0.025")])

    with pytest.raises(BudgetExceeded):
        model(provider, max_tokens=750).generate(
            [[HumanMessage(PROMPT)] for _ in range(5)], callbacks=[MeterCallback(meter)]
        )

    assert provider.requests == []
    assert (meter.budgets.status("x").used, meter.budgets.status("x").reserved) == (0, 0)


def test_a_stream_that_is_broken_off_is_charged_and_holds_nothing(loopback: Loopback) -> None:
    provider = loopback(lambda request: Reply("One two three four five six seven.", input_tokens=9, output_tokens=8))
    meter = Meter(budgets=[Budget("x", tokens=10_000)])
    stream = model(provider, max_tokens=100).stream("Count.", {"callbacks": [MeterCallback(meter)]})
    next(stream)
    stream.close()

    status = meter.budgets.status("x")
    assert status.reserved == 0
    assert 1 < status.used <= 108  # nobody saw how it ended: at most what was held


def test_no_retry_middleware_swallows_a_budget(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", requests=1)])
    agent = create_agent(model(provider), [], middleware=[ModelRetryMiddleware(max_retries=3)])
    config: Any = {"callbacks": [MeterCallback(meter)]}
    agent.invoke(QUESTION, config)

    with pytest.raises(BudgetExceeded, match="budget x: 1 request of 1 request used"):
        agent.invoke(QUESTION, config)

    assert len(provider.requests) == 1
    assert [r.status for r in meter.history(include_denied=True)] == [Status.OK, Status.DENIED]


def test_an_agent_ends_with_what_was_paid_for(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", requests=1)])
    agent = create_agent(model(provider), [], middleware=[MeterMiddleware(meter)])
    agent.invoke(QUESTION)

    last = agent.invoke(QUESTION)["messages"][-1]

    assert last.text.startswith("I have to stop here: 1 request of 1 request used (daily)")


@pytest.mark.parametrize(("answer", "asked"), [(True, 2), (False, 1)])
def test_a_person_is_asked_and_may_raise_the_budget(loopback: Loopback, answer: bool, asked: int) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", requests=1)])
    agent = create_agent(
        model(provider), [], middleware=[MeterMiddleware(meter, on_denied="ask")], checkpointer=InMemorySaver()
    )
    agent.invoke(QUESTION, {"configurable": {"thread_id": "1"}})
    config: Any = {"configurable": {"thread_id": "2"}}

    (question,) = agent.invoke(QUESTION, config)["__interrupt__"]
    assert (question.value["budget"], question.value["limit"], question.value["used"]) == ("x", "1", "1")
    if answer:
        meter.budgets.set("x", requests=2)
    end = agent.invoke(Command(resume=answer), config)

    assert len(provider.requests) == asked
    assert end["messages"][-1].text == "Yes." if answer else end["messages"][-1].text.startswith("I have to stop")


async def test_async_agents_ask_too(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", requests=0)])
    agent = create_agent(
        model(provider), [], middleware=[MeterMiddleware(meter, on_denied="ask")], checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    await agent.ainvoke(QUESTION, config)
    meter.budgets.set("x", requests=1)

    assert (await agent.ainvoke(Command(resume=True), config))["messages"][-1].text == "Yes."


def test_an_answer_is_made_as_short_as_what_fits(loopback: Loopback) -> None:
    provider = loopback(lambda request: Reply("Short.", input_tokens=20, output_tokens=10))
    meter = Meter(budgets=[Budget("x", usd="0.02")])
    agent = create_agent(model(provider, max_tokens=4000), [], middleware=[MeterMiddleware(meter, shorten_to=500)])

    end = agent.invoke(QUESTION)

    (request,) = provider.requests
    assert end["messages"][-1].text == "Short."
    assert 500 <= (request.max_output_tokens or 0) < 2000


def test_an_answer_that_would_be_too_short_is_not_asked_for(loopback: Loopback) -> None:
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", usd="0.002")])
    agent = create_agent(model(provider, max_tokens=4000), [], middleware=[MeterMiddleware(meter, shorten_to=500)])

    assert agent.invoke(QUESTION)["messages"][-1].text.startswith("I have to stop here")
    assert provider.requests == []


async def _go(agent: Any, what: Any, config: Any, asynchronous: bool) -> Any:
    return await agent.ainvoke(what, config) if asynchronous else agent.invoke(what, config)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_persons_answer_may_be_the_new_limit(asynchronous: bool, loopback: Loopback) -> None:
    """One that is not enough is asked about again; one that makes no sense too, with what is wrong with it."""
    provider = loopback(lambda request: CENT)
    meter = Meter(budgets=[Budget("x", requests=0)])
    agent = create_agent(
        model(provider), [], middleware=[MeterMiddleware(meter, on_denied="ask")], checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}

    await _go(agent, QUESTION, config, asynchronous)
    asked_again = await _go(agent, Command(resume={"requests": "many"}), config, asynchronous)
    still_nothing = await _go(agent, Command(resume={"requests": 0}), config, asynchronous)
    end = await _go(agent, Command(resume={"requests": 1}), config, asynchronous)

    assert "requests is a whole number" in asked_again["__interrupt__"][0].value["error"]
    assert "error" not in still_nothing["__interrupt__"][0].value
    assert end["messages"][-1].text == "Yes."
    assert len(provider.requests) == 1
    assert meter.budgets["x"].requests == 1
    refused(meter)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_person_is_asked_about_tools_too(asynchronous: bool, loopback: Loopback) -> None:
    ran = []

    def buy() -> str:
        """Buy something."""
        ran.append(1)
        return "bought"

    provider = loopback([Reply(tool_calls=[ToolCall("buy")]), "Bought it."])
    meter = Meter(budgets=[Budget("purchases", requests=0, tool="buy")])
    agent = create_agent(
        model(provider), [buy], middleware=[MeterMiddleware(meter, on_denied="ask")], checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}

    (question,) = (await _go(agent, QUESTION, config, asynchronous))["__interrupt__"]
    end = await _go(agent, Command(resume={"requests": 1}), config, asynchronous)

    assert (question.value["budget"], question.value["tool"]) == ("purchases", "buy")
    assert (ran, end["messages"][-1].text) == ([1], "Bought it.")
    refused(meter)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("own", "sent"), [(None, 300), (700, 700)], ids=["no maximum", "one of its own"])
async def test_a_call_without_a_maximum_is_capped_where_that_is_wanted(
    own: int | None, sent: int, asynchronous: bool, loopback: Loopback
) -> None:
    provider = loopback([CENT])
    meter = Meter(budgets=[Budget("x", tokens=1_000)])
    chat = model(provider, max_tokens=own)

    await _go(create_agent(chat, [], middleware=[MeterMiddleware(meter, cap_output=300)]), QUESTION, {}, asynchronous)

    assert [request.max_output_tokens for request in provider.requests] == [sent]
    assert chat.max_tokens == own
    assert refused(meter) == 0


def test_a_cap_is_named_as_the_model_or_the_request_names_it() -> None:
    class Local(Scripted):
        num_predict: int | None = None

    bare = ModelRequest(model=Local(), messages=[])
    named = ModelRequest(model=Local(), messages=[], model_settings={"max_output_tokens": 9000})

    assert limited(bare, 300).model.num_predict == 300  # type: ignore[attr-defined]
    assert limited(named, 300).model_settings == {"max_output_tokens": 300}
    assert limited(named, 300, only_unlimited=True) is named
    assert limited(ModelRequest(model=Scripted(), messages=[]), 300).model_settings == {"max_tokens": 300}


@pytest.mark.parametrize("options", [{"on_denied": "shrug"}, {"shorten_to": 0}, {"cap_output": 0}])
def test_what_cannot_work_is_said_at_once(options: Any) -> None:
    with pytest.raises(ValueError, match=r"not '?(shrug|0)"):
        MeterMiddleware(Meter(), **options)
