"""One call of an SDK's client: however often it asks again, it is one call, and may be refused before the first time.

A refusal must come before the client's own loop of attempts, which takes any exception for a reason to try again. The
loop is one method of each client; an own call is opened in front of it, and each attempt is joined to that call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from ... import joining
from ...errors import BudgetExceeded
from .asking import Asked, asked, asked_by
from .endpoints import Endpoint, endpoint_of
from .limits import capped
from .taps import Own, Owner, aopen_own, complain_to, fitting, installed, open_own, wanting


class Request(NamedTuple):
    """What a client is about to ask for. `body` is a mapping, or bytes."""

    host: str
    path: str
    body: Any
    provider: str = ""


Facts = Callable[[Any, Sequence[Any], dict[str, Any]], Request | None]


def framed(original: Any, facts: Facts, owners: Callable[[], Sequence[Owner]], bound_to: Any = None) -> Any:
    """`original` with one call around it where nobody has announced one. `bound_to`: it is a method of this object."""

    if iscoroutinefunction(original):

        @wraps(original)
        async def operation(*args: Any, **kwargs: Any) -> Any:
            opened = await _aenter(facts, owners(), bound_to, args, kwargs)
            if not opened:
                return await original(*args, **kwargs)
            try:
                answer = await original(*args, **kwargs)
            except BaseException as error:
                _failed(opened, error)
                raise
            _returned(opened, answer)
            return answer

    else:

        @wraps(original)
        def operation(*args: Any, **kwargs: Any) -> Any:
            opened = _enter(facts, owners(), bound_to, args, kwargs)
            if not opened:
                return original(*args, **kwargs)
            try:
                answer = original(*args, **kwargs)
            except BaseException as error:
                _failed(opened, error)
                raise
            _returned(opened, answer)
            return answer

    return operation


def _enter(
    facts: Facts, owners: Sequence[Owner], bound_to: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> list[Own]:
    """The calls that are to be opened for it; none where somebody has announced one, or nobody wants to know."""
    if not owners and not installed:
        return []
    try:
        found = _asked(facts, owners, bound_to, args, kwargs)
        return [] if found is None else open_own(wanting(owners), *found)
    except BudgetExceeded:
        raise
    except Exception as error:
        complain_to(owners, "operation", error)
        return []


async def _aenter(
    facts: Facts, owners: Sequence[Owner], bound_to: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> list[Own]:
    if not owners and not installed:
        return []
    try:
        found = _asked(facts, owners, bound_to, args, kwargs)
        return [] if found is None else await aopen_own(wanting(owners), *found)
    except BudgetExceeded:
        raise
    except Exception as error:
        complain_to(owners, "operation", error)
        return []


def _asked(
    facts: Facts, owners: Sequence[Owner], bound_to: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Endpoint, Asked, Any] | None:
    if bound_to is None:
        bound_to, args = args[0], args[1:]
    request = facts(bound_to, args, kwargs)
    if request is None:
        return None
    endpoint = endpoint_of(request.host, request.path)
    if endpoint is None:
        return None
    body = request.body
    told = asked_by(body) if isinstance(body, dict) else asked(body)
    if joining.waiting(fitting(endpoint, told.model, request.host)):
        return None
    if facts is stainless and (limited := capped(body, endpoint, told.max_output, owners)) is not None:
        options = kwargs["options"] if "options" in kwargs else args[1]
        options.json_data = body = limited
        told = asked_by(body)
    if request.provider and not endpoint.provider:
        endpoint = endpoint._replace(provider=request.provider)
    return endpoint, told, body


def _failed(opened: list[Own], error: BaseException) -> None:
    for own in opened:
        own.fenced(own.failed, error)


def _returned(opened: list[Own], answer: Any) -> None:
    for own in opened:
        own.fenced(own.returned, answer)


# ----------------------------------------------------------------------------------------------------- the clients


def stainless(client: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Request | None:
    """OpenAI, Anthropic, Groq, and all whose clients are generated alike: `request(cast_to, options, …)`."""
    options = kwargs["options"] if "options" in kwargs else args[1]
    if options.method.lower() != "post":
        return None
    host, root = address(client.base_url)
    path = str(options.url)
    if "://" in path:
        url = urlsplit(path)
        host, root, path = url.netloc, "", url.path
    return Request(
        host,
        root.rstrip("/") + "/" + path.lstrip("/"),
        options.json_data,
        _makers.get(type(client)) or _maker(type(client)),
    )


def address(url: Any) -> tuple[str, str]:
    """Host and path of an URL of httpx or httpx2."""
    try:
        reference = url._uri_reference  # four times as fast as the properties, and every request is asked
        return reference.host, reference.path
    except AttributeError:
        return url.host, url.path


_makers: dict[type[Any], str] = {}


def _maker(client: type[Any]) -> str:
    """Whose client it is, where the host does not tell who answers."""
    found = _makers[client] = _named(client)
    return found


def _named(client: type[Any]) -> str:
    for kind in client.__mro__:
        if "Azure" in kind.__name__:
            return "azure"
        if "Bedrock" in kind.__name__:
            return "aws"
        if "Vertex" in kind.__name__:
            return "google"
    package = client.__module__.partition(".")[0]
    return package if package in ("openai", "anthropic", "groq", "cerebras", "together") else ""


def google(client: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Request | None:
    """`BaseApiClient._request(http_request, …)`, which has the loop of attempts."""
    request = kwargs["http_request"] if "http_request" in kwargs else args[0]
    if request.method.lower() != "post":
        return None
    url = urlsplit(request.url)
    return Request(url.netloc, url.path, request.data, "google")


def cohere(client: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Request | None:
    """`HttpClient.request(path, method=…, json=…)`."""
    if str(kwargs.get("method", "")).lower() != "post":
        return None
    path = kwargs["path"] if "path" in kwargs else args[0] if args else ""
    base = kwargs.get("base_url") or (client.base_url() if callable(client.base_url) else client.base_url)
    url = urlsplit(f"{str(base or '').rstrip('/')}/{str(path or '').lstrip('/')}")
    return Request(url.netloc, url.path, kwargs.get("json"), "cohere")


_BEDROCK = {
    "Converse": "converse",
    "ConverseStream": "converse-stream",
    "InvokeModel": "invoke",
    "InvokeModelWithResponseStream": "invoke-with-response-stream",
}


def bedrock(client: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Request | None:
    """`BaseClient._make_api_call(operation_name, api_params)` of a boto3 client."""
    operation = kwargs["operation_name"] if "operation_name" in kwargs else args[0]
    if operation not in _BEDROCK or client.meta.service_model.service_name != "bedrock-runtime":
        return None
    params = kwargs["api_params"] if "api_params" in kwargs else args[1]
    model = str(params.get("modelId") or "")
    body = params.get("body") if operation.startswith("Invoke") else params
    if not isinstance(body, (bytes, str, dict)):
        body = None
    path = f"/model/{quote(model, safe='')}/{_BEDROCK[operation]}"
    return Request(urlsplit(client.meta.endpoint_url).netloc, path, body, "aws")


# Module, and in it: classes and the methods that hold the loop.
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Facts]] = {
    "openai._base_client": (("SyncAPIClient", "AsyncAPIClient"), ("request",), stainless),
    "anthropic._base_client": (("SyncAPIClient", "AsyncAPIClient"), ("request",), stainless),
    "groq._base_client": (("SyncAPIClient", "AsyncAPIClient"), ("request",), stainless),
    "together._base_client": (("SyncAPIClient", "AsyncAPIClient"), ("request",), stainless),
    "cerebras.cloud.sdk._base_client": (("SyncAPIClient", "AsyncAPIClient"), ("request",), stainless),
    "google.genai._api_client": (("BaseApiClient",), ("_request", "_async_request"), google),
    "cohere.core.http_client": (("HttpClient", "AsyncHttpClient"), ("request",), cohere),
    "botocore.client": (("BaseClient",), ("_make_api_call",), bedrock),
}


def _nobody() -> Sequence[Owner]:
    return ()


def patch(module: ModuleType) -> list[Callable[[], None]]:
    """Put one call around each call of this module's clients; the answers undo it."""
    classes, methods, facts = MODULES[module.__name__]
    return [
        replaced(getattr(module, name), method, framed(getattr(module, name).__dict__[method], facts, _nobody))
        for name in classes
        for method in methods
        if method in vars(getattr(module, name, object))
    ]


def replaced(owner: Any, name: str, ours: Any) -> Callable[[], None]:
    """Put `ours` in the place of an attribute; the answer puts things back, where nobody has patched it after us."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    put = setattr if isinstance(owner, type) else object.__setattr__  # some clients watch what is set on them
    put(owner, name, ours)

    def undo() -> None:
        if vars(owner).get(name) is not ours:
            return
        if had:
            put(owner, name, before)
        elif isinstance(owner, type):
            delattr(owner, name)
        else:
            object.__delattr__(owner, name)

    return undo


def frames_of(client: Any) -> tuple[tuple[str, ...], Facts] | None:
    """The methods of a client object that hold its loop of attempts."""
    for kind in type(client).__mro__:
        known = MODULES.get(kind.__module__)
        if known is not None and kind.__name__ in known[0]:
            return tuple(name for name in known[1] if hasattr(client, name)), known[2]
    return None
