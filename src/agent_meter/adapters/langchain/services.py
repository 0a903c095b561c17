"""Calls to a service that LangChain tells nobody of: embeddings and rerankers.

Their wrappers drop what the provider said was used. For the length of one call a copy of the wrapper gets a client
that listens; the wrapper itself stays as it is, so that calls at the same time do not hear each other's answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import reduce
from inspect import isawaitable
from operator import add
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter, default_meter
from ...records import Call, Kind, Model, Status, TokenUsage
from ..failing import UNSEEN, never_answered
from ..payloads import read
from ..payloads.fields import UNKNOWN, number
from .ambient import ambient
from .fence import denial_for_langchain
from .flights import FRAMEWORK

Inner = TypeVar("Inner")
GUESSED = "the client does not tell what was used; it is estimated"
_CLIENTS = ("client", "async_client", "aclient", "_client", "_async_client", "_aclient")


class Service(ABC, Generic[Inner]):
    """One call: open inside the `with`, closed with what was heard. `with` gives the wrapper to call.

    Nothing that goes wrong in here reaches the user's run, except a denial.
    """

    kind: ClassVar[Kind]
    api: ClassVar[str]  # as `payloads.read` wants it
    methods: ClassVar[tuple[str, ...]]  # of the client, whose answers tell what was used

    def __init__(self, inner: Inner, model: Model, meter: Meter | None, callbacks: Any = None) -> None:
        self._inner = inner
        self._model = model
        self._meter = meter
        self._callbacks = callbacks
        self._call: Call | None = None
        self._heard: list[TokenUsage | None] = []  # one entry a request; None for an answer without usage
        self._response_model: str | None = None

    @abstractmethod
    def prepare(self, call: Call, meter: Meter) -> None:
        """Say more about the call before it is opened."""

    @abstractmethod
    def tells(self, usage: TokenUsage) -> bool:
        """Whether an answer says what was used."""

    @abstractmethod
    def guess(self) -> TokenUsage:
        """What the call used, as far as it can be told from what was asked."""

    def __enter__(self) -> Inner:
        try:
            around = ambient(self._meter, self._callbacks)
            meter = self._meter = around.meter
            call = around.call(self.kind, self._model)
            self.prepare(call, meter)
            meter.open(call)
            self._call = call
            return self._listening()
        except BudgetExceeded as error:
            raise denial_for_langchain(error.denial) from None
        except Exception as error:
            self._failed(error)
            return self._inner

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is None or self._meter is None:
            return
        usage: TokenUsage | None = None
        notes: tuple[str, ...] = ()
        try:
            usage, notes = self._used(error)
        except Exception as failure:
            self._failed(failure)
        self._call.error = error
        self._meter.close(
            self._call,
            usage,
            status=status_of(error),
            error_type=None if error is None else type(error).__name__,
            response_model=self._response_model,
            estimated=error is not None and bool(notes),
            notes=notes,
        )

    def _used(self, error: BaseException | None) -> tuple[TokenUsage | None, tuple[str, ...]]:
        heard = [usage for usage in self._heard if usage is not None]
        usage = reduce(add, heard) if heard else None
        if error is None:
            if usage is None or len(heard) < len(self._heard):
                return self.guess(), (GUESSED,)
            return usage, ()
        if status_of(error) is Status.ERROR and never_answered(error):
            return usage, ()  # of the requests before the one that failed
        return usage, UNSEEN

    def _failed(self, error: Exception) -> None:
        plugins = (self._meter or default_meter()).plugins
        plugins.failed(FRAMEWORK, str(self.kind), error)
        if plugins.strict:
            raise error

    # ----------------------------------------------------------------------------------------- listening

    def _listening(self) -> Inner:
        """A copy of the wrapper whose clients tell what they are answered; the wrapper itself if it has none."""
        copy = getattr(self._inner, "model_copy", None)
        if copy is None:
            return self._inner
        taps = {}
        for name in _CLIENTS:
            client = getattr(self._inner, name, None)
            if any(callable(getattr(client, method, None)) for method in self.methods):
                taps[name] = _Tap(client, self.methods, self._hear)
        if not taps:
            return self._inner
        listening: Inner = copy(update={name: tap for name, tap in taps.items() if name[0] != "_"})
        for name, tap in taps.items():
            if name[0] == "_":
                setattr(listening, name, tap)
        return listening

    def _hear(self, response: object) -> None:
        try:
            reading = read(response, self._model.provider, api=self.api)
            self._response_model = reading.response_model or self._response_model
            usage = reading.usage
            if usage.missing == UNKNOWN.missing and (total := number(getattr(response, "total_tokens", None))):
                usage = TokenUsage(total)  # Voyage's own objects; there is no output
            self._heard.append(usage if self.tells(usage) else None)
        except Exception as error:
            self._failed(error)


class _Tap:
    """A client that lets every call through, and tells of the answers to some of them."""

    def __init__(self, client: Any, methods: tuple[str, ...], hear: Callable[[object], None]) -> None:
        self._client = client
        self._methods = methods
        self._hear = hear

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if name not in self._methods:
            return value

        def asked(*args: Any, **kwargs: Any) -> Any:
            answer = value(*args, **kwargs)
            if isawaitable(answer):
                return self._awaited(answer)
            self._hear(answer)
            return answer

        return asked

    async def _awaited(self, answer: Any) -> Any:
        answer = await answer
        self._hear(answer)
        return answer


# ------------------------------------------------------------------------------------------------ whose it is

_NAMES = ("model", "model_name", "model_id", "deployment", "azure_deployment", "repo_id")
_ENDPOINTS = ("openai_api_base", "azure_endpoint", "base_url", "endpoint_url", "endpoint")
_PROVIDERS = {"aws": "amazon_bedrock"}
_NOBODYS = frozenset(("langchain_core", "langchain_community", "langchain_classic", "langchain_experimental"))


def model_of(inner: object, model: str | None, provider: str | None) -> Model:
    """The model behind a wrapper: as the user says, else by its attributes and the package that it comes from."""
    name = model or next((value for key in _NAMES if (value := _text(inner, key))), "")
    endpoint = next((value for key in _ENDPOINTS if (value := _text(inner, key))), "")
    return Model(provider or _provider(type(inner)), name, endpoint)


def _text(inner: object, name: str) -> str:
    value = getattr(inner, name, None)
    return value if isinstance(value, str) else ""


def _provider(kind: type) -> str:
    """`langchain_mistralai` is Mistral's; where a package is nobody's, the class names the provider."""
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if package.startswith("langchain_") and package not in _NOBODYS:
            if base.__name__.startswith("Azure"):
                return "azure"
            name = package.removeprefix("langchain_")
            return _PROVIDERS.get(name, name)
    name = kind.__name__
    for ending in ("Embeddings", "Embedding", "Reranker", "Rerank", "Compressor"):
        name = name.removesuffix(ending)
    return (name or kind.__name__).lower()
