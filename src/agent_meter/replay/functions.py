"""Functions that ask a model, answered from a cache: `@cache.replayed(meter, model="gpt-4o")`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..handles import LlmHandle
from .asking import Again, Attempt, stream_kind
from .entries import Entry, copied, lifetime
from .flights import Flight, running_loop
from .keys import is_absent, key_of, name_of, tools_of
from .listening import Heard

if TYPE_CHECKING:
    from ..meter import Meter
    from .cache import ReplayCache

# Arguments that change how an answer is fetched and not what it says.
IGNORED = frozenset(("timeout",))
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# SDKs whose methods depend on nothing but their arguments and on where their client sends them.
SDKS = frozenset(("anthropic", "cerebras", "google", "groq", "ollama", "openai", "together"))
_serial = itertools.count(1)


class Replayed:
    """How one function is answered from a cache. The options of `ReplayCache.replayed`:

    `model`, `provider`: whom it asks. Without `model` it is the call's own argument of that name. Where that is
    none either, or with `metered=True`, the function meters its calls itself (`meter.llm`, a framework's callback):
    what is recorded while it runs is what a hit replays.
    `key(*args, **kwargs)`: what of a call changes the answer, in place of all of its arguments.
    `ignore`: names of arguments that do not change it. `ttl`: seconds, in place of the cache's.
    `kind`: "llm", "embedding" or "rerank". `input_tokens`, `max_output_tokens`: what a budget sets aside; the
    second is read from the call's arguments where it stands there. The rest is attribution: agent, user, tags.
    """

    def __init__(
        self,
        cache: ReplayCache,
        meter: Meter | None,
        function: Callable[..., Any],
        *,
        model: str | None = None,
        provider: str = "",
        metered: bool = False,
        key: Callable[..., Any] | None = None,
        ignore: tuple[str, ...] = (),
        ttl: float | None = None,
        kind: str = "llm",
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        **attribution: object,
    ) -> None:
        self.cache = cache
        self.function = function
        self.model, self.provider, self.kind = model, provider, kind
        self.metered = metered
        self.ttl = cache.default_ttl if ttl is None else lifetime(ttl)
        self.input_tokens, self.max_output_tokens = input_tokens, max_output_tokens
        self.attribution: dict[str, Any] = attribution
        self._meter = meter
        self._key = key
        self._ignore = IGNORED.union((ignore,) if isinstance(ignore, str) else ignore)
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C have none
            self._signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
        self._identity = () if key is not None else self._identify(function)

    @property
    def meter(self) -> Meter:
        meter = self._meter or self.cache.meter
        if meter is None:
            from ..meter import default_meter

            meter = default_meter()
        return meter

    # ------------------------------------------------------------------------------------------------ keys

    def _identify(self, function: Callable[..., Any]) -> tuple[Any, ...]:
        """What of the function itself changes the answer: the object it belongs to, the variables it encloses."""
        if next(iter(self._signature.parameters), "") in ("self", "cls"):
            raise TypeError(
                f"{name_of(function)} is a method: say what changes its answers, "
                "for example key=lambda self, question: (self.system_prompt, question)"
            )
        owner = getattr(function, "__self__", None)
        if owner is not None and not inspect.ismodule(owner):
            client = _client(owner)
            if client is None:
                try:
                    key_of(owner)  # now rather than at every call
                except TypeError as error:
                    raise TypeError(f"{name_of(function)}: {error}. Say what does with key=lambda …") from None
                return (type(owner).__qualname__, owner)
        names = getattr(function, "__code__", None)
        cells = getattr(function, "__closure__", None) or ()
        enclosed: dict[str, str] = {}  # as it is now: what changes later is the function's own business
        for name, cell in zip(names.co_freevars if names else (), cells, strict=False):
            try:
                enclosed[name] = key_of(cell.cell_contents)
            except ValueError:  # not bound yet
                continue
            except TypeError:  # a client, a session: this function's answers are its own, whatever they depend on
                return ("only", next(_serial), id(function))
        return (enclosed,) if enclosed else ()

    def question(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question:
        """One call. What cannot be a key is asked every time, and counted."""
        key, named = None, dict(kwargs)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return Question(self, None, named)  # the call itself will say what is wrong
        bound.apply_defaults()
        named = {}
        for name, parameter in self._signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            else:
                named[name] = value
        named = {name: value for name, value in named.items() if not is_absent(value)}
        try:
            key = key_of(self._told(named) if self._key is None else self._key(*args, **kwargs), *self._about())
        except Exception as error:
            self.cache._failed("key", error, self.meter)
        return Question(self, key, named)

    def _told(self, named: dict[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in named.items() if name not in self._ignore}
        if told.get("tools"):
            told["tools"] = tools_of(told["tools"])
        return told

    def _about(self) -> tuple[Any, ...]:
        client = _client(getattr(self.function, "__self__", None))
        endpoint = str(getattr(client, "base_url", "") or "")
        return (name_of(self.function), self.model, self.provider, self.kind, endpoint, self._identity)


class Question:
    """One call of such a function: from the cache, from somebody who is asking the same, or from the model."""

    __slots__ = ("_named", "_started", "asking", "cache", "key", "meter")

    def __init__(self, asking: Replayed, key: str | None, named: dict[str, Any]) -> None:
        self.asking, self.cache, self.key = asking, asking.cache, key
        self.meter = asking.meter
        self._named = named
        self._started = self.meter.monotonic()

    # ---------------------------------------------------------------------------------------- what is known

    def known(self) -> Entry | None:
        """The answer, if it is there."""
        if self.key is None:
            return None
        entry = self.cache._look(self.key)
        if entry is not None:
            self.replay(entry)
        return entry

    async def aknown(self) -> Entry | None:
        if self.key is None or not self.cache._storage.waits or running_loop() is None:
            return self.known()
        entry = await asyncio.to_thread(self.cache._look, self.key)
        if entry is not None:
            self.replay(entry)
        return entry

    def replay(self, entry: Entry) -> None:
        passed = self.meter.monotonic() - self._started
        self.cache._replay(entry, self.meter, passed, self.asking.attribution)

    def brought(self, flight: Flight) -> Entry | None:
        """A copy of what somebody else's question has brought, if it is an answer."""
        entry = flight.entry
        if entry is None:
            return None
        entry = Entry(copied(entry.answer), entry.records)
        self.replay(entry)
        return entry

    # -------------------------------------------------------------------------------------------- asking

    def call(self) -> LlmHandle | None:
        """The call to open for it; `None` where the function meters itself."""
        asking, named = self.asking, self._named
        model = asking.model or named.get("model")
        if asking.metered or not isinstance(model, str) or not model:
            return None
        limit = asking.max_output_tokens
        if limit is None:
            limit = next((named[name] for name in _LIMITS if isinstance(named.get(name), int)), None)
        return self.meter.llm(
            model,
            provider=asking.provider,
            input_tokens=asking.input_tokens,
            max_output_tokens=limit,
            kind=asking.kind,
            **asking.attribution,
        )

    def entry(self, answer: Any, heard: Heard, streamed: str = "") -> Entry | None:
        """What to keep of an answer; `None` where it is not one, or cannot be kept."""
        if self.key is None or not heard.answered:
            return None
        try:
            return Entry(copied(answer), heard.paid, streamed)
        except Exception as error:
            self.cache._failed("set", error, self.meter)
            return None

    def store(self, entry: Entry) -> None:
        assert self.key is not None
        try:
            self.cache._keep(self.key, entry, self.asking.ttl)
        except Exception as error:
            self.cache._failed("set", error, self.meter)

    async def astore(self, entry: Entry) -> None:
        if self.cache._storage.waits and running_loop() is not None:
            await asyncio.to_thread(self.store, entry)
        else:
            self.store(entry)


def _client(owner: Any) -> Any:
    """The client behind an SDK's method, such as `client.chat.completions.create`."""
    if type(owner).__module__.partition(".")[0] not in SDKS:
        return None
    return getattr(owner, "_client", None) or getattr(owner, "_api_client", None)


# ------------------------------------------------------------------------------------------------ wrapping


def replayed(cache: ReplayCache, meter: Meter | None, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        asking = Replayed(cache, meter, function, **options)
        plain = inspect.unwrap(function)
        wrapper = _asynchronous if inspect.iscoroutinefunction(plain) else _synchronous
        return functools.wraps(function)(wrapper(asking))

    return decorate


def _given(entry: Entry) -> Any:
    return Again(entry.answer) if entry.streamed else entry.answer


def _synchronous(asking: Replayed) -> Callable[..., Any]:
    cache, flights, function = asking.cache, asking.cache._flights, asking.function

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        question = asking.question(args, kwargs)
        while question.key is not None:
            entry = question.known()
            if entry is not None:
                return _given(entry)
            flight, leads = flights.lead(question.key)
            if leads:
                return ask(question, flight, args, kwargs)
            if not flights.wait(flight) or not flight.shareable:
                break
            entry = question.brought(flight)
            if entry is not None:
                return entry.answer
        return ask(question, None, args, kwargs)

    def ask(question: Question, flight: Flight | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry, answered = None, False
        try:
            if flight is not None and (known := question.known()) is not None:
                return _given(known)  # it came between the look and the take-off
            cache._count(misses=1)
            attempt = Attempt(question)
            try:
                with attempt.listening():
                    answer = function(*args, **kwargs)
            except BaseException as error:
                attempt.failed(error)
                raise
            answered = True
            if stream_kind(answer):
                return attempt.streaming(answer)
            entry = attempt.ended(answer)
            if entry is not None:
                question.store(entry)
            return answer
        finally:
            if flight is not None:
                flights.land(flight, entry, shareable=entry is not None or not answered)

    return wrapper


def _asynchronous(asking: Replayed) -> Callable[..., Any]:
    cache, flights, function = asking.cache, asking.cache._flights, asking.function

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        question = asking.question(args, kwargs)
        while question.key is not None:
            entry = await question.aknown()
            if entry is not None:
                return _given(entry)
            flight, leads = flights.lead(question.key)
            if leads:
                return await ask(question, flight, args, kwargs)
            if not await flights.await_(flight) or not flight.shareable:
                break
            entry = question.brought(flight)
            if entry is not None:
                return entry.answer
        return await ask(question, None, args, kwargs)

    async def ask(question: Question, flight: Flight | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry, answered = None, False
        try:
            if flight is not None and (known := await question.aknown()) is not None:
                return _given(known)
            cache._count(misses=1)
            attempt = Attempt(question)
            try:
                with attempt.listening():
                    answer = await function(*args, **kwargs)
            except BaseException as error:
                attempt.failed(error)
                raise
            answered = True
            if stream_kind(answer):
                return attempt.streaming(answer)
            entry = attempt.ended(answer)
            if entry is not None:
                await question.astore(entry)
            return answer
        finally:
            if flight is not None:
                flights.land(flight, entry, shareable=entry is not None or not answered)

    return wrapper
