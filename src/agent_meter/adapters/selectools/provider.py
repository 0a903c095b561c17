"""A provider that asks the meter before each request: this is where selectools can be refused a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any

from ...errors import BudgetExceeded
from ...meter import Meter, default_meter
from ...records import Reserve, Status
from ...tokens.estimate import ERROR
from .runs import FRAMEWORK, Desk, Flight, current, desk_of
from .stats import Prompt

MAX_TOKENS = 1000  # what selectools' providers ask for when they are told nothing

# The meters that count the request which is being made in this context: of nested providers the outermost counts.
_counting: ContextVar[tuple[Meter, ...]] = ContextVar("agent_meter_selectools_counting", default=())


class MeteredProvider:
    """A selectools provider that meters each request, and raises `BudgetExceeded` before one that a guard denies.

    It stands in for the provider it is given in everything else. Counted are announced calls and those of which no
    observer hears: checks of coherence, compressed results, summaries, retries, streams that were left. Streams have
    no usage in selectools: theirs is estimated, unless `wire=True` reads it where it arrives.

    Around a `FallbackProvider` or a `RouterProvider` it counts a request once, whoever answers; to see each attempt,
    wrap the providers inside instead. Nested ones are safe.
    """

    def __init__(self, provider: Any, meter: Meter | None = None, *, wire: bool = False) -> None:
        meter = meter if meter is not None else default_meter()
        self.__dict__.update(_provider=provider, _meter=meter, _desk=desk_of(meter))
        self._desk.providers.add(self)
        if wire:
            from ..wire import keep_on

            keep_on(meter)

    @property
    def meter(self) -> Meter:
        found: Meter = self.__dict__["_meter"]
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_provider" not in self.__dict__:  # a copy that is being made
            raise AttributeError(name)
        value = getattr(self._provider, name)
        metered = _METERED.get(name)
        return value if metered is None or value is None else metered(self, value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._provider, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._provider, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._provider)})

    def __repr__(self) -> str:
        return f"MeteredProvider({self._provider!r})"

    # ---------------------------------------------------------------------------------------------- requests

    def _begin(self, asked: Mapping[str, Any]) -> Flight | None:
        """The call of a request that is about to be made, opened. None: it is counted further out, or not at all."""
        flight = self._prepare(asked)
        if flight is not None and flight.call is not None:
            try:
                self.meter.open(flight.call)
            except BudgetExceeded:
                flight.done = True
                raise
            except Exception as error:
                flight.taken, flight.call = False, None  # the observer may still count it
                _caught(self.meter, "request", error)
                return None
        return flight

    async def _abegin(self, asked: Mapping[str, Any]) -> Flight | None:
        """The same where a budget may wait, or ask a shared store, while the event loop goes on."""
        flight = self._prepare(asked)
        if flight is not None and flight.call is not None:
            try:
                await self.meter.aopen(flight.call)
            except BudgetExceeded:
                flight.done = True
                raise
            except Exception as error:
                flight.taken, flight.call = False, None  # the observer may still count it
                _caught(self.meter, "request", error)
                return None
        return flight

    def _prepare(self, asked: Mapping[str, Any]) -> Flight | None:
        meter: Meter = self._meter
        if meter in _counting.get():
            return None
        try:
            flight = self._flight(asked)
            call = flight.make(str(getattr(self._provider, "name", "") or ""))
            limit = asked.get("max_tokens", MAX_TOKENS)
            call.max_output_tokens = limit if isinstance(limit, int) else None
            if meter.plugins.guarded:
                call.reserve = Reserve(round(flight.prompt.tokens() * (1 + ERROR)), call.max_output_tokens)
        except Exception as error:
            _caught(meter, "request", error)
            return None
        return flight

    def _flight(self, asked: Mapping[str, Any]) -> Flight:
        desk: Desk = self._desk
        messages = asked.get("messages")
        name = asked.get("model") or getattr(self._provider, "default_model", None) or ""
        prompt = Prompt(str(name), str(asked.get("system_prompt") or ""), messages or (), asked.get("tools"))
        flight = None if messages is None else desk.take(messages)
        if flight is None:
            return Flight(self._meter, current.get(), prompt)
        flight.prompt = prompt  # with the tools, of which the observer does not hear
        return flight

    def _done(self, event: str, end: Callable[..., None], *args: Any) -> None:
        try:
            end(*args)
        except Exception as error:
            _caught(self._meter, event, error)

    def _answered(self, flight: Flight, answer: Any) -> None:
        message, stats = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
        tools = [str(call.tool_name) for call in getattr(message, "tool_calls", None) or ()]
        flight.answered(stats, str(getattr(message, "content", None) or ""), tools)

    def _failed(self, flight: Flight, error: BaseException) -> None:
        said = "".join(flight.said)
        if said:
            flight.streamed(said, flight.tools, error)
        else:
            flight.failed(error)
        run = flight.run
        if run is not None and flight.taken and not isinstance(error, Exception):
            run.lost(Status.CANCELLED)  # of which selectools tells nobody


def _caught(meter: Meter, event: str, error: Exception) -> None:
    meter.plugins.failed(FRAMEWORK, event, error)
    if meter.plugins.strict:
        raise error


class _Counting:
    """Inside, the meter counts this request; what a wrapped provider of the same meter sees is the same one."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._token = _counting.set((*_counting.get(), self._meter))

    def __exit__(self, *_: object) -> None:
        _counting.reset(self._token)


def _complete(self: MeteredProvider, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def complete(*args: Any, **asked: Any) -> Any:
        flight = self._begin(asked)
        if flight is None:
            return function(*args, **asked)
        try:
            with _Counting(self.meter):
                answer = function(*args, **asked)
        except BaseException as error:
            self._done("error", self._failed, flight, error)
            raise
        self._done("answer", self._answered, flight, answer)
        return answer

    return complete


def _acomplete(self: MeteredProvider, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def acomplete(*args: Any, **asked: Any) -> Any:
        flight = await self._abegin(asked)
        if flight is None:
            return await function(*args, **asked)
        try:
            with _Counting(self.meter):
                answer = await function(*args, **asked)
        except BaseException as error:
            self._done("error", self._failed, flight, error)
            raise
        self._done("answer", self._answered, flight, answer)
        return answer

    return acomplete


def _stream(self: MeteredProvider, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def stream(*args: Any, **asked: Any) -> Any:
        flight = self._begin(asked)
        if flight is None:
            yield from function(*args, **asked)
            return
        items = None
        try:
            while True:
                with _Counting(self.meter):
                    items = iter(function(*args, **asked)) if items is None else items
                    try:
                        item = next(items)
                    except StopIteration:
                        break
                _heard(flight, item)
                yield item
        except BaseException as error:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            self._done("error", self._failed, flight, error)
            raise
        self._done("answer", flight.streamed, "".join(flight.said), flight.tools)

    return stream


def _astream(self: MeteredProvider, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def astream(*args: Any, **asked: Any) -> Any:
        flight = await self._abegin(asked)
        items: Any = None
        try:
            while True:
                with _Counting(self.meter):
                    if items is None:
                        items = function(*args, **asked)
                        items = aiter(await items if inspect.isawaitable(items) else items)
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        break
                if flight is not None:
                    _heard(flight, item)
                yield item
        except BaseException as error:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
            if flight is not None:
                self._done("error", self._failed, flight, error)
            raise
        if flight is not None:
            self._done("answer", flight.streamed, "".join(flight.said), flight.tools)

    return astream


def _heard(flight: Flight, item: Any) -> None:
    call = flight.call
    if call is not None and call.first_token_at is None:
        call.first_token_at = flight.meter.monotonic()
    if isinstance(item, str):
        flight.said.append(item)
    elif name := getattr(item, "tool_name", None):
        flight.tools.append(name)
        flight.said.append(f"{name}{getattr(item, 'parameters', '')}")


_METERED = {"complete": _complete, "acomplete": _acomplete, "stream": _stream, "astream": _astream}
