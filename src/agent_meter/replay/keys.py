"""Keys: the same for requests that must have the same answer, another one for all others.

A request is written out so that nothing can be taken for something else (each string has its length before it, each
kind of value its letter), and hashed. What a value says is in the key, how it is spelt is not: the order of a
mapping, a list or a tuple, 0 or 0.0.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any
from uuid import UUID

PREFIX = "agent_meter:"
# What SDKs put where an argument was not given.
_ABSENT = frozenset(("NotGiven", "Omit", "NotGivenOr"))


def key_of(*values: object) -> str:
    """A key for these values. `TypeError` for one of which it is not known what of it changes the answer."""
    parts: list[str] = []
    try:
        for value in values:
            _write(value, parts)
    except (RecursionError, ValueError) as error:  # a value that contains itself; an integer of 5,000 digits
        raise TypeError(f"this cannot be part of a cache key: {error}") from None
    return PREFIX + sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


class CacheKeyBuilder:
    """Keys for requests to models, from everything that changes the answer."""

    @staticmethod
    def build(
        *,
        model: str,
        system_prompt: Any = "",
        messages: Any = (),
        tools: Any = None,
        temperature: float | None = 0.0,
        response_format: Any = None,
        provider: str = "",
        endpoint: str = "",
        **parameters: Any,
    ) -> str:
        """A key; a parameter that is `None` counts as not given.

        Messages are taken whole: roles, texts, images, tool calls with their arguments and ids, names. Tools may be
        schemas, functions, or objects with a name, a description and parameters. `TypeError` for what cannot be read.
        """
        request = {
            "model": model,
            "provider": provider,
            "endpoint": endpoint,
            "system_prompt": system_prompt,
            "messages": messages,
            "tools": tools_of(tools),
            "temperature": temperature,
            "response_format": response_format,
            "parameters": {name: value for name, value in parameters.items() if value is not None},
        }
        return key_of(request)


def is_absent(value: object) -> bool:
    """An SDK's word for an argument that was not given."""
    return type(value).__name__ in _ABSENT


def tools_of(tools: Any) -> Any:
    """Tools as what the model is told of them, where they are objects that cannot be read field by field."""
    if not isinstance(tools, (list, tuple)):
        return tools
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> Any:
    name, description = getattr(tool, "name", None), getattr(tool, "description", None)
    if isinstance(tool, Mapping) or not isinstance(name, str) or not isinstance(description, str):
        return tool
    for told in ("args_schema", "input_schema", "parameters", "params_json_schema", "args"):
        schema = getattr(tool, told, None)
        if schema is not None and not callable(getattr(schema, "__func__", None)):
            return ["tool", name, description, schema]
    return tool


# ------------------------------------------------------------------------------------------------- writing


def _write(value: Any, out: list[str]) -> None:
    writer = _WRITERS.get(type(value))
    if writer is not None:
        writer(value, out)
    else:
        _write_other(value, out)


def _text(letter: str, text: str, out: list[str]) -> None:
    out.append(f"{letter}{len(text)}:{text}")


def _string(value: str, out: list[str]) -> None:
    out.append(f"s{len(value)}:{value}")


def _number(value: float, out: list[str]) -> None:
    out.append(f"i{int(value)};" if value.is_integer() else f"d{value!r};")


def _decimal(value: Decimal, out: list[str]) -> None:
    if value.is_finite():
        number = float(value)
        if Decimal(repr(number)) == value:
            return _number(number, out)
        return _text("D", str(value.normalize()), out)
    return _text("d", str(value), out)


def _list(values: Any, out: list[str]) -> None:
    out.append("l")
    for value in values:
        _write(value, out)
    out.append("e")


def _mapping(values: Any, out: list[str]) -> None:
    out.append("m")
    pairs = []
    for name, value in values.items():
        if type(value).__name__ in _ABSENT:
            continue
        pair: list[str] = []
        _write(name, pair)
        pairs.append(("".join(pair), value))
    pairs.sort(key=lambda pair: pair[0])
    for written, value in pairs:
        out.append(written)
        _write(value, out)
    out.append("e")


def _set(values: Any, out: list[str]) -> None:
    written = []
    for value in values:
        parts: list[str] = []
        _write(value, parts)
        written.append("".join(parts))
    out.extend(("S", *sorted(written), "e"))


_WRITERS: dict[type, Callable[[Any, list[str]], None]] = {
    str: _string,
    int: lambda value, out: out.append(f"i{value};"),
    bool: lambda value, out: out.append("T" if value else "F"),
    type(None): lambda value, out: out.append("n"),
    float: _number,
    list: _list,
    tuple: _list,
    dict: _mapping,
    bytes: lambda value, out: _text("b", value.hex(), out),
    bytearray: lambda value, out: _text("b", value.hex(), out),
    memoryview: lambda value, out: _text("b", value.hex(), out),
    Decimal: _decimal,
    datetime: lambda value, out: _text("t", value.isoformat(), out),
    date: lambda value, out: _text("t", value.isoformat(), out),
    time: lambda value, out: _text("t", value.isoformat(), out),
    timedelta: lambda value, out: _text("t", repr(value), out),
    UUID: lambda value, out: _text("s", str(value), out),
    set: _set,
    frozenset: _set,
}


def _write_other(value: Any, out: list[str]) -> None:
    """What is not one of the plain types itself: kinds of them, and objects that can be read field by field."""
    if isinstance(value, Enum):
        return _write(value.value, out)
    if isinstance(value, type):
        return _class(value, out)
    fields = _fields(value)
    if fields is not None:
        _text("o", type(value).__qualname__, out)
        return _mapping(fields, out)
    for plain in (str, int, float, bytes, Decimal, datetime, date):
        if isinstance(value, plain):
            return _WRITERS[plain](plain.__str__(value) if plain is str else value, out)
    if isinstance(value, Mapping):
        return _mapping(value, out)
    if isinstance(value, (list, tuple)):
        return _list(value, out)
    if isinstance(value, AbstractSet):
        return _set(value, out)
    if isinstance(value, PurePath):
        return _text("p", str(value), out)
    if isinstance(value, functools.partial):
        out.append("P")
        return _list([value.func, value.args, value.keywords], out)
    if inspect.isroutine(value):
        return _function(value, out)
    if is_absent(value):
        return out.append("a")
    if hasattr(value, "tobytes") and hasattr(value, "dtype") and hasattr(value, "shape"):  # an array of numbers
        return _list(["array", str(value.dtype), value.shape, value.tobytes()], out)
    raise TypeError(
        f"{type(value).__name__} cannot be part of a cache key: it is not known what of it changes the answer"
    )


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The fields of a pydantic model, a dataclass, a msgspec or an attrs object."""
    kind = type(value)
    if hasattr(kind, "__pydantic_fields__"):
        extra = getattr(value, "__pydantic_extra__", None)
        return {**value.__dict__, **extra} if extra else value.__dict__
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    names = getattr(kind, "__struct_fields__", None)
    if names is None and hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    return None if names is None else {name: getattr(value, name) for name in names}


def _class(kind: type, out: list[str]) -> None:
    """A class, such as a response format: its name, and what it asks for."""
    _text("c", f"{kind.__module__}.{kind.__qualname__}", out)
    schema = getattr(kind, "model_json_schema", None)
    if schema is not None:
        return _mapping(schema(), out)
    if issubclass(kind, Enum):
        return _mapping({member.name: member.value for member in kind}, out)
    return _mapping({name: str(hint) for name, hint in getattr(kind, "__annotations__", {}).items()}, out)


def _function(function: Any, out: list[str]) -> None:
    """A tool that is a function: its name, its signature and its words, which is what a model is told."""
    try:
        signature = str(inspect.signature(function))
    except (TypeError, ValueError):  # some functions written in C have none
        signature = ""
    _list(["function", name_of(function), signature, inspect.getdoc(function) or ""], out)


def name_of(function: Any) -> str:
    kind = type(function)
    module = getattr(function, "__module__", None) or kind.__module__
    return f"{module}.{getattr(function, '__qualname__', None) or kind.__qualname__}"
