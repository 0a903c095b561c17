"""MeterMiddleware: an agent that is metered by it alone, and that ends gracefully when the meter denies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelRetryMiddleware, ToolRetryMiddleware, after_model
from langchain.agents.structured_output import ToolStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from agent_meter import BudgetExceeded, Call, Denial, Kind, Meter, Status, hookimpl
from agent_meter.adapters.langchain import MeterCallback, MeterMiddleware
from agent_meter.testing import LoopbackProvider, Reply, Request, ToolCall

QUESTION = {"messages": [HumanMessage("How is the weather in Oslo?")]}
ASKS = Reply(tool_calls=[ToolCall("weather", {"city": "Oslo"})], input_tokens=80, output_tokens=15)
ANSWERS = Reply("Sunny.", input_tokens=110, output_tokens=9)
STOP = "I have to stop here: the budget of $1.00 is used up."


def weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


class Guard:
    """Admits so many calls of a kind."""

    def __init__(self, kind: Kind, admits: int) -> None:
        self.kind = kind
        self.left = admits

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not self.kind:
            return None
        self.left -= 1
        return Denial("the budget of $1.00 is used up", "day") if self.left < 0 else None


def script(request: Request) -> Reply:
    """Asked with tools, the model looks it up first."""
    return ASKS if request.body.get("tools") and request.last_text.endswith("Oslo?") else ANSWERS


@pytest.fixture
def provider(loopback: Callable[..., LoopbackProvider]) -> LoopbackProvider:
    return loopback(script)


def openai(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", stream_usage=True, **options)


def kinds(answer: dict[str, Any]) -> list[str]:
    return [message.type for message in answer["messages"]]


# ---------------------------------------------------------------------------------------------------- metering


def used(meter: Meter) -> tuple[int, int, int, int]:
    calls = meter.analytics.get_all_metrics()
    return (
        meter.usage.requests,
        meter.usage.input_tokens,
        meter.usage.output_tokens,
        sum(tool.total_calls for tool in calls.values()),
    )


@pytest.mark.parametrize("explicit", [False, True], ids=["alone", "beside a callback"])
async def test_every_call_counts_once(explicit: bool, provider: LoopbackProvider) -> None:
    meter = Meter(strict=True)
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)], name="clerk")
    config: Any = {"callbacks": [MeterCallback(meter)]} if explicit else {}

    agent.invoke(QUESTION, config)
    await agent.ainvoke(QUESTION, config)
    list(agent.stream(QUESTION, config, stream_mode="messages"))

    assert len(provider.requests) == 6
    assert used(meter) == (6, provider.total.input_tokens, provider.total.output_tokens, 3)
    assert set(meter.usage_by("agent")) == {"clerk"}
    assert meter.health()["open_calls"] == 0


def test_a_callback_in_the_models_constructor_counts_nothing_twice(provider: LoopbackProvider) -> None:
    meter = Meter(strict=True)
    model = openai(provider, callbacks=[MeterCallback(meter)])

    create_agent(model, [weather], middleware=[MeterMiddleware(meter)]).invoke(QUESTION)

    assert used(meter) == (2, 190, 24, 1)


def test_what_a_tool_calls_is_metered_as_the_tools(provider: LoopbackProvider) -> None:
    """A model inside a tool, and a sub-agent, are told of through the tool."""
    meter = Meter(strict=True)
    helper = create_agent(openai(provider), [], name="helper")

    def weather(city: str) -> str:
        """The weather in a city."""
        return str(helper.invoke(QUESTION)["messages"][-1].content)

    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)], name="clerk")
    agent.invoke(QUESTION)

    assert meter.usage.requests == len(provider.requests) == 3
    by_agent = meter.usage_by("agent")
    assert {name: usage.requests for name, usage in by_agent.items()} == {"clerk": 2, "helper": 1}


def test_the_meters_of_two_agents_each_count_their_own(provider: LoopbackProvider) -> None:
    """The agent inside the tool is metered by its own middleware, and by that of the agent around it."""
    outer, inner = Meter(strict=True), Meter(strict=True)
    helper = create_agent(openai(provider), [], middleware=[MeterMiddleware(inner)])

    def weather(city: str) -> str:
        """The weather in a city."""
        return str(helper.invoke(QUESTION)["messages"][-1].content)

    create_agent(openai(provider), [weather], middleware=[MeterMiddleware(outer)]).invoke(QUESTION)

    assert (outer.usage.requests, inner.usage.requests) == (3, 1)


def test_an_agent_of_anthropic_is_metered_too(provider: LoopbackProvider) -> None:
    meter = Meter(strict=True)
    model = ChatAnthropic(model="claude-sonnet-4-6", base_url=provider.anthropic_base_url, api_key="none")

    create_agent(model, [weather], middleware=[MeterMiddleware(meter)]).invoke(QUESTION)

    assert used(meter) == (2, 190, 24, 1)


def test_after_the_agent_nothing_is_attached_any_more(provider: LoopbackProvider) -> None:
    meter = Meter(strict=True)
    create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)]).invoke(QUESTION)

    openai(provider).invoke("Hi")

    assert meter.usage.requests == 2


# ---------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_denied_model_call_ends_the_run_with_what_was_paid_for(
    asynchronous: bool, provider: LoopbackProvider
) -> None:
    meter = Meter([Guard(Kind.LLM, admits=1)], strict=True)
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)])

    answer = await agent.ainvoke(QUESTION) if asynchronous else agent.invoke(QUESTION)

    assert kinds(answer) == ["human", "ai", "tool", "ai"]
    last = answer["messages"][-1]
    assert last.content == STOP
    assert last.response_metadata["agent_meter_denied"] == {"reason": "the budget of $1.00 is used up", "by": "day"}
    assert len(provider.requests) == meter.usage.requests == 1
    statuses = [record.status for record in meter.history(include_denied=True)]
    assert statuses == [Status.OK, Status.DENIED]
    assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_denied_tool_call_is_told_to_the_model(asynchronous: bool, provider: LoopbackProvider) -> None:
    meter = Meter([Guard(Kind.TOOL, admits=0)], strict=True)
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)])

    answer = await agent.ainvoke(QUESTION) if asynchronous else agent.invoke(QUESTION)

    assert kinds(answer) == ["human", "ai", "tool", "ai"]
    refusal = answer["messages"][2]
    assert isinstance(refusal, ToolMessage)
    assert (refusal.status, refusal.name) == ("error", "weather")
    assert refusal.content == "This tool was not called: the budget of $1.00 is used up. Go on without it."
    assert provider.requests[1].last_text == refusal.content
    assert answer["messages"][-1].content == "Sunny."


@pytest.mark.parametrize("kind", [Kind.LLM, Kind.TOOL])
async def test_raising_instead_is_an_option(kind: Kind, provider: LoopbackProvider) -> None:
    meter = Meter([Guard(kind, admits=0)])
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter, on_denied="raise")])

    with pytest.raises(BudgetExceeded, match=r"the budget of \$1.00 is used up"):
        agent.invoke(QUESTION)
    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(QUESTION)

    assert meter.health()["open_calls"] == 0


def test_another_word_for_a_denial_than_end_or_raise_is_refused() -> None:
    with pytest.raises(ValueError, match="on_denied is 'end', 'raise' or 'ask', not 'stop'"):
        MeterMiddleware(on_denied="stop")  # type: ignore[arg-type]


def test_the_words_can_be_ones_own(provider: LoopbackProvider) -> None:
    meter = Meter([Guard(Kind.LLM, admits=1), Guard(Kind.TOOL, admits=0)], strict=True)
    middleware = MeterMiddleware(meter, message=lambda denial: f"Over: {denial.by}", tool_message="Not today.")

    answer = create_agent(openai(provider), [weather], middleware=[middleware]).invoke(QUESTION)

    assert [message.content for message in answer["messages"][2:]] == ["Not today.", "Over: day"]


def test_the_conversation_goes_on_when_there_is_budget_again(provider: LoopbackProvider) -> None:
    guard = Guard(Kind.LLM, admits=0)
    middleware = MeterMiddleware(Meter([guard], strict=True))
    agent = create_agent(openai(provider), [weather], middleware=[middleware], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t1"}}

    denied = agent.invoke(QUESTION, config)
    guard.left = 2
    answered = agent.invoke({"messages": [("user", "And now, in Oslo?")]}, config)

    assert denied["messages"][-1].content == STOP
    assert kinds(answered) == ["human", "ai", "human", "ai", "tool", "ai"]
    assert answered["messages"][-1].content == "Sunny."


class Weather(BaseModel):
    degrees: int


@pytest.mark.parametrize("tools", [[], [weather]], ids=["no tools", "tools"])
def test_an_agent_that_owes_a_structure_ends_without_it(tools: list[Any], provider: LoopbackProvider) -> None:
    """It would ask for it again and again otherwise, for ever denied."""
    guard = Guard(Kind.LLM, admits=0)
    agent = create_agent(
        openai(provider),
        tools,
        middleware=[MeterMiddleware(Meter([guard], strict=True))],
        response_format=ToolStrategy(Weather),
    )

    answer = agent.invoke(QUESTION)

    assert answer["messages"][-1].content == STOP
    assert answer.get("structured_response") is None
    assert guard.left == -1


def test_an_agent_that_asks_on_after_its_last_word_is_stopped_by_raising(provider: LoopbackProvider) -> None:
    """Here another middleware sends it back to the model until it says so itself, which it never can."""

    @after_model(can_jump_to=["model"])
    def until_done(state: Any, runtime: Any) -> dict[str, Any] | None:
        return None if "done" in state["messages"][-1].content else {"jump_to": "model"}

    guard = Guard(Kind.LLM, admits=0)
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(Meter([guard])), until_done])

    with pytest.raises(BudgetExceeded):
        agent.invoke(QUESTION)

    assert guard.left == -2


@pytest.mark.parametrize("first", [True, False], ids=["outermost", "innermost"])
def test_retries_of_other_middleware_do_not_ask_again_after_a_denial(first: bool, provider: LoopbackProvider) -> None:
    models, tools = Guard(Kind.LLM, admits=2), Guard(Kind.TOOL, admits=0)
    ours = MeterMiddleware(Meter([models, tools], strict=True))
    retries = [ModelRetryMiddleware(initial_delay=0), ToolRetryMiddleware(initial_delay=0)]
    order = [ours, *retries] if first else [*retries, ours]

    agent = create_agent(openai(provider), [weather], middleware=order)
    first_answer, second_answer = agent.invoke(QUESTION), agent.invoke(QUESTION)

    assert kinds(first_answer) == ["human", "ai", "tool", "ai"]
    assert second_answer["messages"][-1].content == STOP
    assert (models.left, tools.left) == (-1, -1)


def test_a_denial_inside_a_tool_is_told_to_the_model(provider: LoopbackProvider) -> None:
    meter = Meter([Guard(Kind.LLM, admits=1)], strict=True)

    def weather(city: str) -> str:
        """The weather in a city."""
        return str(openai(provider).invoke(city).content)

    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter)])
    answer = agent.invoke(QUESTION)

    assert [message.content for message in answer["messages"][2:]] == [
        "This tool was not called: the budget of $1.00 is used up. Go on without it.",
        STOP,
    ]


# ---------------------------------------------------------------------------------------------------- steering


async def test_an_override_changes_what_is_asked_of_which_model(provider: LoopbackProvider) -> None:
    meter = Meter(strict=True)
    cheap = ChatOpenAI(model="gpt-4o-mini", base_url=provider.openai_base_url, api_key="none")

    def cheaper(request: ModelRequest[Any], asked: Meter) -> ModelRequest[Any]:
        assert asked is meter
        return request.override(model=cheap, model_settings={"max_tokens": 50})

    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter, override=cheaper)])
    agent.invoke(QUESTION)
    await agent.ainvoke(QUESTION)

    assert {request.model for request in provider.requests} == {"gpt-4o-mini"}
    assert {request.max_output_tokens for request in provider.requests} == {50}
    assert set(meter.usage_by("model")) == {"gpt-4o-mini"}


def test_an_override_that_fails_changes_nothing(provider: LoopbackProvider) -> None:
    def broken(request: ModelRequest[Any], meter: Meter) -> ModelRequest[Any]:
        raise KeyError("price")

    meter = Meter()
    agent = create_agent(openai(provider), [weather], middleware=[MeterMiddleware(meter, override=broken)])

    assert agent.invoke(QUESTION)["messages"][-1].content == "Sunny."
    assert meter.usage.requests == 2
    assert meter.health()["failures"] == {"langchain": {"override": 2}}


# --------------------------------------------------------------------------------------------- without langchain

WITHOUT_LANGCHAIN = """
import sys
for name in ("langchain", "langgraph"):
    sys.modules[name] = None
from agent_meter.adapters.langchain import MeterCallback, MeteredCache, MeteredCompressor, MeteredEmbeddings, metering
print(MeterCallback.__name__)
try:
    from agent_meter.adapters.langchain import MeterMiddleware
except ImportError as error:
    print(error)
"""


def test_everything_else_needs_langchain_core_alone() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_LANGCHAIN], capture_output=True, text=True, check=False)

    assert run.stdout.splitlines() == [
        "MeterCallback",
        "MeterMiddleware is for create_agent: it needs langchain 1.2 or later",
    ], run.stderr
