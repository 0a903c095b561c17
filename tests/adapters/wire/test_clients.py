"""SDK clients without any framework: wrapped, or everywhere in the process."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from tests.adapters.wire.conftest import Gate

from agent_meter import BudgetExceeded, Meter, MeterError, Status, install
from agent_meter.adapters.wire import switch_on
from agent_meter.testing import Cut, ErrorReply, LoopbackProvider, Reply

ANSWER = Reply("Hello there, my friend.", input_tokens=120, output_tokens=30)
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
CLAUDE: dict[str, Any] = {**ASK, "model": "claude-sonnet-4-6", "max_tokens": 100}
NONE = {"api_key": "none", "max_retries": 2}


def told(meter: Meter) -> list[tuple[int, int, bool, str]]:
    return [(r.input_tokens, r.output_tokens, r.estimated, str(r.status)) for r in meter.history()]


def test_a_wrapped_client_is_the_same_client_and_leaves_others_alone(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = openai.OpenAI(base_url=provider.openai_base_url, **NONE)  # type: ignore[arg-type]
        other = openai.OpenAI(base_url=provider.openai_base_url, **NONE)  # type: ignore[arg-type]
        assert meter.wrap(client) is client
        client.chat.completions.create(**ASK)
        other.chat.completions.create(**ASK)

    assert told(meter) == [(120, 30, False, "ok")]
    (record,) = meter.history()
    assert (record.provider, record.request_model, record.framework, str(record.cost_usd)) == (
        "openai",
        "gpt-4o",
        "wire",
        "0.0006",
    )


def test_chat_responses_embeddings_and_messages_streamed_and_not(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        claude = meter.wrap(anthropic.Anthropic(base_url=provider.anthropic_base_url, **NONE))  # type: ignore[arg-type]
        client.chat.completions.create(**ASK)
        list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
        client.responses.create(model="gpt-4o", input="hi")
        list(client.responses.create(model="gpt-4o", input="hi", stream=True))
        claude.messages.create(**CLAUDE)
        with claude.messages.stream(**CLAUDE) as stream:
            stream.get_final_message()
        client.embeddings.create(model="text-embedding-3-small", input="hi")

    assert told(meter) == [(120, 30, False, "ok")] * 6 + [(120, 0, False, "ok")]
    assert [record.streamed for record in meter.history()] == [False, True, False, True, False, True, False]
    assert meter.history()[-1].embedding_tokens == 120


async def test_async_clients(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = meter.wrap(openai.AsyncOpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        claude = meter.wrap(anthropic.AsyncAnthropic(base_url=provider.anthropic_base_url, **NONE))  # type: ignore[arg-type]
        await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(5)))
        async for _ in await claude.messages.create(**CLAUDE, stream=True):
            pass

    assert told(meter) == [(120, 30, False, "ok")] * 6


def test_copies_of_a_wrapped_client_are_metered_once(meter: Meter) -> None:
    with LoopbackProvider([ErrorReply(429, retry_after=0.01), ANSWER]) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        client.with_options(timeout=5).chat.completions.create(**ASK)

    assert told(meter) == [(120, 30, False, "ok")]
    assert meter.history()[0].retries == 1


def test_unwrapped_it_is_as_it_was(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = openai.OpenAI(base_url=provider.openai_base_url, **NONE)  # type: ignore[arg-type]
        client.chat.completions.create(**ASK)
        before = set(vars(client)), set(vars(client._client._transport))
        meter.wrap(client)
        meter.wrap(client)
        meter.unwrap(client)
        client.chat.completions.create(**ASK)

        assert (set(vars(client)), set(vars(client._client._transport))) == before
    assert told(meter) == []
    assert meter.joining.taps == 0


def test_a_wrapped_client_that_nobody_has_any_more_is_collected(meter: Meter) -> None:
    meter.wrap(openai.OpenAI(**NONE))  # type: ignore[arg-type]
    gc.collect()

    assert meter.joining.taps == 0


def test_what_a_client_handed_out_is_metered_after_the_client_is_gone(meter: Meter, gate: Gate) -> None:
    genai = pytest.importorskip("google.genai")
    meter.register(gate)
    with LoopbackProvider() as provider:
        later = meter.wrap(genai.Client(api_key="none", http_options={"base_url": provider.url})).aio
        gc.collect()

        with pytest.raises(BudgetExceeded):
            asyncio.run(later.models.generate_content(model="gemini-2.5-flash", contents="hi"))
    assert len(meter.history(include_denied=True)) == 1


def test_what_is_no_client_cannot_be_wrapped(meter: Meter) -> None:
    with pytest.raises(MeterError, match="no HTTP client found in builtins"):
        meter.wrap({})


def test_attempts_of_one_call_are_one_record(meter: Meter) -> None:
    with LoopbackProvider([ErrorReply(503, retry_after=0.01), Cut(), ANSWER]) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        client.chat.completions.create(**ASK)

    (record,) = meter.history()
    assert (record.total_tokens, record.estimated) == (150, False)
    assert [attempt.error_type for attempt in record.attempts][1:] == ["RemoteProtocolError", None]


def test_a_call_that_is_refused_for_good_cost_nothing(meter: Meter) -> None:
    with LoopbackProvider([ErrorReply(401)]) as provider, pytest.raises(openai.AuthenticationError):
        meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE)).chat.completions.create(**ASK)  # type: ignore[arg-type]

    (record,) = meter.history()
    assert (record.status, record.error_type, record.usage) == (Status.ERROR, "AuthenticationError", None)
    assert (record.billed_cost_usd, record.estimated, record.attempts[0].status) == (0, False, 401)


def test_nobody_there_cost_nothing(meter: Meter) -> None:
    client = meter.wrap(openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0))
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**ASK)

    (record,) = meter.history()
    assert (record.usage, record.estimated, record.billed_cost_usd) == (None, False, 0)


def test_a_stream_that_asks_for_no_usage_is_a_lower_bound_and_says_so(meter: Meter) -> None:
    with LoopbackProvider(Reply("word " * 10, chunks=10)) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        list(client.chat.completions.create(**ASK, stream=True))

    (record,) = meter.history()
    assert (record.estimated, record.missing) == (True, ("input_tokens", "output_tokens"))
    assert record.input_tokens > 0
    assert 8 <= record.output_tokens <= 12


def test_asked_for_usage_it_is_exact_and_the_application_sees_no_difference(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        plain = openai.OpenAI(base_url=provider.openai_base_url, **NONE)  # type: ignore[arg-type]
        asking = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE), ask_for_usage=True)  # type: ignore[arg-type]
        before, after = (
            [
                chunk.model_copy(update={"id": "", "created": 0})
                for chunk in c.chat.completions.create(**ASK, stream=True)
            ]
            for c in (plain, asking)
        )

    assert after == before
    assert told(meter) == [(120, 30, False, "ok")]


def test_a_stream_closed_early_is_a_lower_bound(meter: Meter) -> None:
    with LoopbackProvider(Reply("word " * 40, chunks=40, input_tokens=500, output_tokens=200)) as provider:
        claude = meter.wrap(anthropic.Anthropic(base_url=provider.anthropic_base_url, **NONE))  # type: ignore[arg-type]
        stream = claude.messages.create(**CLAUDE, stream=True)
        for _ in range(10):
            next(stream)
        stream.close()

    (record,) = meter.history()
    assert (record.status, record.input_tokens, record.missing) == (Status.CANCELLED, 500, ("output_tokens",))
    assert 1 <= record.output_tokens < 40


def test_a_stream_that_is_dropped_is_closed_by_the_garbage_collector(meter: Meter) -> None:
    with LoopbackProvider(Reply("word " * 40, chunks=40, chunk_delay=0.01)) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        stream = client.chat.completions.create(**ASK, stream=True)
        next(iter(stream))
        del stream
        gc.collect()

        assert [record.status for record in meter.history()] == [Status.CANCELLED]


def test_attributed_by_the_scope_around_it(meter: Meter) -> None:
    with LoopbackProvider(ANSWER) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        with meter.run("research") as run, meter.scope(agent="ada", user="u1", team="search"):
            client.chat.completions.create(**ASK)

    (record,) = meter.history()
    assert (record.agent, record.user, record.tags, record.parent_id) == ("ada", "u1", {"team": "search"}, run.id)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_plain_http_client_is_a_client(library: Any, meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider, meter.wrap(library.Client()) as client:
        url = f"{provider.openai_base_url}/chat/completions"
        client.post(url, json=ASK).raise_for_status()
        client.get(provider.openai_base_url + "/models")
        with client.stream(
            "POST", url, json={**ASK, "stream": True, "stream_options": {"include_usage": True}}
        ) as answer:
            answer.read()

    assert told(meter) == [(120, 30, False, "ok")] * 2


def test_a_custom_transport_is_watched_too(meter: Meter) -> None:
    body = {
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=body))
    client = meter.wrap(openai.OpenAI(api_key="none", http_client=httpx2.Client(transport=transport)))
    client.chat.completions.create(**ASK)

    assert told(meter) == [(7, 2, False, "ok")]


# ------------------------------------------------------------------------------------------------- everywhere


def test_installed_every_client_of_the_process_is_metered_until_it_is_closed(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = openai.OpenAI(base_url=provider.openai_base_url, **NONE)  # type: ignore[arg-type]
        with install(meter, wire=True):
            client.chat.completions.create(**ASK)
            list(client.chat.completions.create(**ASK, stream=True))
            httpx.post(f"{provider.openai_base_url}/chat/completions", json=ASK)
        client.chat.completions.create(**ASK)

    assert told(meter) == [(120, 30, False, "ok")] * 3


def test_two_installed_meters_both_count(meter: Meter) -> None:
    other = Meter()
    with LoopbackProvider(ANSWER, loop=True) as provider, install(meter, wire=True), install(other, wire=True):
        openai.OpenAI(base_url=provider.openai_base_url, **NONE).chat.completions.create(**ASK)  # type: ignore[arg-type]

    assert told(meter) == told(other) == [(120, 30, False, "ok")]


def test_taps_are_counted_and_taken_off_with_the_last(meter: Meter) -> None:
    original = httpx.HTTPTransport.handle_request
    first, second = switch_on(meter), switch_on(meter)
    patched = httpx.HTTPTransport.handle_request
    first.close()
    first.close()
    assert httpx.HTTPTransport.handle_request is patched
    second.close()

    assert httpx.HTTPTransport.handle_request is original or switching_still_on()


def switching_still_on() -> bool:
    """Another test's `wire=True` may keep them on until its meter is collected."""
    from agent_meter.adapters.wire import switching

    return switching.process.wanted > 0


def test_other_hosts_and_paths_are_not_looked_at(meter: Meter) -> None:
    with LoopbackProvider(ANSWER, loop=True) as provider, install(meter, wire=True):
        for path in ("/v1/models", "/search", "/api/messages"):
            httpx.post(provider.url + path, json={"q": "hi"})

    assert told(meter) == []


# -------------------------------------------------------------------------------------------------- enforcement


@pytest.mark.parametrize("how", ["wrap", "install"])
@pytest.mark.parametrize("maker", [openai.OpenAI, anthropic.Anthropic])
def test_a_refused_call_is_not_sent_and_not_tried_again(maker: Any, how: str, meter: Meter, gate: Gate) -> None:
    meter.register(gate)
    with LoopbackProvider(ANSWER, loop=True) as provider:
        anthropics = maker is anthropic.Anthropic
        client = maker(base_url=provider.anthropic_base_url if anthropics else provider.openai_base_url, **NONE)
        installation = install(meter, wire=True) if how == "install" else None
        if how == "wrap":
            meter.wrap(client)
        with pytest.raises(BudgetExceeded, match="shut"):
            client.messages.create(**CLAUDE) if anthropics else client.chat.completions.create(**ASK)
        if installation is not None:
            installation.close()

    assert provider.requests == []
    assert len(gate.asked) == 1
    assert [record.status for record in meter.history(include_denied=True)] == [Status.DENIED]


async def test_async_clients_are_refused_too(meter: Meter, gate: Gate) -> None:
    meter.register(gate)
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = meter.wrap(openai.AsyncOpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        with pytest.raises(BudgetExceeded):
            await client.chat.completions.create(**ASK)

    assert provider.requests == []


def test_a_plain_request_is_refused_by_the_transport(meter: Meter, gate: Gate) -> None:
    meter.register(gate)
    with LoopbackProvider(ANSWER, loop=True) as provider, install(meter, wire=True), pytest.raises(BudgetExceeded):
        httpx.post(f"{provider.openai_base_url}/chat/completions", json=ASK)

    assert provider.requests == []


def test_what_a_budget_sets_aside_is_the_request_and_the_most_it_may_answer(meter: Meter, gate: Gate) -> None:
    meter.register(gate)
    with LoopbackProvider(ANSWER, loop=True) as provider:
        client = meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **NONE))  # type: ignore[arg-type]
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(
                model="gpt-4o", max_completion_tokens=500, messages=[{"role": "user", "content": "word " * 1000}]
            )

    (call,) = gate.asked
    assert call.reserve is not None
    assert call.reserve.output_tokens == 500
    assert 1000 <= (call.reserve.input_tokens or 0) <= 2000
    assert call.reserve.pico is not None
