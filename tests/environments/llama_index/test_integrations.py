"""What only LlamaIndex's real integrations can show: usage that must be asked for, clients that must be tapped."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.prompts import PromptTemplate
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from agent_meter import BudgetExceeded, Meter, hookimpl
from agent_meter.adapters.llama_index import MeterHandler
from agent_meter.records import TOKEN_CLASSES, Denial
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Loopback = Callable[..., LoopbackProvider]


def openai(provider: LoopbackProvider, kind: type = OpenAI, **options: Any) -> Any:
    defaults = {"model": "gpt-4o", "api_key": "none", "max_retries": 0}
    return kind(api_base=provider.openai_base_url, **{**defaults, **options})


def agrees(meter: Meter, provider: LoopbackProvider) -> bool:
    """Record for record, class for class, what the provider served; and nothing of it estimated."""
    recorded = [[getattr(record.usage, name) for name in TOKEN_CLASSES] for record in meter.history()]
    served = [[getattr(usage, name) for name in TOKEN_CLASSES] for usage in provider.truth]
    return bool(recorded) and recorded == served and not any(record.estimated for record in meter.history())


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


SCRIPT = [
    Reply(tool_calls=[ToolCall("add", {"a": 1, "b": 2})], input_tokens=900, output_tokens=60, cache_read_tokens=512),
    Reply("3", input_tokens=1000, output_tokens=40, reasoning_tokens=32),
]


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
async def test_an_agents_streams_are_exact_without_a_word_of_the_user(
    kind: type, loopback: Loopback, meter: Meter
) -> None:
    """Agents stream, and OpenAI's chat completions tell the usage of a stream only to those who ask."""
    provider = loopback(SCRIPT)

    answer = await FunctionAgent(name="alice", llm=openai(provider, kind), tools=[add]).run("1 + 2?")

    assert str(answer) == "3"
    assert agrees(meter, provider)
    assert [(record.agent, record.tools) for record in meter.history()] == [("alice", ("add",)), ("alice", ())]
    assert meter.analytics.get_metrics("add").success_rate == 100


async def test_anthropics_agents_are_exact(loopback: Loopback, meter: Meter) -> None:
    script = [Reply(**{**vars_of(SCRIPT[0]), "cache_write_tokens": 100}), Reply("3", input_tokens=9, output_tokens=4)]
    provider = loopback(script)
    llm = Anthropic(model="claude-sonnet-4-6", api_key="none", base_url=provider.anthropic_base_url, max_retries=0)

    await FunctionAgent(llm=llm, tools=[add]).run("1 + 2?")

    assert [r.input_tokens for r in meter.history()] == [u.input_tokens for u in provider.truth]
    assert [r.cache_read_tokens for r in meter.history()] == [u.cache_read_tokens for u in provider.truth]


def vars_of(reply: Reply) -> dict[str, Any]:
    names = ("text", "tool_calls", "input_tokens", "output_tokens", "cache_read_tokens")
    return {name: getattr(reply, name) for name in names}


def test_what_the_user_says_of_the_usage_of_streams_stands(loopback: Loopback, meter: Meter) -> None:
    provider = loopback([Reply("yes")], loop=True)
    silent = openai(provider, additional_kwargs={"stream_options": {"include_usage": False}})
    other = openai(provider, additional_kwargs={"stream_options": {"include_obfuscation": False}, "seed": 1})

    list(silent.stream_complete("Is it?"))
    list(other.stream_complete("Is it?"))

    assert [record.estimated for record in meter.history()] == [True, False]
    assert other.additional_kwargs["seed"] == 1
    assert other.additional_kwargs["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_server_that_may_be_anybodys_is_not_asked_for_what_it_may_refuse(loopback: Loopback, meter: Meter) -> None:
    provider = loopback([Reply("yes")], loop=True)
    like = openai(provider, OpenAILike, is_chat_model=True)

    list(like.stream_complete("Is it?"))

    assert "stream_options" not in like.additional_kwargs
    assert [record.estimated for record in meter.history()] == [True]


def test_what_was_asked_for_is_not_asked_for_any_more_when_the_handler_goes(loopback: Loopback) -> None:
    provider = loopback([Reply("yes")], loop=True)
    llm, embedding = openai(provider), openai(provider, OpenAIEmbedding, model="text-embedding-3-small")

    with MeterHandler(Meter()):
        list(llm.stream_complete("Is it?"))
        embedding.get_text_embedding("a")

    assert llm.additional_kwargs == {}
    assert llm.rate_limiter is None
    assert type(embedding._client).__name__ == "OpenAI"
    embedding.get_text_embedding("a")


async def test_openais_embeddings_are_the_providers_numbers(loopback: Loopback, meter: Meter) -> None:
    provider = loopback()
    model = openai(provider, OpenAIEmbedding, model="text-embedding-3-small", embed_batch_size=2)

    model.get_text_embedding("one\ntwo")
    model.get_query_embedding("three")
    model.get_text_embedding_batch(["four", "five", "six"])
    await model.aget_text_embedding("seven")
    await model.aget_text_embedding_batch(["eight", "nine", "ten"])

    records = meter.history()
    assert sorted(r.input_tokens for r in records) == sorted(usage.input_tokens for usage in provider.truth)
    assert len(records) == len(provider.requests) == 7
    assert {(r.kind, r.model, r.provider, r.estimated) for r in records} == {
        ("embedding", "text-embedding-3-small", "openai", False)
    }


def test_an_embedding_model_that_makes_a_client_for_every_call_is_estimated(loopback: Loopback, meter: Meter) -> None:
    model = openai(loopback(), OpenAIEmbedding, model="text-embedding-3-small", reuse_client=False)

    model.get_text_embedding("a few words")

    assert [(record.estimated, record.missing) for record in meter.history()] == [(True, ("input_tokens",))]


class Nobody:
    @hookimpl
    def meter_admit_call(self, call: Any) -> Denial:
        return Denial("no more")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda x: x])
def test_a_denied_call_is_not_sent_over_the_wire(
    copied: Callable[[Any], Any], loopback: Loopback, meter: Meter
) -> None:
    provider = loopback([Reply("yes")])
    meter.register(Nobody())

    with pytest.raises(BudgetExceeded):
        copied(openai(provider)).complete("Is it?")
    with pytest.raises(BudgetExceeded):
        list(copied(openai(provider)).stream_complete("Is it?"))
    with pytest.raises(BudgetExceeded):
        copied(openai(provider, OpenAIEmbedding, model="text-embedding-3-small")).get_text_embedding("a")

    assert provider.requests == []


class Sum(BaseModel):
    value: int


def test_a_prediction_that_tells_nobody_is_one_estimated_record(loopback: Loopback, meter: Meter) -> None:
    """OpenAIResponses asks its client directly: no event, no rate limiter, and the usage is thrown away."""
    provider = loopback([Reply('{"value": 3}', input_tokens=50, output_tokens=9)], loop=True)
    llm = openai(provider, OpenAIResponses)

    assert llm.structured_predict(Sum, PromptTemplate("1 + 2?")) == Sum(value=3)

    (record,) = meter.history()
    assert (record.estimated, record.missing) == (True, ("input_tokens", "output_tokens"))
    assert record.input_tokens > 0
    assert record.output_tokens > 0
    assert "told nothing" in record.notes[0]

    llm.as_structured_llm(Sum).chat([])
    assert meter.usage.requests == 2


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
def test_a_streamed_prediction_is_one_record(kind: type, loopback: Loopback, meter: Meter) -> None:
    """The integration's method hands on the stream of its `super()`: two spans, one generator."""
    provider = loopback([Reply('{"value": 3}', input_tokens=50, output_tokens=9)], loop=True)

    list(openai(provider, kind).stream_structured_predict(Sum, PromptTemplate("1 + 2?")))
    list(openai(provider, kind).as_structured_llm(Sum).stream_chat([]))

    assert agrees(meter, provider)


def test_with_the_wire_a_prediction_that_tells_nobody_is_exact(loopback: Loopback) -> None:
    provider = loopback([Reply('{"value": 3}', input_tokens=50, output_tokens=9)], loop=True)
    meter = Meter()

    with MeterHandler(meter, wire=True):
        openai(provider, OpenAIResponses).structured_predict(Sum, PromptTemplate("1 + 2?"))
        openai(provider, OpenAIResponses).as_structured_llm(Sum).chat([])
        openai(provider).structured_predict(Sum, PromptTemplate("1 + 2?"))

    assert agrees(meter, provider)
    assert meter.health()["ok"]


def test_with_the_wire_a_server_that_may_be_anybodys_is_exact_too(loopback: Loopback) -> None:
    provider = loopback([Reply("yes", input_tokens=50, output_tokens=9)], loop=True)
    meter = Meter()

    with MeterHandler(meter, wire=True):
        list(openai(provider, OpenAILike, is_chat_model=True).stream_complete("Is it?"))
        openai(provider, OpenAILike, is_chat_model=True).complete("Is it?")

    assert agrees(meter, provider)
