"""The one place that knows vendors' words: what a provider's answer says was used, in one reading.

`read_usage(answer)` and `read(answer)` take whatever an adapter has: the parsed body, its text or bytes (JSON,
SSE, NDJSON, AWS event stream), a list of stream events, or an SDK's object. `from_langchain` reads LangChain's
own form. None of them ever raises: what cannot be read is `missing`, and a failure of ours is counted in
`read_errors`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from agent_meter.records import TokenUsage

from . import others, shapes, streams
from .fields import CUT, MISSING_OUTPUT, UNKNOWN, Fields, Pass, ReadErrors, Reading, fields, items, read_errors, text
from .langchain import from_langchain, undouble
from .openai import hosted_fees

__all__ = [
    "Pass",
    "ReadErrors",
    "Reading",
    "from_langchain",
    "hosted_fees",
    "read",
    "read_errors",
    "read_usage",
    "undouble",
]


def read_usage(
    response: object,
    provider: str | None = None,
    *,
    api: str | None = None,
    headers: Mapping[str, object] | None = None,
) -> TokenUsage:
    """The tokens, fees and context of one answer; the parameters are those of `read`."""
    return read(response, provider, api=api, headers=headers).usage


def read(
    response: object,
    provider: str | None = None,
    *,
    api: str | None = None,
    headers: Mapping[str, object] | None = None,
) -> Reading:
    """What one answer says about itself, whoever gave it. Never raises.

    The dialect is told by its shape; `provider` and `api` ("openai.embeddings") only break ties. `headers` are
    those of the HTTP answer: Bedrock counts there when a model's own body does not.
    """
    try:
        return _read(response, provider.lower() if provider else "", api, headers)
    except Exception as error:
        read_errors.note(error)
        return Reading()


def _read(response: object, provider: str, api: str | None, headers: Mapping[str, object] | None) -> Reading:
    body: Fields = response if type(response) is dict else _body(response)
    if body is not response and (kept := body.get("usage_metadata")) and fields(kept).get("input_tokens") is not None:
        return _message(body, kept, provider)
    reading = shapes.body_of(body, provider)
    usage = reading.usage
    if body is not response and body.get(CUT) and not usage.missing:
        usage = replace(usage, missing=MISSING_OUTPUT)
    elif usage.missing == UNKNOWN.missing:
        usage = _elsewhere(body, headers) or usage
    elif usage.missing == MISSING_OUTPUT and api is not None and ("embed" in api or "rerank" in api):
        usage = replace(usage, missing=())
    if usage is not reading.usage or usage.missing or body.get("error") is not None:
        return replace(reading, usage=usage, error_type=error_of(body))
    return reading


def _body(response: object) -> Fields:
    """Whatever an adapter has, as one body."""
    if isinstance(response, (str, bytes, bytearray, memoryview)):
        response = streams.parse(response)
    if isinstance(response, (list, tuple)):
        return streams.fold(response)
    if isinstance(response, BaseException):  # an SDK's error, with the body that it was made from
        return _failed(response)
    return fields(response)


def _failed(error: BaseException) -> Fields:
    """An exception of an SDK's as the body that it was made from; any other is named after its class."""
    for name in ("body", "details", "response"):  # OpenAI and Anthropic, Google, botocore
        told = fields(getattr(error, name, None))
        inner = told.get("error") or told.get("Error")
        if inner is not None:
            return {"error": inner}
        if text(told.get("message")) and text(told.get("type") or told.get("code")):
            return {"error": told}
    return {"error": {"type": type(error).__name__}}


def _message(body: Fields, kept: Mapping[str, object], provider: str) -> Reading:
    """A LangChain message that somebody handed over whole."""
    about = body.get("response_metadata") or {}
    names = [text(fields(call).get("name")) for call in items(body.get("tool_calls"))]
    reading = from_langchain(kept, about, {}, provider or str(about.get("model_provider") or ""))
    return replace(reading, tools=tuple(name for name in names if name))


def _elsewhere(body: Fields, headers: Mapping[str, object] | None) -> TokenUsage | None:
    """Bedrock's own count of an invocation, where the model's words have none."""
    metrics = body.get("amazon-bedrock-invocationMetrics")
    if metrics is not None:
        return others.metrics_usage(fields(metrics))
    if headers is None:
        headers = fields(body.get("ResponseMetadata")).get("HTTPHeaders")
    usage = others.header_usage(fields(headers)) if headers else UNKNOWN
    return usage if usage.missing != UNKNOWN.missing else None


def error_of(body: Fields) -> str | None:
    """The provider's word for what went wrong; `None` when the body is no error."""
    error = body.get("error")
    if error is None:
        told = body.get("message") if body.get("message") is not None else body.get("detail")
        if not isinstance(told, str):
            return None
        return text(body.get("__type")) or text(body.get("code")) or "error"
    if isinstance(error, str):
        return text(body.get("code")) or text(body.get("error_type")) or "error"
    e = fields(error)
    return text(e.get("type")) or text(e.get("status")) or text(e.get("code")) or text(e.get("Code")) or "error"
