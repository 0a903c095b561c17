"""The objects that the vendors' SDKs make of recorded answers are read like the bodies that they were made from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.corpus import conversations

from agent_meter.adapters.payloads import Reading, read
from agent_meter.adapters.payloads.streams import parse

openai = pytest.importorskip("openai")
pytest.importorskip("openai.types.audio")
anthropic = pytest.importorskip("anthropic")


def answered(*apis: str, stream: bool) -> list[Any]:
    """Recorded calls of these dialects that were answered with 200 and JSON or events."""
    return [
        pytest.param(call, id=f"{document['id']}-{call['i']}")
        for document in conversations()
        for call in document["interactions"]
        if call["api"] in apis
        and bool(call["stream"]) is stream
        and call["response"]["status"] == 200
        and call["response"].get("body")
    ]


def construct(sdk: Any, kind: Any, value: Any) -> Any:
    """What the SDK's own client makes of a parsed body: lenient, as servers other than the vendor's are read too."""
    return sdk._models.construct_type(type_=kind, value=value)


def same(found: Reading, body: str) -> None:
    assert found == read(body)


@pytest.mark.parametrize("call", answered("openai.chat", stream=False))
def test_a_chat_completion(call: dict[str, Any]) -> None:
    completion = construct(openai, openai.types.chat.ChatCompletion, json.loads(call["response"]["body"]))

    same(read(completion), call["response"]["body"])


@pytest.mark.parametrize("call", answered("openai.chat", stream=True))
def test_chat_completion_chunks(call: dict[str, Any]) -> None:
    events = parse(call["response"]["body"])

    chunks = [construct(openai, openai.types.chat.ChatCompletionChunk, event) for event in events]

    same(read(chunks), call["response"]["body"])


@pytest.mark.parametrize("call", answered("openai.responses", stream=False))
def test_a_response(call: dict[str, Any]) -> None:
    response = construct(openai, openai.types.responses.Response, json.loads(call["response"]["body"]))

    same(read(response), call["response"]["body"])


@pytest.mark.parametrize("call", answered("openai.responses", stream=True))
def test_response_events(call: dict[str, Any]) -> None:
    events = parse(call["response"]["body"])

    made = [construct(openai, openai.types.responses.ResponseStreamEvent, event) for event in events]

    same(read(made), call["response"]["body"])


OTHER = {
    "openai.completions": ("Completion",),
    "openai.embeddings": ("CreateEmbeddingResponse",),
    "openai.images": ("ImagesResponse",),
    "openai.moderations": ("ModerationCreateResponse",),
    "openai.transcriptions": ("audio", "Transcription"),
}


@pytest.mark.parametrize("call", answered(*OTHER, stream=False))
def test_the_other_answers_of_openai(call: dict[str, Any]) -> None:
    kind: Any = openai.types
    for name in OTHER[call["api"]]:
        kind = getattr(kind, name)

    answer = construct(openai, kind, json.loads(call["response"]["body"]))

    same(read(answer), call["response"]["body"])


@pytest.mark.parametrize("call", answered("anthropic.messages", stream=False))
def test_a_message(call: dict[str, Any]) -> None:
    message = construct(anthropic, anthropic.types.Message, json.loads(call["response"]["body"]))

    same(read(message), call["response"]["body"])


@pytest.mark.parametrize("call", answered("anthropic.messages", stream=True))
def test_message_events(call: dict[str, Any]) -> None:
    events = parse(call["response"]["body"])

    made = [
        construct(anthropic, anthropic.types.RawMessageStreamEvent, event)
        for event in events
        if event["type"] != "ping"
    ]

    same(read(made), call["response"]["body"])


@pytest.mark.parametrize("call", answered("anthropic.messages", stream=True))
def test_the_message_that_the_sdk_accumulates_from_a_stream(call: dict[str, Any], replay: Any) -> None:
    document = next(d for d in conversations() if call in d["interactions"])
    client = anthropic.Anthropic(base_url=replay.base_url(document["id"]), api_key="none", max_retries=0, timeout=10)
    streams = [c for c in document["interactions"] if c["api"] == call["api"] and c["stream"]]

    for _ in range(streams.index(call) + 1):
        with client.messages.stream(model="any", max_tokens=1, messages=[{"role": "user", "content": "-"}]) as stream:
            message = stream.get_final_message()

    found, expected = read(message), read(call["response"]["body"])
    assert counts(found) == counts(expected)
    assert (found.response_model, found.tools) == (expected.response_model, expected.tools)


def counts(reading: Reading) -> tuple[int, ...]:
    u = reading.usage
    return (u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens)


def test_an_sdks_error_is_named_by_its_body(replay: Any) -> None:
    document = next(d for d in conversations(api="openai.chat") if d["truth"][0].get("error", {}).get("status") == 404)
    client = openai.OpenAI(base_url=replay.base_url(document["id"]), api_key="none", max_retries=0, timeout=10)

    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="any", messages=[])

    assert read(caught.value).error_type == document["truth"][0]["error"]["type"]
