"""What the application receives through a tap is what it receives without: byte for byte, chunk for chunk."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.langchain.integrations import Place
from tests.adapters.wire.sdks import SDKS, Sdk
from tests.adapters.wire.test_reading import answers
from tests.corpus import conversations, replay_server

from agent_meter import Meter
from agent_meter.adapters.wire.swallowing import Swallow

STREAMS = [(name, body) for name, _, body in answers(streamed=True)]


class Bodies:
    """A server that sends one body, in the pieces that it is told, and may hang up in the middle."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.cut = False
        bodies = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                self.send_response(200)
                for name, value in bodies.headers.items():
                    self.send_header(name, value)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in bodies.pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if bodies.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/chat/completions"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def bodies() -> Iterator[Bodies]:
    server = Bodies()
    yield server
    server.stop()


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def through_httpx(client: Any, url: str) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    error = ""
    with client.stream("POST", url, json={"model": "m"}) as answer:
        try:
            found += answer.iter_raw()
        except Exception as raised:
            error = type(raised).__name__
    return found, error


def through_requests(client: Any, url: str) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    error = ""
    with client.post(url, json={"model": "m"}, stream=True) as answer:
        try:
            found += answer.iter_content(None)
        except Exception as raised:
            error = type(raised).__name__
    return found, error


async def through_async_httpx(client: Any, url: str) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    error = ""
    async with client.stream("POST", url, json={"model": "m"}) as answer:
        try:
            async for chunk in answer.aiter_raw():
                found.append(chunk)
        except Exception as raised:
            error = type(raised).__name__
    return found, error


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chunk_for_chunk_however_it_is_split_cut_or_compressed(bodies: Bodies, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(STREAMS))[1]
    size = data.draw(st.sampled_from([len(body), 1500, 300, 97]))
    packed = data.draw(st.booleans())
    bodies.cut = data.draw(st.booleans())
    bodies.headers = {"content-type": "text/event-stream", **({"content-encoding": "gzip"} if packed else {})}
    bodies.pieces = pieces(gzip.compress(body) if packed else body, size)[:400]
    library = data.draw(st.sampled_from([httpx, httpx2, requests]))
    make = requests.Session if library is requests else lambda: library.Client(verify=False)
    through = through_requests if library is requests else through_httpx
    meter = Meter(prices={})
    with make() as plain, make() as tapped:
        meter.wrap(tapped)
        expected, got = through(plain, bodies.url), through(tapped, bodies.url)

    assert b"".join(got[0]) == b"".join(expected[0])
    assert got[1] == expected[1]
    if library is not requests:
        assert b"".join(got[0]) == b"".join(bodies.pieces)
    assert len(meter.history()) == 1


def test_every_recorded_stream_passes_in_the_same_chunks(bodies: Bodies) -> None:
    bodies.cut, bodies.headers = False, {"content-type": "text/event-stream"}
    meter = Meter(prices={})
    with httpx2.Client(verify=False) as tapped:
        meter.wrap(tapped)
        for name, body in STREAMS:
            # One at a time: what is sent while nobody reads arrives together.
            bodies.pieces = [body]
            got, error = through_httpx(tapped, bodies.url)
            assert (b"".join(got), error) == (body, ""), name


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_tee_hands_on_each_chunk_as_it_is(size: int) -> None:
    """Without a network in between, which joins chunks as it likes."""
    for name, body in STREAMS[::5]:
        sent = pieces(body[:3000], size)

        class Sends(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield from sent  # noqa: B023 - used up before the next one

        answer = httpx.MockTransport(lambda request: httpx.Response(200, stream=Sends()))
        meter = Meter(prices={})
        with httpx.Client(transport=answer) as client:
            meter.wrap(client)
            got, _ = through_httpx(client, "http://127.0.0.1/v1/chat/completions")

        assert got == sent, name


async def test_async_clients_receive_the_same(bodies: Bodies) -> None:
    bodies.cut, bodies.headers = False, {"content-type": "text/event-stream"}
    meter = Meter(prices={})
    async with httpx2.AsyncClient(verify=False) as tapped, aiohttp.ClientSession() as session:
        meter.wrap(tapped)
        meter.wrap(session)
        for name, body in STREAMS[::6]:
            bodies.pieces = pieces(body, 200)
            got, error = await through_async_httpx(tapped, bodies.url)
            assert (b"".join(got), error) == (body, ""), name
            async with session.post(bodies.url, json={"model": "m"}) as answer:
                assert b"".join([chunk async for chunk, _ in answer.content.iter_chunks()]) == body, name
            async with session.post(bodies.url, json={"model": "m"}) as answer:
                assert await answer.read() == body, name
            async with session.post(bodies.url, json={"model": "m"}) as answer:
                assert b"".join([line async for line in answer.content]) == body, name

    assert len(meter.history()) == 4 * len(STREAMS[::6])


async def test_a_cancelled_reader_leaves_a_record_and_gets_its_cancellation(bodies: Bodies) -> None:
    meter = Meter(prices={})
    arrived = asyncio.Event()

    class Slow(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b'data: {"id":"1","choices":[{"delta":{"content":"a"}}]}\n\n'
            arrived.set()
            await asyncio.sleep(60)

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Slow()))
    client = meter.wrap(openai.AsyncOpenAI(api_key="x", http_client=httpx2.AsyncClient(transport=transport)))

    async def read() -> None:
        async for _ in await client.chat.completions.create(model="gpt-4o", messages=[], stream=True):
            pass

    task = asyncio.create_task(read())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [str(record.status) for record in meter.history()] == ["cancelled"]


# ------------------------------------------------------------------------------------------------- SDK objects


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.name not in ("aiohttp", "requests")], ids=lambda s: s.name)
def test_the_sdks_objects_compare_equal(sdk: Sdk) -> None:
    with replay_server(match_stream=False) as server:
        places = [
            Place(document, index, server)
            for document in conversations()
            for index in range(len(document["interactions"]))
        ]
        for place in [place for place in places if sdk.asks(place)][::6]:
            seen = []
            for tapped in (False, True):
                client = sdk.make(place)
                if tapped:
                    Meter(prices={}).wrap(client)
                place.aim()
                with contextlib.suppress(Exception):
                    seen.append(_plain(sdk.ask(place, client)))
            assert seen[:1] == seen[1:], (place.document["id"], place.index)


def _plain(answer: Any) -> Any:
    """What of an answer can be compared: two of AWS's differ in when they were received."""
    if isinstance(answer, dict):
        return {name: value for name, value in answer.items() if name != "ResponseMetadata" and name != "body"}
    if isinstance(answer, list):
        return [_plain(item) for item in answer]
    if isinstance(answer, (str, bytes)):
        return answer
    dump = getattr(answer, "model_dump", None)
    found = dump() if dump is not None else answer
    if isinstance(found, dict):
        found.pop("sdk_http_response", None)  # has the hour
    return found


# ------------------------------------------------------------------------------------------------- swallowing

CHUNK = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word"}}]}
LAST = {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
EXTRA = {**CHUNK, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}


def stream(*events: Any, between: bytes = b"\n\n", compact: bool = True) -> bytes:
    separators = (",", ":") if compact else None
    lines = [b"data: " + json.dumps(event, separators=separators).encode() + between for event in events]
    return b"".join(lines) + b"data: [DONE]" + between


@given(
    st.integers(1, 400),
    st.integers(1, 5),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
    st.booleans(),
    st.integers(1, 3),
)
def test_only_the_extra_event_is_taken_out(size: int, words: int, between: bytes, compact: bool, choices: int) -> None:
    before = [CHUNK] * words + [LAST] * choices
    swallow = Swallow()
    sent = stream(*before, EXTRA, between=between, compact=compact)
    got = b"".join([swallow.feed(piece) for piece in pieces(sent, size)]) + swallow.rest()

    assert got == stream(*before, between=between, compact=compact)


@given(st.integers(1, 400))
def test_where_no_event_is_extra_nothing_is_changed(size: int) -> None:
    first = {**CHUNK, "choices": [], "prompt_filter_results": []}  # Azure's
    told = {**LAST, "usage": {"prompt_tokens": 5}}
    sent = stream(first, CHUNK, told)
    swallow = Swallow()

    assert b"".join([swallow.feed(piece) for piece in pieces(sent, size)]) + swallow.rest() == sent


def test_until_the_answer_ends_every_byte_passes_at_once() -> None:
    swallow = Swallow()
    for piece in pieces(stream(*[CHUNK] * 20).removesuffix(b"data: [DONE]\n\n"), 11):
        assert swallow.feed(piece) == piece
