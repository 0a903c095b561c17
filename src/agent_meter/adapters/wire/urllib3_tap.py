"""botocore and requests: both read their answers from urllib3, whose response is listened to as it is read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from .exchange import Exchange
from .operations import replaced
from .taps import Owner, begin


def tap_botocore(host: Any, owners: Callable[[], Sequence[Owner]]) -> list[Callable[[], None]]:
    """Watch what a `URLLib3Session` sends, or all of them do. The answers undo it."""
    return [replaced(host, "send", _sending(_original(host), owners, isinstance(host, type), _of_botocore))]


def tap_requests(host: Any, owners: Callable[[], Sequence[Owner]]) -> list[Callable[[], None]]:
    """The same of an `HTTPAdapter` of requests."""
    return [replaced(host, "send", _sending(_original(host), owners, isinstance(host, type), _of_requests))]


def _original(host: Any) -> Any:
    if isinstance(host, type) or "send" in vars(host):
        return host.send
    return lambda *args, **kwargs: type(host).send(host, *args, **kwargs)


def _sending(
    original: Any, owners: Callable[[], Sequence[Owner]], of_class: bool, listen: Callable[[Any, Exchange], None]
) -> Any:
    @wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        request = kwargs["request"] if "request" in kwargs else args[1 if of_class else 0]
        exchange = None
        if request.method == "POST":
            url = urlsplit(request.url)
            exchange = begin(url.netloc, url.path, lambda: _body(request), owners())
        if exchange is None:
            return original(*args, **kwargs)
        try:
            response = original(*args, **kwargs)
        except BaseException as error:
            exchange.failed(error)
            raise
        try:
            listen(response, exchange)
        except Exception as error:
            exchange.complain("answer", error)
        return response

    return send


def _body(request: Any) -> bytes | None:
    body = request.body
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, (bytes, bytearray)) else None


def _of_botocore(response: Any, exchange: Exchange) -> None:
    if response._content is not None:  # read at once
        exchange.begins(response.status_code, response.headers)
        exchange.said(response._content)
    else:
        exchange.begins(response.status_code, response.headers)
        _listen(response.raw, exchange)


def _of_requests(response: Any, exchange: Exchange) -> None:
    exchange.begins(response.status_code, response.headers)
    _listen(response.raw, exchange)


class _Ear:
    """Hears what is read, once: one way of reading is made of another."""

    __slots__ = ("_deep", "_exchange", "_heard")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._deep = 0
        self._heard = False

    def hear(self, data: bytes, decoded: bool) -> None:
        exchange = self._exchange
        if self._deep or exchange.body is None:
            return
        if not self._heard:
            self._heard = True
            if decoded:
                exchange.body.as_it_is()
        exchange.hear(data)

    def __enter__(self) -> None:
        self._deep += 1

    def __exit__(self, *error: object) -> None:
        self._deep -= 1

    @property
    def outermost(self) -> bool:
        return not self._deep


def _listen(raw: Any, exchange: Exchange) -> None:
    """Replace, on this one response, each way of reading it by one that is overheard."""
    ear = _Ear(exchange)
    decodes = bool(getattr(raw, "decode_content", False))

    def reading(name: str) -> None:
        original = getattr(raw, name)

        @wraps(original)
        def read(amt: Any = None, decode_content: bool | None = None, *args: Any, **kwargs: Any) -> Any:
            try:
                with ear:
                    data = original(amt, decode_content, *args, **kwargs)
            except BaseException as error:
                exchange.failed(error)
                raise
            if data:
                ear.hear(data, decodes if decode_content is None else decode_content)
            if ear.outermost and (amt is None or amt < 0 or (not data and amt != 0)):
                exchange.end()
            return data

        setattr(raw, name, read)

    def streaming(name: str) -> None:
        original = getattr(raw, name)

        @wraps(original)
        def stream(amt: Any = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:
            decoded = decodes if decode_content is None else decode_content
            chunks = original(amt, decode_content)
            try:
                while True:
                    with ear:
                        data = next(chunks, None)
                    if data is None:
                        break
                    ear.hear(data, decoded)
                    yield data
            except GeneratorExit:
                if ear.outermost:
                    exchange.closed()
                raise
            except BaseException as error:
                exchange.failed(error)
                raise
            if ear.outermost:
                exchange.end()

        setattr(raw, name, stream)

    for name in ("read", "read1"):
        if hasattr(raw, name):
            reading(name)
    for name in ("stream", "read_chunked"):
        if hasattr(raw, name):
            streaming(name)
    if hasattr(raw, "readinto"):
        raw.readinto = _into(weakref.ref(raw))
    close = raw.close

    @wraps(close)
    def closed() -> None:
        try:
            close()
        finally:
            exchange.closed()

    raw.close = closed
    weakref.finalize(raw, exchange.closed).atexit = False


def _into(reference: weakref.ref[Any]) -> Callable[[Any], int]:
    def readinto(buffer: Any) -> int:
        raw = reference()
        data = b"" if raw is None else raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    return readinto
