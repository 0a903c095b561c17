"""Whatever fails inside the meter, the agent does what it would have done, and `health()` says what happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from tests.adapters.langchain.clients import openai

from agent_meter import Alert, Call, Denial, Meter, Model, Rates, hookimpl
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.adapters.langchain import callback as callback_module
from agent_meter.records import Record
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
HELLO = {"messages": [("user", "hello")]}
SCRIPT = [
    Reply(input_tokens=100, output_tokens=10, tool_calls=[ToolCall("now", id="call_1")]),
    Reply("It is noon.", input_tokens=120, output_tokens=12),
]


class Broken:
    """Raises in every hook."""

    @hookimpl
    def meter_tag_call(self, call: Call) -> Mapping[str, str]:
        raise RuntimeError("tag")

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial:
        raise RuntimeError("admit")

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        raise RuntimeError("opened")

    @hookimpl
    def meter_find_rates(self, model: Model) -> Rates:
        raise RuntimeError("rates")

    @hookimpl
    def meter_record(self, record: Record) -> None:
        raise RuntimeError("record")

    @hookimpl
    def meter_alert(self, alert: Alert) -> None:
        raise RuntimeError("alert")

    @hookimpl
    def meter_shutdown(self) -> None:
        raise RuntimeError("shutdown")


class BrokenRates:
    """Rates that raise when they are asked for a price."""

    def price(self, *args: Any) -> Any:
        raise ArithmeticError("a price of its own")

    @hookimpl
    def meter_find_rates(self, model: Model) -> Any:
        return self


def _agent(provider: LoopbackProvider) -> Any:
    @tool
    def now() -> str:
        """The time."""
        return "noon"

    return create_agent(openai(provider), [now], name="clock")


def _said(result: Any) -> list[tuple[str, Any, Any]]:
    return [(message.type, message.content, getattr(message, "tool_calls", None)) for message in result["messages"]]


async def _events(agent: Any, config: Any) -> list[tuple[str, str, list[str]]]:
    """What the program is told while the agent runs, without ids and times."""
    return [
        (event["event"], event["name"], event["tags"])
        async for event in agent.astream_events(HELLO, config, version="v2")
    ]


@pytest.mark.parametrize("plugin", [Broken, BrokenRates])
async def test_a_broken_plugin_changes_neither_the_answer_nor_the_events(plugin: Any, loopback: Loopback) -> None:
    meter = Meter([plugin()])
    config = {"callbacks": [MeterCallback(meter)]}

    bare = _said(_agent(loopback(SCRIPT)).invoke(HELLO))
    metered = _said(_agent(loopback(SCRIPT)).invoke(HELLO, config))
    bare_events = await _events(_agent(loopback(SCRIPT)), {})
    metered_events = await _events(_agent(loopback(SCRIPT)), config)

    assert metered == bare
    assert metered_events == bare_events
    assert meter.usage.total_tokens == 2 * 242
    assert meter.health()["open_calls"] == 0


def test_health_names_the_plugin_and_each_hook_that_failed(loopback: Loopback, caplog: Any) -> None:
    meter = Meter([Broken()])

    with caplog.at_level(logging.WARNING, "agent_meter"):
        _agent(loopback(SCRIPT)).invoke(HELLO, {"callbacks": [MeterCallback(meter)]})
    meter.shutdown()

    # Two model calls, a tool; for each model call a step, for the tool another, and the run around them.
    failures = meter.health()["failures"]["Broken"]
    assert (failures["meter_tag_call"], failures["meter_call_opened"], failures["meter_record"]) == (7, 7, 7)
    assert failures["meter_admit_call"] == 3
    assert failures["meter_find_rates"] == 1
    assert failures["meter_shutdown"] == 1
    assert meter.health()["last_errors"]["Broken"]["meter_record"] == "RuntimeError: record"
    assert meter.health()["ok"] is False
    assert "Broken failed in meter_record (1 times so far); the run goes on" in caplog.text


def test_rates_that_raise_leave_the_call_unpriced(loopback: Loopback) -> None:
    meter = Meter([BrokenRates()])

    _agent(loopback(SCRIPT)).invoke(HELLO, {"callbacks": [MeterCallback(meter)]})

    assert [record.cost_usd for record in meter.history()] == [None, None]
    assert meter.usage.unpriced_requests == 2
    assert meter.health()["failures"] == {"BrokenRates": {"price": 2}}


def test_a_failure_of_the_adapter_is_counted_and_the_call_recorded(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(callback_module, "read", broken)
    meter = Meter()

    result = _agent(loopback(SCRIPT)).invoke(HELLO, {"callbacks": [MeterCallback(meter)]})

    assert result["messages"][-1].content == "It is noon."
    assert meter.health()["failures"] == {"langchain": {"on_llm_end": 2}}
    assert [(r.usage, r.estimated, r.cost_usd) for r in meter.history()] == [(None, True, None)] * 2
    assert meter.history()[0].notes == ("the answer could not be read",)
    assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("event", ["on_chat_model_start", "on_chain_start", "on_tool_start", "on_llm_new_token"])
def test_what_a_framework_says_may_be_anything(event: str) -> None:
    """Values that no version has sent so far: at worst they are counted as a failure of ours."""
    meter = Meter()
    handler: Any = MeterCallback(meter)
    odd = {"run_id": uuid4(), "metadata": 7, "tags": [None], "invocation_params": [], "batch_size": "many", "chunk": 3}
    positional = [object()] if event == "on_llm_new_token" else [object(), object()]

    getattr(handler, event)(*positional, **odd)
    handler.on_llm_end(object(), run_id=odd["run_id"])
    handler.on_chain_end(object(), run_id=odd["run_id"])

    assert set(meter.health()["failures"]) <= {"langchain"}


def test_a_chunk_that_cannot_be_read_is_counted_and_the_stream_goes_on() -> None:
    class Odd:
        @property
        def message(self) -> Any:
            raise RuntimeError("not yet")

    meter, run = Meter(), uuid4()
    handler = MeterCallback(meter)
    handler.on_chat_model_start({}, [[]], run_id=run)
    handler.on_llm_new_token("", chunk=Odd(), run_id=run)
    handler.on_llm_error(ValueError(), run_id=run)

    assert meter.health()["failures"] == {"langchain": {"on_llm_new_token": 1}}
    assert meter.health()["open_calls"] == 0


def test_a_strict_meter_lets_failures_through(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter([Broken()], strict=True)
    with pytest.raises(RuntimeError, match="tag"):
        openai(loopback(SCRIPT)).invoke("hello", {"callbacks": [MeterCallback(meter)]})

    def broken(*args: Any) -> Any:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(callback_module, "read", broken)
    meter = Meter(strict=True)
    with pytest.raises(KeyError, match="a bug of ours"):
        openai(loopback(SCRIPT)).invoke("hello", {"callbacks": [MeterCallback(meter)]})
    assert meter.health()["open_calls"] == 0


def test_other_handlers_are_told_what_they_would_have_been_told(loopback: Loopback) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_"):
                object.__getattribute__(self, "heard").append(name)
            return object.__getattribute__(self, name)

    alone, beside = Listener(), Listener()

    _agent(loopback(SCRIPT)).invoke(HELLO, {"callbacks": [alone]})
    _agent(loopback(SCRIPT)).invoke(HELLO, {"callbacks": [MeterCallback(Meter([Broken()])), beside]})

    assert beside.heard == alone.heard
    assert len(alone.heard) > 10
