"""Anthropic's streams through LangChain: what they drop, and the request still tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.adapters.langchain.clients import anthropic

from agent_meter import Meter, UsageRecord
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import LoopbackProvider, Reply

Loopback = Callable[..., LoopbackProvider]
WRITES = {"input_tokens": 1000, "output_tokens": 10, "cache_write_tokens": 800}
FIVE = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def _system(control: dict[str, str]) -> tuple[str, Any]:
    return ("system", [{"type": "text", "text": "Be brief.", "cache_control": control}])


def _streamed(loopback: Loopback, reply: Reply, messages: Any, made: Any = None, **options: Any) -> UsageRecord:
    meter = Meter()
    list(
        anthropic(loopback([reply]), **(made or {})).stream(messages, {"callbacks": [MeterCallback(meter)]}, **options)
    )
    return meter.history()[0]


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([("user", "hello")], {}),
        ([_system(FIVE), ("user", "hello")], {}),
        ([("user", "hello")], {"cache_control": FIVE}),
    ],
)
def test_nobody_asked_for_an_hour(messages: Any, options: Any, loopback: Loopback) -> None:
    record = _streamed(loopback, Reply("x", **WRITES), messages, **options)

    assert record.usage is not None
    assert (record.cache_write_tokens, record.usage.cache_write_1h_tokens) == (800, 0)
    assert (record.estimated, record.notes) == (False, ())


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([_system(HOUR), ("user", "hello")], {}),
        ([("user", "hello")], {"cache_control": HOUR}),
        ([("user", "hello")], {"tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": HOUR}]}),
    ],
)
def test_everything_was_asked_for_an_hour(messages: Any, options: Any, loopback: Loopback) -> None:
    record = _streamed(loopback, Reply("x", cache_write_1h_tokens=800, **WRITES), messages, **options)

    assert record.usage is not None
    assert record.usage.cache_write_1h_tokens == 800
    assert record.notes == ("streamed: the time to live of cache writes is what was asked for",)
    # Sonnet 4.6: $3 a million, twice that for an hour in the cache, $15 out.
    assert record.cost.list_pico == 200 * 3_000_000 + 800 * 6_000_000 + 10 * 15_000_000


def test_some_of_it_was_asked_for_an_hour(loopback: Loopback) -> None:
    record = _streamed(
        loopback,
        Reply("x", cache_write_1h_tokens=300, **WRITES),
        [_system(HOUR), ("user", [{"type": "text", "text": "hello", "cache_control": FIVE}])],
    )

    assert (record.estimated, record.missing) == (True, ("cache_write_1h_tokens",))
    assert "was not seen" in record.notes[0]


def test_speed_and_place_are_those_that_were_asked_for(loopback: Loopback) -> None:
    made = {"inference_geo": "us", "model_kwargs": {"speed": "fast"}}

    record = _streamed(loopback, Reply("x", input_tokens=100, output_tokens=10), [("user", "hello")], made)

    assert record.usage is not None
    assert record.usage.context == {"speed": "fast", "inference_geo": "us"}
    assert len(record.notes) == 2


def test_a_call_that_does_not_stream_says_it_all(loopback: Loopback) -> None:
    meter = Meter()
    provider = loopback([Reply("x", cache_write_1h_tokens=300, **WRITES)])

    anthropic(provider).invoke([_system(HOUR), ("user", "hello")], {"callbacks": [MeterCallback(meter)]})

    (record,) = meter.history()
    assert record.usage is not None
    assert (record.usage.cache_write_1h_tokens, record.notes) == (300, ())
