"""aiohttp: `ClientSession._request`; what is read from the content of its response is overheard."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from .exchange import Exchange
from .operations import replaced
from .taps import Owner, begin


def tap(module: Any, host: Any, owners: Callable[[], Sequence[Owner]]) -> list[Callable[[], None]]:
    """Watch what a `ClientSession` sends, or all of them do. `module` is aiohttp. The answers undo it."""
    if isinstance(host, type):
        original = host._request  # type: ignore[attr-defined]
    else:

        async def original(*args: Any, **kwargs: Any) -> Any:
            return await type(host)._request(host, *args, **kwargs)

    return [replaced(host, "_request", _requesting(module, original, owners, host))]


def _requesting(module: Any, original: Any, owners: Callable[[], Sequence[Owner]], host: Any) -> Any:
    of_class = isinstance(host, type)

    async def _request(*args: Any, **kwargs: Any) -> Any:
        session, rest = (args[0], args[1:]) if of_class else (host, args)
        method = kwargs["method"] if "method" in kwargs else rest[0]
        exchange = None
        if str(method).upper() == "POST":
            exchange = _begin(session, rest[1] if len(rest) > 1 else kwargs.get("str_or_url"), kwargs, owners())
        if exchange is None:
            return await original(*args, **kwargs)
        try:
            response = await original(*args, **kwargs)
        except BaseException as error:
            exchange.failed(error)
            raise
        try:
            _listen(module, response, exchange, getattr(session, "_auto_decompress", True))
        except Exception as error:
            exchange.complain("answer", error)
        return response

    return _request


def _begin(session: Any, url: Any, kwargs: dict[str, Any], owners: Sequence[Owner]) -> Exchange | None:
    base = getattr(session, "_base_url", None)
    target = urlsplit(str(base.join(url if not isinstance(url, str) else type(base)(url)) if base else url))

    def body() -> Any:
        found = kwargs.get("json")
        if found is None:
            found = kwargs.get("data")
        return found.encode() if isinstance(found, str) else found

    return begin(target.netloc, target.path, body, owners)


def _listen(module: Any, response: Any, exchange: Exchange, decoded: bool) -> None:
    exchange.begins(response.status, response.headers, "" if decoded else None)
    content = response.content
    if content is None:
        exchange.end()
        return
    response.content = _content_of(module)(content, exchange)
    for name in ("close", "release"):
        setattr(response, name, _ending(getattr(response, name), exchange))
    weakref.finalize(response, exchange.closed).atexit = False


def _ending(original: Any, exchange: Exchange) -> Any:
    @wraps(original)
    def ended(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            exchange.closed()

    return ended


_contents: dict[str, type[Any]] = {}


def _content_of(module: Any) -> type[Any]:
    if module.__name__ not in _contents:
        _contents[module.__name__] = _make(module)
    return _contents[module.__name__]


def _make(module: Any) -> type[Any]:
    streams = module.streams

    class Content:
        """A `StreamReader`, overheard."""

        def __init__(self, inner: Any, exchange: Exchange) -> None:
            self._inner = inner
            self._exchange = exchange
            if inner.at_eof():
                exchange.end()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def _heard(self, data: bytes) -> None:
            exchange = self._exchange
            if data:
                exchange.hear(data)
            if self._inner.at_eof():
                exchange.end()

        async def _read(self, method: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                data = await method(*args, **kwargs)
            except BaseException as error:
                partial = getattr(error, "partial", None)
                if isinstance(partial, bytes):  # fewer bytes than were wanted, and they are taken
                    self._heard(partial)
                else:
                    self._exchange.failed(error)
                raise
            self._heard(data[0] if isinstance(data, tuple) else data)
            return data

        async def read(self, *args: Any, **kwargs: Any) -> Any:
            return await self._read(self._inner.read, *args, **kwargs)

        async def readany(self) -> Any:
            return await self._read(self._inner.readany)

        async def readchunk(self) -> Any:
            return await self._read(self._inner.readchunk)

        async def readline(self, *args: Any, **kwargs: Any) -> Any:
            return await self._read(self._inner.readline, *args, **kwargs)

        async def readuntil(self, *args: Any, **kwargs: Any) -> Any:
            return await self._read(self._inner.readuntil, *args, **kwargs)

        async def readexactly(self, *args: Any, **kwargs: Any) -> Any:
            return await self._read(self._inner.readexactly, *args, **kwargs)

        def read_nowait(self, *args: Any, **kwargs: Any) -> Any:
            data = self._inner.read_nowait(*args, **kwargs)
            self._heard(data)
            return data

        def __aiter__(self) -> Any:
            return streams.AsyncStreamIterator(self.readline)

        def iter_chunked(self, n: int) -> Any:
            return streams.AsyncStreamIterator(lambda: self.read(n))

        def iter_any(self) -> Any:
            return streams.AsyncStreamIterator(self.readany)

        def iter_chunks(self) -> Any:
            return streams.ChunkTupleAsyncStreamIterator(self)

    return Content
