"""Functions as tools: `@meter.tool` on functions, coroutines, generators and async generators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from .handles import ToolHandle

F = TypeVar("F", bound=Callable[..., Any])


def metered(function: F, tool: Callable[[Mapping[str, Any]], ToolHandle]) -> F:
    """`function` as a tool: each call of it is one tool call; `tool` makes its handle from the arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        signature = inspect.Signature()

    def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ToolHandle:
        try:
            params: Mapping[str, Any] = signature.bind(*args, **kwargs).arguments
        except TypeError:
            params = kwargs  # the call itself will say what is wrong with them
        return tool({k: v for k, v in params.items() if k not in ("self", "cls")})

    wrapper: Any
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            items = function(*args, **kwargs)
            with _Stream(handle(args, kwargs)) as call:
                try:
                    sent = None
                    while True:
                        try:
                            item = await items.asend(sent)
                        except StopAsyncIteration:
                            break
                        call.chunk(content=item)
                        sent = yield item
                finally:
                    await items.aclose()

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            items = function(*args, **kwargs)
            with _Stream(handle(args, kwargs)) as call:
                return (yield from _Counted(items, call))

    elif inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            async with handle(args, kwargs) as call:
                value = await function(*args, **kwargs)
                call.result(value)
                return value

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with handle(args, kwargs) as call:
                value = function(*args, **kwargs)
                call.result(value)
                return value

    return wrapper  # type: ignore[no-any-return]


class _Counted:
    """A generator that counts its items as chunks; `send`, `throw` and its return value pass through."""

    def __init__(self, items: Generator[Any, Any, Any], tool: ToolHandle) -> None:
        self._items = items
        self._tool = tool
        self.close = items.close

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._chunk(next(self._items))

    def send(self, value: Any) -> Any:
        return self._chunk(self._items.send(value))

    def throw(self, *error: Any) -> Any:
        return self._chunk(self._items.throw(*error))

    def _chunk(self, item: Any) -> Any:
        self._tool.chunk(content=item)
        return item


class _Stream:
    """A tool that yields: open from its first item to its last, but never the ambient parent in between.

    What the consumer does between two items happens in the same context, and is not the tool's.
    """

    def __init__(self, tool: ToolHandle) -> None:
        self._tool = tool

    def __enter__(self) -> ToolHandle:
        self._tool._open()
        return self._tool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tool._close(error)
