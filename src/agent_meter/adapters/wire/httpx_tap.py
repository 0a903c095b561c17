"""httpx and httpx2: `HTTPTransport.handle_request` and its asynchronous twin, of the class or of one transport.

The stream of the response is replaced by one that passes every chunk on as it comes; decoding, early close and
cancellation go through it unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from .asking import with_usage
from .exchange import Exchange
from .operations import address, replaced
from .scanning import LOOK_AFTER
from .swallowing import Swallow
from .taps import Owner, asks_for_usage, begin, refusing

REFUSED = (400, 404, 422)
MARK = "agent_meter"  # in a request's extensions: somebody further out watches it already


class _Modified:
    """A request that asks for usage in its stream; the original is kept, for servers that do not know how."""

    __slots__ = ("headers", "stream")

    def __init__(self, module: Any, request: Any, body: bytes) -> None:
        self.stream = request.stream
        self.headers = request.headers
        headers = module.Headers(request.headers)
        headers["content-length"] = str(len(body))
        headers["accept-encoding"] = "identity"  # what is compressed cannot be taken apart again
        request.stream = module.ByteStream(body)
        request.headers = headers

    def refused(self, request: Any) -> None:
        """The server does not know how: it is sent as it was, and this host is not asked again."""
        refusing.add(request.url.host)
        request.stream, request.headers = self.stream, self.headers


def tap(module: Any, host: Any, owners: Callable[[], Sequence[Owner]]) -> list[Callable[[], None]]:
    """Watch what goes through `host`: the class `HTTPTransport` or `AsyncHTTPTransport`, or one transport object.

    `module` is httpx or httpx2. The answers undo it.
    """
    return [
        replaced(host, name, wrapped(module, getattr(host, name), owners))
        for name, wrapped in (("handle_request", _sync), ("handle_async_request", _async))
        if hasattr(host, name)
    ]


def _begin(request: Any, owners: Sequence[Owner]) -> Exchange | None:
    if MARK in request.extensions:
        return None
    host, path = address(request.url)
    return begin(host, path, lambda: getattr(request, "_content", None), owners, request)


def _modified(module: Any, request: Any, exchange: Exchange, owners: Sequence[Owner]) -> _Modified | None:
    try:
        if not asks_for_usage(exchange, request.url.host, owners) or request.headers.get("content-encoding"):
            return None
        body = with_usage(request._content)
        return None if body is None else _Modified(module, request, body)
    except Exception as error:
        exchange.complain("ask for usage", error)
        return None


# A method of a class is called with the transport and the request, one of an object with the request alone.


def _sync(module: Any, original: Any, owners: Callable[[], Sequence[Owner]]) -> Any:
    tee = tees(module)[0]

    def handle_request(*args: Any) -> Any:
        request = args[-1]
        exchange = _begin(request, owners()) if request.method == "POST" else None
        if exchange is None:
            return original(*args)
        request.extensions = {**request.extensions, MARK: True}
        modified = _modified(module, request, exchange, owners())
        try:
            response = original(*args)
            if modified is not None and response.status_code in REFUSED:
                response.close()
                modified.refused(request)
                modified = None
                response = original(*args)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            request.extensions.pop(MARK, None)
        _listen(tee, exchange, response, modified)
        return response

    return handle_request


def _async(module: Any, original: Any, owners: Callable[[], Sequence[Owner]]) -> Any:
    tee = tees(module)[1]

    async def handle_async_request(*args: Any) -> Any:
        request = args[-1]
        exchange = _begin(request, owners()) if request.method == "POST" else None
        if exchange is None:
            return await original(*args)
        request.extensions = {**request.extensions, MARK: True}
        modified = _modified(module, request, exchange, owners())
        try:
            response = await original(*args)
            if modified is not None and response.status_code in REFUSED:
                await response.aclose()
                modified.refused(request)
                modified = None
                response = await original(*args)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            request.extensions.pop(MARK, None)
        _listen(tee, exchange, response, modified)
        return response

    return handle_async_request


# What is read of a response's headers. Looking them up one by one takes longer than going through all.
_WANTED = (b"content-type", b"content-encoding", b"retry-after", b"retry-after-ms")


def _headers(response: Any) -> dict[str, str]:
    found = {}
    for name, value in response.headers.raw:
        name = name.lower()
        if name in _WANTED or name.startswith(b"x-amzn-bedrock"):
            found[name.decode()] = value.decode("latin-1")
    return found


def _listen(tee: type[Any], exchange: Exchange, response: Any, modified: _Modified | None) -> None:
    content = getattr(response, "_content", None)
    headers = _headers(response)
    exchange.begins(response.status_code, headers, None if content is None else "")
    if content is None:
        response.stream = tee(response.stream, exchange, _swallow(headers) if modified is not None else None)
    else:  # a transport that makes its answers up has them whole
        exchange.said(content)


def _swallow(headers: dict[str, str]) -> Swallow | None:
    if "content-encoding" in headers:
        return None
    return Swallow() if "event-stream" in headers.get("content-type", "") else None


_tees: dict[str, tuple[type[Any], type[Any]]] = {}


def tees(module: Any) -> tuple[type[Any], type[Any]]:
    """The streams of this library that pass on what they hear."""
    found = _tees.get(module.__name__)
    if found is None:
        found = _tees[module.__name__] = (_sync_tee(module), _async_tee(module))
    return found


def _sync_tee(module: Any) -> type[Any]:
    class Tee(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, exchange: Exchange, swallow: Swallow | None) -> None:
            self._inner = inner
            self._exchange = exchange
            self._swallow = swallow

        def __iter__(self) -> Iterator[bytes]:
            exchange, swallow = self._exchange, self._swallow
            body, left = exchange.body, LOOK_AFTER
            assert body is not None
            try:
                for chunk in self._inner:
                    body.feed(chunk)
                    left -= 1
                    if not left:
                        body, left = exchange.look(), LOOK_AFTER
                    if swallow is None:
                        yield chunk
                    elif passed := swallow.feed(chunk):
                        yield passed
                if swallow is not None and (passed := swallow.rest()):
                    yield passed
            except GeneratorExit:
                exchange.closed()
                raise
            except BaseException as error:
                exchange.failed(error)
                raise
            exchange.end()

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                self._exchange.closed()

        def __del__(self) -> None:
            self._exchange.closed()

    return Tee


def _async_tee(module: Any) -> type[Any]:
    class AsyncTee(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, exchange: Exchange, swallow: Swallow | None) -> None:
            self._inner = inner
            self._exchange = exchange
            self._swallow = swallow

        async def __aiter__(self) -> AsyncIterator[bytes]:
            exchange, swallow = self._exchange, self._swallow
            body, left = exchange.body, LOOK_AFTER
            assert body is not None
            try:
                async for chunk in self._inner:
                    body.feed(chunk)
                    left -= 1
                    if not left:
                        body, left = exchange.look(), LOOK_AFTER
                    if swallow is None:
                        yield chunk
                    elif passed := swallow.feed(chunk):
                        yield passed
                if swallow is not None and (passed := swallow.rest()):
                    yield passed
            except GeneratorExit:
                exchange.closed()
                raise
            except BaseException as error:
                exchange.failed(error)
                raise
            exchange.end()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._exchange.closed()

        def __del__(self) -> None:
            self._exchange.closed()

    return AsyncTee
