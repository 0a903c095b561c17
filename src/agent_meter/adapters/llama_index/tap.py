"""A client that lets every call through, is asked before it, and tells of the answer.

For embeddings and rerankers, whose integrations throw away what the provider said was used. It stands on the
integration's own object in the place of its client, until the meter is unregistered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from .touched import Touched

# Where clients have the methods that are listened to: on themselves, or below one of these.
_BRANCHES = frozenset(("embeddings", "models", "aio", "v2", "inference"))
_METHODS = frozenset(("create", "create_async", "embed", "embed_content", "rerank", "embed_async", "rerank_async"))
_CLIENTS = ("_client", "_aclient", "_async_client", "client", "async_client", "aclient")
_MAKERS = ("_get_client", "_get_aclient", "_get_async_client")

# Those who are asked and told. Replaced as a whole, so that they can be read without a lock.
ears: tuple[Ear, ...] = ()
_tapped = Touched()


class Ear:
    """Somebody who is asked before a request, and told of its answer."""

    def before(self) -> Any:
        """What `after` is to be told with; raises `BudgetExceeded` to refuse."""

    def after(self, about: Any, answer: Any) -> None: ...


def _inner(client: Any) -> Any:
    return client


class Tap:
    """Stands for `client`. Equal to it in every use but `type()`."""

    __slots__ = ("__weakref__", "_tapped_client")

    def __init__(self, client: Any) -> None:
        object.__setattr__(self, "_tapped_client", client)

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:
            return type(object.__getattribute__(self, "_tapped_client"))

    def __getattr__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "_tapped_client"), name)
        if name in _BRANCHES and value is not None and not callable(value):
            return Tap(value)
        if name in _METHODS and callable(value):
            return _heard(value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_tapped_client"), name, value)

    def __enter__(self) -> Any:
        object.__getattribute__(self, "_tapped_client").__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return object.__getattribute__(self, "_tapped_client").__exit__(*error)

    async def __aenter__(self) -> Any:
        await object.__getattribute__(self, "_tapped_client").__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await object.__getattribute__(self, "_tapped_client").__aexit__(*error)

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_tapped_client"))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _inner, (object.__getattribute__(self, "_tapped_client"),)


def _heard(method: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*args: Any, **kwargs: Any) -> Any:
        asked = [(ear, ear.before()) for ear in ears]
        answer = method(*args, **kwargs)
        if isawaitable(answer):
            return _awaited(answer, asked)
        for ear, about in asked:
            ear.after(about, answer)
        return answer

    return ask


async def _awaited(answer: Any, asked: list[tuple[Ear, Any]]) -> Any:
    answer = await answer
    for ear, about in asked:
        ear.after(about, answer)
    return answer


def attach(instance: Any) -> None:
    """Listen to the client of an integration's object, if it has one that can be listened to."""
    for name in _CLIENTS:
        client = _own(instance, name)
        if client is None or type(client) is Tap or not _talks(client):
            continue
        with suppress(AttributeError, TypeError, ValueError):
            setattr(instance, name, Tap(client))
            _tapped.add(instance)


def make_clients(instance: Any, *, asynchronous: bool) -> None:
    """Let an integration that makes its client with the first call make it now, so that the first call is heard."""
    if getattr(instance, "reuse_client", True) is False:
        return  # a new one for every call
    for maker in _MAKERS:
        if (maker != "_get_client") is asynchronous and callable(make := getattr(instance, maker, None)):
            with suppress(Exception):  # what is wrong with it, the call itself will say
                make()


def _own(instance: Any, name: str) -> Any:
    private = getattr(instance, "__pydantic_private__", None)
    if private is not None and name in private:
        return private[name]
    return getattr(instance, "__dict__", {}).get(name)


def _talks(client: Any) -> bool:
    """Whether it has a method that is listened to."""
    for owner in (client, getattr(client, "embeddings", None), getattr(client, "models", None)):
        if owner is not None and any(callable(getattr(owner, name, None)) for name in _METHODS):
            return True
    return False


def detach_all() -> None:
    """Give every integration its own client back."""
    for instance, _ in _tapped.take():
        for name in _CLIENTS:
            client = _own(instance, name)
            if type(client) is Tap:
                with suppress(AttributeError, TypeError, ValueError):
                    setattr(instance, name, object.__getattribute__(client, "_tapped_client"))
