"""LangChain says whose call it is, the wire what it used: one record for each call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import InternalServerError
from openai import OpenAI as Client
from tests.adapters.langchain.integrations import INTEGRATIONS, Place
from tests.adapters.langchain.recorded import ask
from tests.adapters.wire.test_corpus import check, unwell
from tests.corpus import conversations, replay_server

from agent_meter import Meter, Status, TokenUsage, install
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.adapters.wire import switch_on
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import Cut, ErrorReply, LoopbackProvider, Reply

ANSWER = Reply("Hello there, my friend.", input_tokens=120, output_tokens=30, cache_read_tokens=100)
USED = TokenUsage(120, 30, cache_read_tokens=100)


def chat(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", **options)  # type: ignore[arg-type]


def used(meter: Meter) -> list[tuple[TokenUsage | None, bool, int]]:
    """Of each record: tokens, whether any is a guess, and how many requests it took."""
    found: list[tuple[TokenUsage | None, bool, int]] = []
    for record in meter.history():
        counts = [getattr(record.usage, name) for name in TOKEN_CLASSES]
        found.append((TokenUsage(*counts), record.estimated, len(record.attempts)))
    return found


def test_a_stream_that_asks_for_no_usage_is_exact_and_looks_as_it_did(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        before = [chunk.model_dump(exclude={"id"}) for chunk in chat(provider).stream("hi")]
        after = [
            chunk.model_dump(exclude={"id"})
            for chunk in chat(provider).stream("hi", {"callbacks": [MeterCallback(meter, wire=True)]})
        ]

    for chunk in (*before, *after):
        chunk["response_metadata"].pop("id", None)
    assert after == before
    assert used(meter) == [(USED, False, 1)]
    assert meter.history()[0].streamed


async def test_async_and_side_by_side_each_answer_finds_its_call(meter: Meter) -> None:
    replies = {word: Reply(word, input_tokens=number, output_tokens=1) for number, word in enumerate("abcdefgh", 10)}
    with LoopbackProvider(lambda request: replies[request.last_text]) as provider:
        config: Any = {"callbacks": [MeterCallback(meter, wire=True)]}
        model = chat(provider)

        async def stream(word: str) -> None:
            async for _ in model.astream(word, {**config, "metadata": {"task": word}}):
                pass

        await asyncio.gather(
            *(model.ainvoke(word, {**config, "metadata": {"task": word}}) for word in "abcd"),
            *(stream(word) for word in "efgh"),
        )

    assert {record.task: record.input_tokens for record in meter.history()} == {
        word: reply.input_tokens for word, reply in replies.items()
    }
    assert not any(record.estimated for record in meter.history())


def test_two_retries_are_one_record_with_three_attempts(meter: Meter) -> None:
    with LoopbackProvider([ErrorReply(429, retry_after=0.01), Cut(), ANSWER]) as provider:
        chat(provider, max_retries=2).invoke("hi", {"callbacks": [MeterCallback(meter, wire=True)]})

    (record,) = meter.history()
    assert (record.status, record.retries, record.estimated) == (Status.OK, 2, False)
    first, second, third = record.attempts
    assert (first.status, first.retry_after) == (429, 0.01)
    assert second.error_type == "RemoteProtocolError"
    assert (third.status, third.error_type) == (200, None)
    assert second.waited > 0
    # gpt-4o: $2.50, cached $1.25, output $10 a million.
    assert record.cost.list_pico == 20 * 2_500_000 + 100 * 1_250_000 + 30 * 10_000_000
    assert meter.usage.cost_usd == record.cost_usd


def test_every_attempt_refused_costs_nothing(meter: Meter) -> None:
    with (
        LoopbackProvider([ErrorReply(429, retry_after=0.01), ErrorReply(500)]) as provider,
        pytest.raises(InternalServerError),
    ):
        chat(provider, max_retries=1).invoke("hi", {"callbacks": [MeterCallback(meter, wire=True)]})

    (record,) = meter.history()
    assert [attempt.status for attempt in record.attempts] == [429, 500]
    assert (record.status, record.usage, record.estimated, record.billed_cost_usd) == (Status.ERROR, None, False, 0)


def test_a_raw_call_between_two_chunks_is_not_the_streams(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = Client(base_url=provider.openai_base_url, api_key="none")
        raw = {"model": "gpt-4o", "messages": [{"role": "user", "content": "raw"}]}
        for _ in chat(provider).stream("hi", {"callbacks": [MeterCallback(meter, wire=True)]}):
            client.chat.completions.create(**raw)  # type: ignore[call-overload]
        client.chat.completions.create(**raw)  # type: ignore[call-overload]

    assert used(meter) == [(USED, False, 1)]


def test_all_doors_at_once_make_one_record(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider, install(meter, wire=True):
        model = chat(provider)
        meter.wrap(model.root_client)
        model.invoke("hi", {"callbacks": [MeterCallback(meter, wire=True)]})
        list(model.stream("hi", {"callbacks": [MeterCallback(meter, wire=True)]}))

    assert used(meter) == [(USED, False, 1)] * 2
    assert {record.framework for record in meter.history()} == {"langchain"}


def test_a_call_goes_to_the_meter_that_announced_it(meter: Meter) -> None:
    process = Meter()
    with LoopbackProvider(ANSWER, loop=True) as provider, install(process, wire=True):
        client = Client(base_url=provider.openai_base_url, api_key="none")
        with switch_on(meter), meter.llm("gpt-4o") as call:
            call.finish(client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}]))

    assert process.history() == []
    assert used(meter) == [(USED, False, 1)]


def test_an_early_end_of_a_stream_keeps_what_was_seen(meter: Meter) -> None:
    with LoopbackProvider(Reply("word " * 40, chunks=40, input_tokens=500, output_tokens=200)) as provider:
        chunks = chat(provider).stream("hi", {"callbacks": [MeterCallback(meter, wire=True)]})
        for _ in range(5):
            next(chunks)
        chunks.close()

    (record,) = meter.history()
    assert (record.status, record.estimated) == (Status.CANCELLED, True)
    assert 0 < record.output_tokens < 200


def test_prompts_of_one_generate_have_an_answer_each(meter: Meter) -> None:
    replies = {word: Reply(word, input_tokens=number, output_tokens=1) for number, word in enumerate("abc", 10)}
    with LoopbackProvider(lambda request: replies[request.last_text]) as provider:
        prompts = [[HumanMessage(word)] for word in replies]
        chat(provider).generate(prompts, callbacks=[MeterCallback(meter, wire=True)])  # type: ignore[arg-type]

    assert [record.input_tokens for record in meter.history()] == [10, 11, 12]
    assert all(record.attempts for record in meter.history())


def test_a_server_that_refuses_to_be_asked_for_usage_is_asked_again_without(meter: Meter) -> None:
    def answer(request: Any) -> Any:
        return ErrorReply(400) if "stream_options" in request.body else ANSWER

    with LoopbackProvider(answer) as provider:
        for _ in range(2):
            list(chat(provider).stream("hi", {"callbacks": [MeterCallback(meter, wire=True)]}))

    assert [record.status for record in meter.history()] == [Status.OK] * 2
    assert len(provider.requests) == 3


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_recorded_calls_through_every_integration_are_exact() -> None:
    """What LangChain loses, the wire has: nothing is missing that the provider told."""
    failed, calls = [], 0
    with replay_server(match_stream=False) as server:
        for integration in INTEGRATIONS:
            places = [
                Place(document, index, server)
                for document in conversations()
                for index in range(len(document["interactions"]))
            ]
            for place in [place for place in places if integration.asks(place)][::3]:
                if not integration.installed or (integration.name == "ChatCohere" and "legacy" in place.document["id"]):
                    continue
                with Meter(prices={}) as meter:
                    place.aim()
                    callbacks = {"callbacks": [MeterCallback(meter, wire=True)]}
                    error = ask(integration.make(place), place.streamed, callbacks, place.question)
                    calls += 1
                    if found := check(meter.history(), place, error) or unwell(meter):
                        failed.append(f"{integration.name}, {place.document['id']}, call {place.index}: {found}")

    assert failed == []
    assert calls > 80
