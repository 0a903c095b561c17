"""`meter.wrap(client)`: one SDK's client, and nothing else in the process.

The very object is handed back, for clients are compared, subclassed and asked for their type. Its transport is watched,
and where the client asks again by itself, one call is put around its attempts.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ...errors import MeterError
from ...meter import Meter
from . import aiohttp_tap, httpx_tap, urllib3_tap
from .operations import framed, frames_of, replaced, stainless
from .taps import Owner

C = TypeVar("C")
DEEPEST = 5  # how far inside a client its HTTP client may be
MOST = 500  # objects that are looked at
COPIES = ("copy", "with_options")


class Wrapped:
    """What was done to one client, and for which meters. Kept by the client and its parts, so that it lives as long."""

    def __init__(self) -> None:
        self.owners: list[Owner] = []
        self.undo: list[Callable[[], None]] = []

    def who(self) -> Sequence[Owner]:
        return self.owners

    def add(self, owner: Owner) -> None:
        self.remove(owner.meter)
        self.owners.append(owner)
        owner.meter.joining.taps += 1

    def remove(self, meter: Meter) -> None:
        for owner in [owner for owner in self.owners if owner.meter is meter]:
            self.owners.remove(owner)
            meter.joining.taps -= 1


def _release(owners: list[Owner]) -> None:
    """The client is gone, and every part of it."""
    while owners:
        owners.pop().meter.joining.taps -= 1


_KEPT = "_agent_meter"


def wrap(meter: Meter, client: C, ask_for_usage: bool = False, *, cap_output: int | None = None) -> C:
    """Meter every model call of one client: OpenAI's, Anthropic's, Google's, Groq's, Mistral's, Cohere's, Ollama's,
    boto3's, or a client of httpx, requests or aiohttp itself. Sync, async and streaming.

    The client itself is returned. `ask_for_usage` adds `stream_options.include_usage` to streams that do not ask, and
    takes out what comes of it. `cap_output` is the maximum put into requests that name none. `MeterError` for an
    object in which no HTTP client is found.
    """
    done = getattr(client, "__dict__", {}).get(_KEPT)
    if done is None:
        done = Wrapped()
        done.undo = list(_watch(client, done))
        if not done.undo:
            kind = type(client)
            raise MeterError(f"no HTTP client found in {kind.__module__}.{kind.__qualname__}: wrap the SDK's client")
        object.__setattr__(client, _KEPT, done)
        # Not with the client: what it has handed out, as `genai.Client().aio`, is metered for as long as it is used.
        weakref.finalize(done, _release, done.owners).atexit = False
    done.add(Owner(meter, ask_for_usage, MAKERS.get(type(client).__module__.partition(".")[0], ""), cap_output))
    return client


def unwrap(meter: Meter, client: C) -> C:
    """Meter this client no more; what is on its way ends as it began."""
    done = getattr(client, "__dict__", {}).get(_KEPT)
    if done is not None:
        done.remove(meter)
        if not done.owners:
            for step in reversed(done.undo):
                step()
            object.__delattr__(client, _KEPT)
    return client


# Whose client it is tells who answers, where the host does not.
MAKERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "groq": "groq",
    "mistralai": "mistral",
    "cohere": "cohere",
    "ollama": "ollama",
}


def _watch(client: Any, done: Wrapped) -> Iterator[Callable[[], None]]:
    for part in _parts(client):
        yield from _transports(part, done)
        frames = frames_of(part)
        if frames is None:
            continue
        names, facts = frames
        for name in names:
            yield replaced(part, name, framed(getattr(part, name), facts, done.who, part))
        if facts is stainless:
            for name in COPIES:
                if hasattr(part, name):
                    yield replaced(part, name, _copying(getattr(part, name), part))


def _copying(copy: Any, client: Any) -> Any:
    """`client.with_options(…)`: the copy is metered as its original is."""
    reference = weakref.ref(client)

    def copied(*args: Any, **kwargs: Any) -> Any:
        other = copy(*args, **kwargs)
        original = reference()
        done = None if original is None else original.__dict__.get(_KEPT)
        if done is not None:
            for owner in done.owners:
                wrap(owner.meter, other, owner.ask_for_usage, cap_output=owner.cap_output)
        return other

    return copied


def _transports(part: Any, done: Wrapped) -> Iterator[Callable[[], None]]:
    for kind in type(part).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("httpx", "httpx2") and kind.__name__ in ("BaseClient", "Client", "AsyncClient"):
            module = sys.modules[package]
            found = [part._transport, *(mounted for mounted in part._mounts.values() if mounted is not None)]
            for transport in found:
                yield from httpx_tap.tap(module, transport, done.who)
            return
        if (package, kind.__name__) == ("botocore", "URLLib3Session"):
            yield from urllib3_tap.tap_botocore(part, done.who)
            return
        if (package, kind.__name__) == ("requests", "Session"):
            for adapter in part.adapters.values():
                yield from urllib3_tap.tap_requests(adapter, done.who)
            return
        if (package, kind.__name__) == ("aiohttp", "ClientSession"):
            yield from aiohttp_tap.tap(sys.modules["aiohttp"], part, done.who)
            return
        if (package, kind.__name__) == ("google", "BaseApiClient") and hasattr(part, "_get_aiohttp_session"):
            # It makes a session of aiohttp for each event loop, when it is asked the first time.
            yield replaced(part, "_get_aiohttp_session", _later(part._get_aiohttp_session, done))


def _later(make: Any, done: Wrapped) -> Any:
    async def get() -> Any:
        session = await make()
        if _KEPT not in vars(session):
            object.__setattr__(session, _KEPT, aiohttp_tap.tap(sys.modules["aiohttp"], session, done.who))
        return session

    return get


def _parts(client: Any) -> Iterator[Any]:
    """The client, and the objects of its own package and of HTTP libraries inside it."""
    home = type(client).__module__.partition(".")[0]
    packages = {home, "httpx", "httpx2", "requests", "aiohttp", "botocore", "google"}
    seen: set[int] = set()
    level = [client]
    for _ in range(DEEPEST):
        inside: list[Any] = []
        for part in level:
            if id(part) in seen or len(seen) > MOST:
                continue
            seen.add(id(part))
            yield part
            for value in list(getattr(part, "__dict__", {}).values()):
                if isinstance(value, type) or type(value).__module__.partition(".")[0] not in packages:
                    continue
                inside.append(value)
        level = inside
