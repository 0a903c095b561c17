"""What an error says about money: was the call sent, was it answered, what was used."""

from __future__ import annotations

from collections.abc import Iterator

from .payloads import Reading, read

UNSEEN = ("it was sent and failed; whether it was answered, and billed, was not seen",)
# No connection came about. By name, for each client library has its own: httpx, aiohttp, requests and urllib3,
# botocore, the standard library.
_UNREACHED = frozenset(
    (
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "ClientConnectorError",
        "NewConnectionError",
        "MaxRetryError",
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectionRefusedError",
        "gaierror",
    )
)


def never_answered(error: BaseException) -> bool:
    """The provider refused (an HTTP error status) or could not be reached: nothing was used, nothing is billed.

    Any other error may have come after a paid answer that the client could not read, and a time-out while waiting
    says nothing about what the provider went on to do.
    """
    return any(_refused(cause) or _unreached(cause) for cause in _causes(error))


def _refused(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
        return isinstance(status, int) and status >= 400
    return any(
        isinstance(status, int) and status >= 400
        for status in (
            getattr(error, "status_code", None),
            getattr(response, "status_code", None),
            getattr(error, "code", None),
        )
    )


def unreached(error: BaseException) -> bool:
    """No connection came about: nothing was sent."""
    return any(_unreached(cause) for cause in _causes(error))


def _unreached(error: BaseException) -> bool:
    return any(kind.__name__ in _UNREACHED for kind in type(error).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):  # wrapped by the SDK, by LangChain, by httpcore
        if error is None:
            return
        yield error
        error = error.__cause__  # not the context: that may be the failure of another model


def told_by(error: BaseException) -> Reading | None:
    """The answer inside an error: OpenAI's SDK raises a paid one that ran into its length limit."""
    completion = getattr(error, "completion", None)
    if completion is None:
        return None
    reading = read(completion)
    return None if reading.usage.missing else reading
