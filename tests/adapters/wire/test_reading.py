"""What is read on the side of a body, in whatever pieces it comes, is what the whole of it says."""

from __future__ import annotations

import base64
import gzip
import zlib
from typing import Any
from urllib.parse import urlsplit

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus import conversations

from agent_meter.adapters.payloads import Reading, read
from agent_meter.adapters.wire import exchange as exchanges
from agent_meter.adapters.wire.asking import UNREADABLE
from agent_meter.adapters.wire.endpoints import Endpoint, endpoint_of
from agent_meter.records import LLM

SIZES = (1, 7, 64, 1000, 1 << 20)


def answers(*, streamed: bool | None = None) -> list[tuple[str, dict[str, Any], bytes]]:
    found = []
    for document in conversations():
        for index, interaction in enumerate(document["interactions"]):
            response = interaction["response"]
            body = base64.b64decode(response["body_b64"]) if "body_b64" in response else response["body"].encode()
            if response["status"] < 300 and streamed in (None, interaction["stream"]):
                found.append((f"{document['id']}#{index}", interaction, body))
    return found


def through(
    interaction: dict[str, Any], body: bytes, size: int, encoding: str = "", dialect: str | None = None
) -> Reading:
    request = interaction["request"]
    endpoint = endpoint_of(request.get("host") or "127.0.0.1", urlsplit(request["path"]).path)
    endpoint = endpoint or Endpoint(LLM, interaction["api"])
    if dialect is not None:
        endpoint = endpoint._replace(dialect=dialect)
    exchange = exchanges.Exchange(endpoint, UNREADABLE)
    exchange.failed_to = raising
    headers = {name.lower(): value for name, value in interaction["response"]["headers"].items()}
    exchange.head(200, headers, encoding)
    assert exchange.body is not None
    for at in range(0, len(body), size):
        exchange.hear(body[at : at + size])
    exchange.end()
    reading = exchange.reading()
    assert reading is not None
    return reading


def raising(what: str, error: Exception) -> None:
    raise error


def plain(interaction: dict[str, Any], body: bytes) -> Reading:
    request = interaction["request"]
    endpoint = endpoint_of(request.get("host") or "127.0.0.1", urlsplit(request["path"]).path)
    provider = endpoint.provider if endpoint is not None else ""
    return read(body, provider, api=interaction["api"], headers=interaction["response"]["headers"])


def same(reading: Reading, whole: Reading) -> bool:
    """But for the lower bound of an output that the provider did not tell."""
    if "output_tokens" in whole.usage.missing:
        return reading.usage.missing == whole.usage.missing and reading.usage.input_tokens == whole.usage.input_tokens
    return reading == whole


@pytest.mark.parametrize("size", SIZES)
def test_every_recorded_stream_is_read_as_if_it_were_whole(size: int) -> None:
    for name, interaction, body in answers(streamed=True):
        if size == 1 and len(body) > 20_000:
            continue
        assert same(through(interaction, body, size), plain(interaction, body)), name


def test_in_words_that_nobody_knows_too() -> None:
    for name, interaction, body in answers(streamed=True):
        if len(body) > 60_000 or interaction["api"] == "bedrock.invoke":
            continue
        reading, whole = through(interaction, body, 1 << 20, dialect="?"), plain(interaction, body)
        assert reading.usage.input_tokens == whole.usage.input_tokens, name
        assert reading.usage.output_tokens >= whole.usage.output_tokens, name


def test_every_recorded_document_is_read_as_it_is() -> None:
    for name, interaction, body in answers(streamed=False):
        assert through(interaction, body, 1000) == plain(interaction, body), name


COMPRESSED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_compressed_bodies_are_decoded_on_the_side(encoding: str) -> None:
    for name, interaction, body in answers(streamed=True)[::4]:
        packed = COMPRESSED[encoding](body)
        assert same(through(interaction, packed, 33, encoding), plain(interaction, body)), name


def test_bare_deflate_is_understood() -> None:
    _, interaction, body = answers(streamed=False)[0]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    assert through(interaction, engine.compress(body) + engine.flush(), 10, "deflate") == plain(interaction, body)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_places_where_a_stream_is_cut_in_pieces_change_nothing(data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from([one for one in answers(streamed=True) if len(one[2]) < 30_000]))
    name, interaction, body = chosen
    size = data.draw(st.integers(1, 5000))

    assert same(through(interaction, body, size), plain(interaction, body)), name


def test_a_stream_without_end_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"word"}}],"usage":{"prompt_tokens":5}}\n\n'
    interaction = {
        "api": "openai.chat",
        "request": {"host": "api.openai.com", "path": "/v1/chat/completions"},
        "response": {"headers": {"content-type": "text/event-stream"}},
    }
    exchange = exchanges.Exchange(Endpoint(LLM, "openai.chat"), UNREADABLE)
    exchange.head(200, interaction["response"]["headers"])  # type: ignore[index]
    body = exchange.body
    assert body is not None
    for _ in range(100_000):
        exchange.hear(event)

    assert len(body.kept()) < 100 * len(event)
    assert body.content > 99_000
