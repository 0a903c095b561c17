"""Calls and tools that fail: what was used, what may have been, and what was not."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from tests.adapters.langchain.clients import Scripted, anthropic, openai

from agent_meter import Kind, Meter, Status
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import ErrorReply, Hang, LoopbackProvider, RecordingPlugin, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
FULL = Reply("one two three four five six", input_tokens=1000, output_tokens=100)
HELLO = {"messages": [("user", "hello")]}


# ---------------------------------------------------------------------------------------------- errors, limits


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_a_refused_call_cost_nothing(client: Any, status: int, loopback: Loopback, meter: Meter, config: Any) -> None:
    with pytest.raises(Exception, match=str(status)):
        client(loopback([ErrorReply(status)])).invoke("hello", config)

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated, record.billed_cost_usd) == (Status.ERROR, None, False, 0)
    assert meter.usage.unpriced_requests == 0


def test_a_provider_that_is_not_there_cost_nothing(meter: Meter, config: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="gpt-4o", api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="Connection error"):
        model.invoke("hello", config)

    (record,) = meter.history()
    assert (record.status, record.estimated, record.billed_cost_usd) == (Status.ERROR, False, 0)


def test_a_provider_that_does_not_answer_in_time_may_bill_all_the_same(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    with pytest.raises(Exception, match="timed out"):
        openai(loopback([Hang(5)]), timeout=0.2).invoke("hello", config)

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated, record.cost_usd) == (Status.ERROR, None, True, None)
    assert meter.usage.unpriced_requests == 1


def test_a_limiter_that_waits_is_part_of_the_call(loopback: Loopback, meter: Meter, config: Any) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=20, check_every_n_seconds=0.005, max_bucket_size=1)

    openai(loopback([FULL]), rate_limiter=limiter).invoke("hello", config)

    (record,) = meter.history()
    assert record.total_tokens == 1100


def _prompts(*texts: str) -> Any:
    return [StringPromptValue(text=text) for text in texts]


@pytest.mark.parametrize("client", [openai, anthropic])
def test_generate_that_fails_midway_says_what_is_known_of_each_prompt(
    client: Any, loopback: Loopback, meter: Meter, config: Any
) -> None:
    """LangChain ends only the run of the prompt that failed; the one before it has been paid for."""
    provider = loopback([FULL, ErrorReply(400), FULL])

    with pytest.raises(Exception, match="400"):
        client(provider).generate_prompt(_prompts("a", "b", "c"), **config)

    by_note = {record.notes[0][:20] if record.notes else "": record for record in meter.history()}
    failed, answered, unsent = by_note[""], by_note["it was answered, but"], by_note["not sent: an earlier"]
    assert (failed.status, failed.estimated) == (Status.ERROR, False)
    assert (answered.status, answered.estimated, answered.cost_usd) == (Status.ABANDONED, True, None)
    assert (unsent.status, unsent.estimated, unsent.billed_cost_usd) == (Status.ERROR, False, 0)
    assert len(provider.requests) == 2


async def test_agenerate_that_fails_midway_loses_nothing(loopback: Loopback, meter: Meter, config: Any) -> None:
    def answer(request: Any) -> Any:
        return ErrorReply(400) if request.last_text == "b" else FULL

    with pytest.raises(Exception, match="400"):
        await openai(loopback(answer)).agenerate_prompt(_prompts("a", "b", "c"), **config)

    assert sorted((r.status, r.total_tokens) for r in meter.history()) == [
        (Status.ERROR, 0),
        (Status.OK, 1100),
        (Status.OK, 1100),
    ]


def test_a_generate_that_another_handler_breaks_leaves_nothing_behind(meter: Meter) -> None:
    class Breaking(BaseCallbackHandler):
        raise_error = True
        heard = 0

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.heard += 1
            if self.heard == 2:
                raise RuntimeError("no")

    model, handler = Scripted(message=AIMessage("x")), MeterCallback(meter)
    with pytest.raises(RuntimeError):
        model.generate_prompt(_prompts("a", "b", "c"), callbacks=[handler, Breaking()])
    gc.collect()
    model.invoke("next", {"callbacks": [handler]})

    assert [record.status for record in meter.history()] == [Status.ABANDONED, Status.ABANDONED, Status.OK]
    flights = handler._flights
    assert (len(flights), len(flights.streaming), len(flights._batches)) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------- tools


def test_an_error_that_is_told_to_the_model_is_a_failed_tool_call(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    from langchain.agents.middleware import ToolRetryMiddleware

    seen = RecordingPlugin()
    meter.register(seen)
    provider = loopback([Reply(tool_calls=[ToolCall("divide")]), "a pity"])

    @tool
    def divide() -> str:
        """Divide."""
        raise ZeroDivisionError

    handled = ToolRetryMiddleware(max_retries=0, on_failure="continue")
    create_agent(openai(provider), [divide], middleware=[handled]).invoke(HELLO, config)

    (record,) = seen.tool_records
    assert (record.status, record.error_type) == (Status.ERROR, "ZeroDivisionError")
    metrics = meter.analytics.get_metrics("divide")
    assert metrics is not None
    assert (metrics.total_calls, metrics.failed_calls) == (1, 1)


def test_a_tool_that_answers_with_an_error_failed(loopback: Loopback, meter: Meter, config: Any) -> None:
    """It raised nothing that a handler would be told of."""
    from langchain_core.tools import ToolException

    seen = RecordingPlugin()
    meter.register(seen)
    provider = loopback([Reply(tool_calls=[ToolCall("divide")]), "a pity"])

    @tool
    def divide() -> str:
        """Divide."""
        raise ToolException("by zero")

    divide.handle_tool_error = True
    create_agent(openai(provider), [divide]).invoke(HELLO, config)

    (record,) = seen.tool_records
    assert (record.status, record.error_type) == (Status.ERROR, "handled_error")


def test_a_tool_that_does_not_exist_is_asked_for_and_not_run(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("teleport")]), "a pity"])

    @tool
    def walk() -> str:
        """Walk."""
        return "walked"

    create_agent(openai(provider), [walk]).invoke(HELLO, config)

    assert meter.usage.tool_usage == {"teleport": 1}
    assert meter.analytics.get_metrics("teleport") is None


def test_a_tool_that_waits_for_a_person_is_called_once_and_does_not_fail(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    seen = RecordingPlugin()
    meter.register(seen)
    provider = loopback([Reply(tool_calls=[ToolCall("book", {"seat": 7}, id="call_1")]), "booked"])

    @tool
    def book(seat: int) -> str:
        """Book a seat."""
        return str(interrupt("sure?"))

    agent = create_agent(openai(provider), [book], checkpointer=InMemorySaver())
    config = {**config, "configurable": {"thread_id": "t1"}}
    agent.invoke(HELLO, config)
    agent.invoke(Command(resume="yes"), config)

    metrics = meter.analytics.get_metrics("book")
    assert metrics is not None
    assert (metrics.total_calls, metrics.failed_calls, metrics.last_errors) == (1, 0, ())
    assert meter.usage.tool_usage == {"book": 1}
    assert [(r.call_id, r.status, r.error_type) for r in seen.tool_records] == [
        ("call_1", Status.CANCELLED, "interrupted"),
        ("call_1", Status.OK, None),
    ]
    assert {run.status for run in seen.run_records if run.kind is Kind.RUN} == {Status.OK}
