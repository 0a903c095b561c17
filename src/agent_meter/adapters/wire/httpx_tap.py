"""httpx and httpx2: `HTTPTransport.handle_request` and its asynchronous twin, of the class or of one transport.

The stream of the response is replaced by one that passes every chunk on as it comes; decoding, early close and
cancellation go through it unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from .asking import with_usage
from .exchange import Exchange
from .operations import replaced
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

    def undo(self, request: Any) -> None:
        request.stream, request.headers = self.stream, self.headers


def tap(module: Any, host: Any, owners: Callable[[], Sequence[Owner]]) -> list[Callable[[], None]]:
    """Watch what goes through `host`: the class `HTTPTransport` or `AsyncHTTPTransport`, or one transport object.

    `module` is httpx or httpx2. The answers undo it.
    """
    of_class = isinstance(host, type)
    return [
        replaced(host, name, wrapped(module, _original(host, name), owners, of_class))
        for name, wrapped in (("handle_request", _sync), ("handle_async_request", _async))
        if hasattr(host, name)
    ]


def _original(host: Any, name: str) -> Any:
    """What a transport does by itself; of an object, what its class does at the time."""
    if isinstance(host, type) or name in vars(host):
        return getattr(host, name)
    return lambda request: getattr(type(host), name)(host, request)


def _begin(request: Any, owners: Sequence[Owner]) -> Exchange | None:
    if MARK in request.extensions:
        return None
    url = request.url
    return begin(
        url.host,
        url.path,
        lambda: getattr(request, "_content", None),
        owners,
        request.headers.get("user-agent") or "",
    )


def _modified(module: Any, request: Any, exchange: Exchange, owners: Sequence[Owner]) -> _Modified | None:
    try:
        if not asks_for_usage(exchange, request.url.host, owners) or request.headers.get("content-encoding"):
            return None
        body = with_usage(request._content)
        return None if body is None else _Modified(module, request, body)
    except Exception as error:
        exchange.complain("ask for usage", error)
        return None


def _sync(module: Any, original: Any, owners: Callable[[], Sequence[Owner]], of_class: bool) -> Any:
    tee = tees(module)[0]

    def send(transport: Any, request: Any) -> Any:
        return original(transport, request) if of_class else original(request)

    def handle_request(transport: Any, request: Any) -> Any:
        if request.method != "POST":
            return send(transport, request)
        exchange = _begin(request, owners())
        if exchange is None:
            return send(transport, request)
        request.extensions = {**request.extensions, MARK: True}
        modified = _modified(module, request, exchange, owners())
        try:
            response = send(transport, request)
            if modified is not None and response.status_code in REFUSED:
                refusing.add(request.url.host)
                response.close()
                modified.undo(request)
                modified = None
                response = send(transport, request)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            request.extensions.pop(MARK, None)
        _listen(tee, exchange, response, modified)
        return response

    if of_class:
        return handle_request
    return lambda request: handle_request(None, request)


def _async(module: Any, original: Any, owners: Callable[[], Sequence[Owner]], of_class: bool) -> Any:
    tee = tees(module)[1]

    async def send(transport: Any, request: Any) -> Any:
        return await (original(transport, request) if of_class else original(request))

    async def handle_async_request(transport: Any, request: Any) -> Any:
        if request.method != "POST":
            return await send(transport, request)
        exchange = _begin(request, owners())
        if exchange is None:
            return await send(transport, request)
        request.extensions = {**request.extensions, MARK: True}
        modified = _modified(module, request, exchange, owners())
        try:
            response = await send(transport, request)
            if modified is not None and response.status_code in REFUSED:
                refusing.add(request.url.host)
                await response.aclose()
                modified.undo(request)
                modified = None
                response = await send(transport, request)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            request.extensions.pop(MARK, None)
        _listen(tee, exchange, response, modified)
        return response

    if of_class:
        return handle_async_request

    async def handle_one(request: Any) -> Any:
        return await handle_async_request(None, request)

    return handle_one


def _listen(tee: type[Any], exchange: Exchange, response: Any, modified: _Modified | None) -> None:
    content = getattr(response, "_content", None)
    exchange.begins(response.status_code, response.headers, None if content is None else "")
    if content is None:
        response.stream = tee(response.stream, exchange, _swallow(modified, response))
    else:  # a transport that makes its answers up has them whole
        exchange.said(content)


def _swallow(modified: _Modified | None, response: Any) -> Swallow | None:
    if modified is None or response.headers.get("content-encoding"):
        return None
    return Swallow() if "event-stream" in (response.headers.get("content-type") or "") else None


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
            body = exchange.body
            try:
                for chunk in self._inner:
                    try:
                        body.feed(chunk)  # type: ignore[union-attr]
                    except Exception as error:
                        body = exchange.unreadable(error)
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
            body = exchange.body
            try:
                async for chunk in self._inner:
                    try:
                        body.feed(chunk)  # type: ignore[union-attr]
                    except Exception as error:
                        body = exchange.unreadable(error)
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
