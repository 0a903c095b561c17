"""LlamaIndex says whose call it is, the wire what it used: one record for each call, wherever its answer is read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import openai as sdk
import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from agent_meter import Budget, BudgetExceeded, Meter, Status, TokenUsage, install
from agent_meter.adapters.llama_index import MeterHandler, tagged
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import Cut, ErrorReply, LoopbackProvider, Reply, ToolCall

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Loopback = Callable[..., LoopbackProvider]

KINDS = [OpenAI, OpenAIResponses, OpenAILike, Anthropic]
ANSWER = Reply("Hello there, my friend.", input_tokens=120, output_tokens=30, cache_read_tokens=100)
USED = TokenUsage(120, 30, cache_read_tokens=100)
REPLIES = {word: Reply(word, input_tokens=number, output_tokens=number - 5) for number, word in enumerate("abcdef", 10)}


def by_word(request: Any) -> Reply:
    return REPLIES[request.last_text]


@pytest.fixture
def meter() -> Iterator[Meter]:
    """A meter with the taps on; after the test everything has ended, and nothing failed or was contradicted."""
    meter = Meter()
    with MeterHandler(meter, wire=True):
        yield meter
    health = meter.health()
    assert (health["failures"], health["open_calls"], health["disagreements"]) == ({}, 0, 0)
    assert meter.joining.taps == 0


def llm(provider: LoopbackProvider, kind: type = OpenAI, **options: Any) -> Any:
    made: dict[str, Any] = {"model": "gpt-4o", "api_key": "none", "max_retries": 0, "timeout": 20}
    if kind is Anthropic:
        made |= {"model": "claude-sonnet-4-6", "base_url": provider.anthropic_base_url}
    else:
        made |= {"api_base": provider.openai_base_url}
    if kind is OpenAILike:
        made |= {"is_chat_model": True, "is_function_calling_model": True}
    return kind(**{**made, **options})


def ask(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def used(meter: Meter) -> list[tuple[TokenUsage | None, bool, int]]:
    """Of each record: tokens, whether any is a guess, and how many requests it took."""
    return [
        (TokenUsage(*(getattr(r.usage, name) for name in TOKEN_CLASSES)), r.estimated, len(r.attempts))
        for r in meter.history()
    ]


def by_task(meter: Meter) -> dict[str, tuple[int, int, bool, int]]:
    """One record for each task: input, output, whether any is a guess, how many requests."""
    records = meter.history()
    assert len({record.task for record in records}) == len(records)
    return {r.task: (r.input_tokens, r.output_tokens, r.estimated, len(r.attempts)) for r in records}


def told(words: str) -> dict[str, tuple[int, int, bool, int]]:
    return {word: (REPLIES[word].input_tokens, REPLIES[word].output_tokens, False, 1) for word in words}


# ---------------------------------------------------------------------------------- streams that are sent for late


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_two_streams_that_are_read_in_turn_have_an_answer_each(
    kind: type, installed: bool, loopback: Loopback, meter: Meter
) -> None:
    """Most integrations send for a stream when it is first read: by then another call was announced."""
    model = llm(loopback(by_word), kind)
    door = install(meter, wire=True) if installed else nullcontext()

    with tagged(task="a"):
        first = model.stream_chat(ask("a"))
    with tagged(task="b"):
        second = model.stream_chat(ask("b"))
    with door:
        list(first)
        list(second)

    assert by_task(meter) == told("ab")


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_read_on_another_thread_is_one_record(
    kind: type, installed: bool, loopback: Loopback, meter: Meter
) -> None:
    """A bare thread has no context: the call stack tells whose request it is."""
    model = llm(loopback(by_word), kind)
    door = install(meter, wire=True) if installed else nullcontext()

    with tagged(task="a"):
        stream = model.stream_chat(ask("a"))
    thread = threading.Thread(target=list, args=[stream])
    with door:
        thread.start()
        thread.join()

    assert by_task(meter) == told("a")


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_that_other_tasks_read_have_an_answer_each(kind: type, loopback: Loopback, meter: Meter) -> None:
    model = llm(loopback(by_word), kind)

    async def make(word: str) -> Any:
        with tagged(task=word):
            return await model.astream_chat(ask(word))

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    with install(meter, wire=True):
        streams = await asyncio.gather(*map(make, "abcd"))
        await asyncio.gather(*map(read, streams))

    assert by_task(meter) == told("abcd")


async def test_side_by_side_each_answer_finds_its_call(loopback: Loopback, meter: Meter) -> None:
    model = llm(loopback(by_word), OpenAILike)

    async def chat(word: str) -> None:
        with tagged(task=word):
            await model.achat(ask(word))

    async def stream(word: str) -> None:
        with tagged(task=word):
            async for _ in await model.astream_chat(ask(word)):
                pass

    await asyncio.gather(*map(chat, "abc"), *map(stream, "def"))

    assert by_task(meter) == told("abcdef")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_beside_a_stream_is_not_the_streams(kind: type, loopback: Loopback, meter: Meter) -> None:
    """A raw SDK call before the first chunk, between two and after the last is nobody's."""
    provider = loopback(by_word)
    client = sdk.OpenAI(base_url=provider.openai_base_url, api_key="none")

    def raw() -> None:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "f"}])

    with tagged(task="a"):
        stream = llm(provider, kind).stream_chat(ask("a"))
    raw()
    for _ in stream:
        raw()
    raw()

    assert by_task(meter) == told("a")


def test_a_raw_call_beside_a_stream_is_a_record_of_its_own_where_the_process_is_metered(
    loopback: Loopback, meter: Meter
) -> None:
    provider = loopback(by_word)
    client = sdk.OpenAI(base_url=provider.openai_base_url, api_key="none")

    with install(meter, wire=True):
        with tagged(task="a"):
            stream = llm(provider).stream_chat(ask("a"))
        with meter.scope(task="b"):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "b"}])
        list(stream)

    assert by_task(meter) == told("ab")
    assert {record.task: record.framework for record in meter.history()} == {"a": "llama_index", "b": "wire"}


def test_a_stream_that_is_read_while_a_raw_one_is_open_is_its_own(loopback: Loopback, meter: Meter) -> None:
    provider = loopback(by_word)
    client = sdk.OpenAI(base_url=provider.openai_base_url, api_key="none")

    with install(meter, wire=True):
        with tagged(task="a"):
            stream = llm(provider).stream_chat(ask("a"))
        with meter.scope(task="b"):
            raw = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "b"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        list(stream)
        list(raw)

    assert by_task(meter) == told("ab")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_left_keeps_what_was_seen(kind: type, loopback: Loopback, meter: Meter) -> None:
    provider = loopback(Reply("word " * 40, chunks=40, input_tokens=500, output_tokens=200))

    stream = llm(provider, kind).stream_chat(ask("a"))
    for _ in range(6):
        next(stream)
    stream.close()

    (record,) = meter.history()
    assert (record.status, record.estimated, len(record.attempts)) == (Status.CANCELLED, True, 1)
    assert 0 < record.output_tokens < 200


# ------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [OpenAI, OpenAILike])
def test_two_retries_are_one_record_with_three_attempts(
    kind: type, streamed: bool, loopback: Loopback, meter: Meter
) -> None:
    # What breaks off after its first chunk is not asked for again.
    provider = loopback([ErrorReply(429, retry_after=0.01), ErrorReply(503) if streamed else Cut(), ANSWER])
    model = llm(provider, kind, max_retries=3)

    list(model.stream_chat(ask("a"))) if streamed else model.chat(ask("a"))

    (record,) = meter.history()
    assert (record.status, record.retries, record.estimated) == (Status.OK, 2, False)
    first, second, third = record.attempts
    assert (first.status, first.retry_after) == (429, 0.01)
    assert second.error_type is not None
    assert (third.status, third.error_type) == (200, None)
    # gpt-4o: $2.50, cached $1.25, output $10 a million.
    assert record.cost.list_pico == 20 * 2_500_000 + 100 * 1_250_000 + 30 * 10_000_000
    assert meter.usage.cost_usd == record.cost_usd


def test_every_attempt_refused_costs_nothing(loopback: Loopback, meter: Meter) -> None:
    provider = loopback([ErrorReply(429, retry_after=0.01)], loop=True)

    with pytest.raises(sdk.RateLimitError):
        llm(provider, OpenAILike, max_retries=2).chat(ask("a"))

    (record,) = meter.history()
    assert {attempt.status for attempt in record.attempts} == {429}
    assert len(record.attempts) == len(provider.requests) > 1
    assert (record.status, record.usage, record.estimated, record.billed_cost_usd) == (Status.ERROR, None, False, 0)


def test_a_budget_is_settled_once_for_a_call_that_was_tried_again(loopback: Loopback) -> None:
    meter = Meter(budgets=[Budget("day", tokens=150)])
    provider = loopback([ErrorReply(500), ANSWER], loop=True)

    with MeterHandler(meter, wire=True):
        llm(provider, OpenAILike, max_retries=3, max_tokens=30).chat(ask("a"))
        asked = len(provider.requests)
        with pytest.raises(BudgetExceeded):
            list(llm(provider, OpenAILike, max_retries=3, max_tokens=30).stream_chat(ask("a")))

    assert (asked, len(provider.requests)) == (2, 2)
    assert [len(record.attempts) for record in meter.history()] == [2]
    assert meter.usage.total_tokens == 150


# ---------------------------------------------------------------------------------------- doors, agents, embeddings


def test_all_doors_at_once_make_one_record(loopback: Loopback, meter: Meter) -> None:
    provider = loopback(ANSWER, loop=True)
    model = llm(provider)

    with install(meter, wire=True), MeterHandler(meter, wire=True):
        meter.wrap(model._get_client())
        model.chat(ask("a"))
        list(model.stream_chat(ask("a")))
        meter.unwrap(model._get_client())

    assert used(meter) == [(USED, False, 1)] * 2
    assert {record.framework for record in meter.history()} == {"llama_index"}


def test_each_of_two_meters_has_the_call_once(loopback: Loopback, meter: Meter) -> None:
    other = Meter()
    with MeterHandler(other, wire=True):
        stream = llm(loopback(ANSWER), OpenAILike).stream_chat(ask("a"))
        list(stream)

    assert used(meter) == used(other) == [(USED, False, 1)]


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


SCRIPT = [
    Reply(tool_calls=[ToolCall("add", {"a": 1, "b": 2})], input_tokens=900, output_tokens=60, cache_read_tokens=512),
    Reply("3", input_tokens=1000, output_tokens=40, reasoning_tokens=32),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_is_exact(kind: type, streaming: bool, loopback: Loopback, meter: Meter) -> None:
    provider = loopback(SCRIPT)

    with install(meter, wire=True):
        agent = FunctionAgent(name="alice", llm=llm(provider, kind), tools=[add], streaming=streaming)
        assert str(await agent.run("1 + 2?")) == "3"

    assert [record.agent for record in meter.history()] == ["alice", "alice"]
    assert [(r.input_tokens, r.output_tokens) for r in meter.history()] == [
        (usage.input_tokens, usage.output_tokens) for usage in provider.truth
    ]
    assert not any(record.estimated for record in meter.history())
    assert [len(record.attempts) for record in meter.history()] == [1, 1]


async def test_agents_side_by_side_are_exact(loopback: Loopback, meter: Meter) -> None:
    def script(request: Any) -> Reply:
        text = str(request.body)
        return SCRIPT[1] if "tool_call_id" in text else SCRIPT[0]

    provider = loopback(script)
    agents = [
        AgentWorkflow(agents=[FunctionAgent(name=name, llm=llm(provider, OpenAILike), tools=[add])], root_agent=name)
        for name in ("alice", "bob", "carol")
    ]

    async def run(agent: Any) -> None:
        await agent.run("1 + 2?")

    await asyncio.gather(*map(run, agents))

    by_agent = meter.usage_by("agent")
    assert {
        name: (u.input_tokens, u.output_tokens, u.requests, u.estimated_requests) for name, u in by_agent.items()
    } == dict.fromkeys(("alice", "bob", "carol"), (1900, 100, 2, 0))


async def test_a_reacting_agent_is_exact(loopback: Loopback, meter: Meter) -> None:
    provider = loopback(
        [
            Reply(
                'Thought: I must add.\nAction: add\nAction Input: {"a": 1, "b": 2}', input_tokens=300, output_tokens=20
            ),
            Reply("Thought: I can answer.\nAnswer: 3", input_tokens=350, output_tokens=9),
        ]
    )

    assert str(await ReActAgent(name="rex", llm=llm(provider, OpenAILike), tools=[add]).run("1 + 2?")) == "3"

    assert [(r.agent, r.input_tokens, r.output_tokens, r.estimated) for r in meter.history()] == [
        ("rex", 300, 20, False),
        ("rex", 350, 9, False),
    ]


@pytest.mark.parametrize("reuse", [True, False])
async def test_embeddings_are_exact_one_record_each(reuse: bool, loopback: Loopback, meter: Meter) -> None:
    """… even of a model that makes a client for every call, which nothing but the wire can hear."""
    provider = loopback()
    model = OpenAIEmbedding(
        model="text-embedding-3-small",
        api_base=provider.openai_base_url,
        api_key="none",
        max_retries=0,
        embed_batch_size=2,
        reuse_client=reuse,
    )

    model.get_text_embedding("one\ntwo")
    model.get_text_embedding_batch(["four", "five and six", "seven"])
    await model.aget_text_embedding("eight")
    await model.aget_text_embedding_batch(["nine", "ten and eleven and twelve", "thirteen"])
    with install(meter, wire=True):
        await asyncio.gather(model.aget_query_embedding("fourteen"), model.aget_query_embedding("fifteen is long"))

    records = meter.history()
    assert sorted(r.input_tokens for r in records) == sorted(usage.input_tokens for usage in provider.truth)
    assert {(r.kind, r.model, r.estimated, len(r.attempts)) for r in records} == {
        ("embedding", "text-embedding-3-small", False, 1)
    }


class Sum(BaseModel):
    value: int


async def test_predictions_that_tell_nobody_are_exact_in_every_way(loopback: Loopback, meter: Meter) -> None:
    provider = loopback(Reply('{"value": 3}', input_tokens=50, output_tokens=9), loop=True)
    model, prompt = llm(provider, OpenAIResponses), PromptTemplate("1 + 2?")

    with install(meter, wire=True):
        model.structured_predict(Sum, prompt)
        await model.astructured_predict(Sum, prompt)
        await asyncio.gather(model.astructured_predict(Sum, prompt), model.astructured_predict(Sum, prompt))
        model.as_structured_llm(Sum).chat(ask("1 + 2?"))
        await model.as_structured_llm(Sum).achat(ask("1 + 2?"))
        list(llm(provider).stream_structured_predict(Sum, prompt))
        list(llm(provider).as_structured_llm(Sum).stream_chat(ask("1 + 2?")))

    assert len(provider.requests) == 8
    assert used(meter) == [(TokenUsage(50, 9), False, 1)] * 8
