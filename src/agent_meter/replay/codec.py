"""Answers as text and back, without pickle: reading a file never runs code of the file's choice.

What can be written: `None`, booleans, numbers, strings, lists, tuples, sets, mappings, bytes, dates and times,
`timedelta`, `Decimal`, `UUID`, `TokenUsage`, `UsageRecord`, enums, dataclasses, and pydantic models, which is what SDKs
answer with. What would not come back as it was is refused when it is written. A class is looked up among the modules
that the program has imported, and nowhere else; a dataclass is filled in without its constructor.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from ..records import EMPTY, FrozenMap, TokenUsage, UsageRecord

TAG = "$"  # a mapping with this key is not a mapping, but a value of the type that it names
_PLAIN = frozenset((str, bool, int, type(None)))


class Unreadable(ValueError):
    """Written by another version, or a class that this program does not know."""


def dumps(value: Any) -> str:
    """`TypeError` for what cannot be written, or would not come back as it was."""
    text = _text(value)
    try:
        again = loads(text)
        same = type(again) is type(value) and _text(again) == text
    except Unreadable as error:
        raise TypeError(f"an answer of type {type(value).__name__} cannot be kept in a file: {error}") from None
    if not same:
        raise TypeError(f"an answer of type {type(value).__name__} would come back from a file as something else")
    return text


def loads(text: str) -> Any:
    try:
        return _read(json.loads(text))
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def dump_records(records: tuple[UsageRecord, ...]) -> str:
    """Without whose calls they were: who asks again is somebody else."""
    return json.dumps([_record(record) for record in records])


def load_records(text: str) -> tuple[UsageRecord, ...]:
    try:
        return tuple(_frozen(msgspec.convert(record, UsageRecord, strict=False)) for record in json.loads(text))
    except (ValueError, TypeError) as error:
        raise Unreadable(str(error)) from error


# ------------------------------------------------------------------------------------------------- writing


def _text(value: Any) -> str:
    return json.dumps(_write(value), ensure_ascii=True, separators=(",", ":"))


def _write(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN or kind is float:
        return value
    if kind is list:
        return [_write(item) for item in value]
    if kind is dict:
        if TAG not in value and all(type(name) is str for name in value):
            return {name: _write(item) for name, item in value.items()}
        return {TAG: "dict", "v": [[_write(name), _write(item)] for name, item in value.items()]}
    writer = _WRITERS.get(kind)
    if writer is not None:
        name, write = writer
        return {TAG: name, "v": write(value)}
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _class(name) is kind:
        if hasattr(kind, "__pydantic_fields__"):
            return {TAG: "model", "t": name, "v": _write(_fields(value))}
        if isinstance(value, Enum):
            return {TAG: "enum", "t": name, "v": _write(value.value)}
        if dataclasses.is_dataclass(kind):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
            return {TAG: "dataclass", "t": name, "v": _write(fields)}
    raise TypeError(f"an answer of type {kind.__name__} cannot be kept in a file")


def _fields(model: Any) -> dict[str, Any]:
    fields: dict[str, Any] = model.model_dump(by_alias=True, exclude_unset=True, warnings=False)
    return fields


def _record(record: UsageRecord) -> Any:
    nobody = msgspec.structs.replace(
        record, run_id=None, parent_id=None, agent="", task="", user="", session="", step="", tags=EMPTY, corrects=None
    )
    return msgspec.to_builtins(nobody, builtin_types=())


def _sorted(values: Any) -> list[Any]:
    return sorted((_write(item) for item in values), key=lambda item: json.dumps(item, sort_keys=True))


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    tuple: ("tuple", lambda value: [_write(item) for item in value]),
    set: ("set", _sorted),
    frozenset: ("frozenset", _sorted),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("Decimal", str),
    UUID: ("UUID", str),
    TokenUsage: ("TokenUsage", lambda value: msgspec.to_builtins(value, builtin_types=())),
    UsageRecord: ("UsageRecord", lambda value: msgspec.to_builtins(value, builtin_types=())),
}


# ------------------------------------------------------------------------------------------------- reading


def _read(value: Any) -> Any:
    if type(value) is list:
        return [_read(item) for item in value]
    if type(value) is not dict:
        return value
    name = value.get(TAG)
    if name is None:
        return {key: _read(item) for key, item in value.items()}
    maker = _MAKERS.get(name)
    if maker is not None:
        kind = _class(str(value["t"]))
        if kind is None:
            raise Unreadable(f"no module of this program has a class {value['t']!r}")
        return maker(kind, _read(value["v"]))
    reader = _READERS.get(name)
    if reader is None:
        raise Unreadable(f"a value of an unknown type {name!r}")
    return reader(value["v"])


def _model(kind: Any, fields: dict[str, Any]) -> Any:
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if base is None or not issubclass(kind, base):
        raise Unreadable(f"{kind.__qualname__} is no pydantic model")
    try:
        return kind.model_validate(fields)
    except ValueError:
        # SDKs take answers that are not quite as described, with a constructor of their own.
        own = next((base for base in kind.__mro__ if "construct" in vars(base)), None)
        if own is None or own.__module__.startswith("pydantic"):
            raise
        return kind.construct(**fields)


def _enum(kind: type, value: Any) -> Any:
    if not issubclass(kind, Enum):
        raise Unreadable(f"{kind.__qualname__} is no enum")
    return kind(value)


def _dataclass(kind: type, fields: dict[str, Any]) -> Any:
    if not dataclasses.is_dataclass(kind) or {field.name for field in dataclasses.fields(kind)} != fields.keys():
        raise Unreadable(f"{kind.__qualname__} is no dataclass, or has other fields now")
    value = object.__new__(kind)
    for name, item in fields.items():
        object.__setattr__(value, name, item)
    return value


_MAKERS: dict[Any, Callable[[Any, Any], Any]] = {"model": _model, "enum": _enum, "dataclass": _dataclass}


def _class(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def _frozen(record: UsageRecord) -> UsageRecord:
    usage = None if record.usage is None else _frozen_usage(record.usage)
    tags = FrozenMap(record.tags) if record.tags else EMPTY
    corrects = None if record.corrects is None else _frozen(record.corrects)
    return msgspec.structs.replace(record, usage=usage, tags=tags, corrects=corrects)


def _frozen_usage(usage: TokenUsage) -> TokenUsage:
    units = FrozenMap(usage.units) if usage.units else EMPTY
    context = FrozenMap(usage.context) if usage.context else EMPTY
    return msgspec.structs.replace(usage, units=units, context=context)


_READERS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda pairs: {_read(name): _read(item) for name, item in pairs},
    "tuple": lambda items: tuple(_read(item) for item in items),
    "set": lambda items: {_read(item) for item in items},
    "frozenset": lambda items: frozenset(_read(item) for item in items),
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "Decimal": Decimal,
    "UUID": UUID,
    "TokenUsage": lambda fields: _frozen_usage(msgspec.convert(fields, TokenUsage, strict=False)),
    "UsageRecord": lambda fields: _frozen(msgspec.convert(fields, UsageRecord, strict=False)),
}
