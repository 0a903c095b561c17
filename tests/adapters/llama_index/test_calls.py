"""Every way of asking a model is one record, whatever is wrapped in what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel
from tests.adapters.llama_index.models import Completing, Scripted, turn

from agent_meter import Meter

QUESTION = [ChatMessage(role="user", content="Is it?")]


async def _read(stream: Any) -> None:
    async for _ in await stream:
        pass


WAYS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(QUESTION),
    "achat": lambda llm: asyncio.run(llm.achat(QUESTION)),
    "complete": lambda llm: llm.complete("Is it?"),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("Is it?")),
    "stream_chat": lambda llm: list(llm.stream_chat(QUESTION)),
    "astream_chat": lambda llm: asyncio.run(_read(llm.astream_chat(QUESTION))),
    "stream_complete": lambda llm: list(llm.stream_complete("Is it?")),
    "astream_complete": lambda llm: asyncio.run(_read(llm.astream_complete("Is it?"))),
    "predict": lambda llm: llm.predict(PromptTemplate("Is it?")),
    "apredict": lambda llm: asyncio.run(llm.apredict(PromptTemplate("Is it?"))),
    "stream": lambda llm: list(llm.stream(PromptTemplate("Is it?"))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_is_built_on_completions_is_counted_once(way: str, meter: Meter) -> None:
    """`CustomLLM` asks itself up to three times for one answer, and its async streams begin only when they are read."""
    llm = Completing(asked=[])

    WAYS[way](llm)

    assert len(llm.asked) == 1
    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens, record.estimated) == (12, 3, False)
    assert (record.request_model, record.response_model) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert record.streamed is ("stream" in way)
    assert (record.time_to_first_token is not None) is ("stream" in way)
    assert record.framework == "llama_index"


class Sum(BaseModel):
    value: int


def test_a_structured_prediction_is_one_call_and_no_tool(meter: Meter) -> None:
    llm = Scripted(turns=[turn("", ("Sum", {"value": 3}))])

    answer = llm.structured_predict(Sum, PromptTemplate("1 + 2?"))

    assert answer == Sum(value=3)
    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens, record.tools) == (100, 10, ("Sum",))
    assert meter.usage.tool_usage == {"Sum": 1}
    assert meter.analytics.get_all_metrics() == {}


@pytest.mark.parametrize("how", ["chat", "achat"])
def test_a_structured_model_is_a_wrapper(how: str, meter: Meter) -> None:
    llm = Scripted(turns=[turn("", ("Sum", {"value": 3}))]).as_structured_llm(Sum)

    WAYS[how](llm)

    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens, record.estimated) == (100, 10, False)


class Twice(Completing):
    """Asks another model until it likes the answer."""

    inner: Any = None

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self.inner.complete(prompt)
        return self.inner.complete(prompt)


def test_a_model_that_asks_another_one_twice_is_two_calls_of_the_other(meter: Meter) -> None:
    inner = Completing(asked=[], model="gpt-4o-mini")

    Twice(model="router", inner=inner).chat(QUESTION)

    assert [record.request_model for record in meter.history()] == ["gpt-4o-mini", "gpt-4o-mini"]
    assert meter.usage.input_tokens == 24


def test_the_model_of_one_call_overrules_that_of_the_object(meter: Meter) -> None:
    Completing(asked=[]).complete("Is it?", model="gpt-4o-mini")

    assert meter.history()[0].request_model == "gpt-4o-mini"


def test_the_models_name_is_found_under_its_old_key_too(meter: Meter) -> None:
    """Until llama-index-core 0.14.22 the event named it `model`."""

    class Old(Completing):
        def to_payload(self) -> dict[str, Any]:
            return {"class_name": "custom", "model": "gpt-4o-mini"}

    Old(asked=[]).complete("Is it?")

    assert meter.history()[0].request_model == "gpt-4o-mini"


def test_a_failed_call_is_an_error_whose_cost_is_not_known(meter: Meter) -> None:
    with pytest.raises(ValueError, match="no"):
        Completing(asked=[], fails=True).chat(QUESTION)

    (record,) = meter.history()
    assert (record.status, record.error_type, record.estimated, record.usage) == ("error", "ValueError", True, None)


def test_an_answer_without_usage_is_estimated_and_says_so(meter: Meter) -> None:
    Completing(asked=[], mute=True).complete("Is it?")

    (record,) = meter.history()
    assert record.estimated
    assert record.missing == ("input_tokens", "output_tokens")
    assert record.input_tokens > 0
    assert record.notes == ("the answer carried no usage; tokens are estimated",)
