"""The HTTP of the loopback provider, spoken by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from agent_meter.testing import LoopbackProvider

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
PATH = b"/v1/chat/completions?api-version=1"


@contextmanager
def _connection(provider: LoopbackProvider) -> Iterator[tuple[Callable[[bytes], None], BinaryIO]]:
    port = int(provider.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rb") as file:
        yield client.sendall, file


def _post(*fields: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST %s HTTP/%s" % (PATH, version), b"Host: x", *fields, b"", body])


LENGTH = b"Content-Length: %d" % len(BODY)


def _read(file: BinaryIO) -> tuple[int, dict[str, object]]:
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, json.loads(file.read(length)) if length else {}


def test_a_connection_serves_many_requests_and_pipelined_ones_too(loopback) -> None:
    provider = loopback()

    with _connection(provider) as (send, file):
        send(_post(LENGTH) + _post(LENGTH))
        first, second = _read(file), _read(file)
        send(_post(LENGTH))
        third = _read(file)

    assert [status for status, _ in (first, second, third)] == [200, 200, 200]
    assert [request.number for request in provider.requests] == [1, 2, 3]
    assert provider.requests[0].path == "/v1/chat/completions"


def test_a_chunked_request_is_read_whole(loopback) -> None:
    provider = loopback()
    chunked = b"%x;note=1\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:])

    with _connection(provider) as (send, file):
        send(_post(b"Transfer-Encoding: chunked", body=chunked) + _post(LENGTH))
        statuses = [_read(file)[0], _read(file)[0]]

    assert statuses == [200, 200]
    assert provider.requests[0].body == provider.requests[1].body == json.loads(BODY)


def test_a_client_that_waits_for_leave_gets_it(loopback) -> None:
    with _connection(loopback()) as (send, file):
        send(_post(LENGTH, b"Expect: 100-continue", body=b""))
        leave = _read(file)
        send(BODY)
        answer = _read(file)

    assert (leave[0], answer[0]) == (100, 200)


def test_a_connection_ends_when_the_client_wants_it(loopback) -> None:
    provider = loopback()

    for request in (_post(LENGTH, b"Connection: close"), _post(LENGTH, version=b"1.0")):
        with _connection(provider) as (send, file):
            send(request)
            assert _read(file)[0] == 200
            assert file.read() == b""


def test_who_does_not_speak_http_is_hung_up_on_and_harms_nobody(loopback) -> None:
    provider = loopback()

    for nonsense in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n", _post(b"Content-Length: many")):
        with _connection(provider) as (send, file):
            send(nonsense)
            assert file.read() == b""
    with _connection(provider) as (send, file):
        send(_post(LENGTH))
        assert _read(file)[0] == 200


def test_it_listens_on_loopback_alone(loopback) -> None:
    provider = loopback()

    assert provider._server is not None
    assert provider._server._listener.getsockname()[0] == "127.0.0.1"
