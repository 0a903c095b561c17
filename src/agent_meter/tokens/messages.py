"""What a message says, whatever its shape: a dict of any vendor, a LangChain or LlamaIndex object, a tuple, a str."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ROLES = {"human": "user", "ai": "assistant"}  # LangChain's words
_DEPTH = 16  # content nested deeper than this is not a message

_IMAGES = frozenset({"image", "image_url", "input_image"})
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "functionCall", "toolUse", "server_tool_use"})
_RESULTS = frozenset(
    {"tool_result", "function_call_output", "functionResponse", "toolResult", "web_search_tool_result"}
)
_UNCOUNTED = frozenset({"reasoning", "thinking", "redacted_thinking", "compaction"})
_NOTHING = frozenset({"cachePoint", "cache", "cache_control"})  # marks, no content
# Parts without a type of their own name it by their key: Gemini's and Bedrock's way.
_BY_KEY = ("functionCall", "functionResponse", "toolUse", "toolResult", "image", "inlineData", "inline_data")
_TEXT_KEYS = ("text", "refusal", "content", "parts", "output", "summary", "json")


def get(thing: Any, key: str) -> Any:
    """A key of a dict or an attribute of an object; `None` when there is none, or when it cannot be read."""
    try:
        return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, key, None)
    except Exception:  # a property of somebody's object
        return None


class Parts:
    """The countable parts of one message: texts, images, the number of tool calls, and what was left out."""

    __slots__ = ("calls", "images", "name", "role", "texts", "uncounted")

    def __init__(self) -> None:
        self.role = "user"
        self.name = ""
        self.texts: list[str] = []
        self.images: list[Any] = []
        self.calls = 0
        self.uncounted: list[str] = []


def parts_of(message: Any) -> Parts:
    """Reads one message; never raises for what it does not know, it lists it in `uncounted`."""
    parts = Parts()
    if message is None:
        return parts
    if isinstance(message, str):
        parts.texts.append(message)
        return parts
    if isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], str):
        parts.role, message = _role(message[0]), {"content": message[1]}
    else:
        parts.role = _role(get(message, "role") or get(message, "type"))
    name = get(message, "name")
    if isinstance(name, str) and parts.role != "tool":
        parts.name = name
    calls = get(message, "tool_calls") or _nested(message, "additional_kwargs", "tool_calls")
    has_calls = isinstance(calls, Iterable) and not isinstance(calls, (str, bytes, Mapping))
    if has_calls:
        for call in calls:
            _call(get(call, "function") or call, parts)
    if (call := get(message, "function_call")) is not None:
        _call(call, parts)
    kind = str(get(message, "type"))
    if kind in _CALLS or kind in _RESULTS or kind in _UNCOUNTED:  # an item of OpenAI's Responses API
        parts.role, parts.name = ("tool" if kind in _RESULTS else "assistant"), ""
        _part(message, parts, 0, has_calls)
        return parts
    for key in ("blocks", "content", "parts", "refusal"):
        if (content := get(message, key)) is not None:
            _walk(content, parts, 0, has_calls)
            break
    return parts


def _role(value: Any) -> str:
    text = str(getattr(value, "value", value) or "user")  # LlamaIndex has an enum
    text = text.removesuffix("MessageChunk").lower()
    return _ROLES.get(text, text)


def _nested(message: Any, key: str, inner: str) -> Any:
    outer = get(message, key)
    return outer.get(inner) if isinstance(outer, Mapping) else None


def _walk(content: Any, parts: Parts, depth: int, has_calls: bool) -> None:
    if content is None:
        return
    if isinstance(content, str):
        parts.texts.append(content)
    elif isinstance(content, (bytes, bytearray)) or depth > _DEPTH:
        parts.uncounted.append("bytes" if depth <= _DEPTH else "nested")
    elif isinstance(content, (list, tuple)):
        for item in content:
            _walk(item, parts, depth + 1, has_calls)
    else:
        _part(content, parts, depth + 1, has_calls)


def _part(part: Any, parts: Parts, depth: int, has_calls: bool) -> None:
    kind = get(part, "type") or get(part, "block_type")
    if not isinstance(kind, str):
        kind = next((key for key in _BY_KEY if get(part, key) is not None), "")
    inner = get(part, kind) if kind in _BY_KEY else None
    inner = part if inner is None else inner
    if kind in _UNCOUNTED:
        parts.uncounted.append(kind)
    elif kind in _IMAGES or str(get(inner, "mimeType") or get(inner, "mime_type") or "").startswith("image/"):
        parts.images.append(part)
    elif kind in _CALLS:
        if not has_calls:  # LangChain repeats a vendor's tool blocks in `tool_calls`
            _call(inner, parts)
    elif kind in _RESULTS:
        for key in ("content", "output", "response"):
            if (content := get(inner, key)) is not None:
                if isinstance(content, Mapping):
                    parts.texts.append(_json(content))
                else:
                    _walk(content, parts, depth, has_calls)
                break
    else:
        for key in _TEXT_KEYS:
            content = get(part, key)
            if key == "json" and isinstance(part, Mapping) and content is not None:
                parts.texts.append(_json(content))
                return
            if isinstance(content, (str, list, tuple)):
                _walk(content, parts, depth, has_calls)
                return
        first = next(iter(part), "") if isinstance(part, Mapping) else type(part).__name__
        if (kind := kind or str(first)) not in _NOTHING:
            parts.uncounted.append(kind)


def _call(call: Any, parts: Parts) -> None:
    parts.calls += 1
    name = get(call, "name") or get(call, "tool_name")
    if isinstance(name, str):
        parts.texts.append(name)
    for key in ("arguments", "args", "input", "tool_kwargs"):
        arguments = get(call, key)
        if isinstance(arguments, str):
            parts.texts.append(arguments)
            return
        if arguments is not None:
            parts.texts.append(_json(arguments))
            return


def _json(value: Any) -> str:
    import json

    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return ""
