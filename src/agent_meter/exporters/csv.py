"""CSV: one row a record, RFC 4180, UTF-8, which a spreadsheet may open without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, BinaryIO

from ..records import Record
from ..spreadsheets import cell
from .columns import NAMES, row
from .sinks import Sink, json_bytes


class Csv(Sink):
    """Amounts are exact decimals, times ISO 8601 in UTC, lists and maps JSON; an empty cell is "not known"."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(f"{','.join(NAMES)}\r\n".encode())

    def write(self, record: Record) -> None:
        self._file.write(f"{','.join(map(written, row(record)))}\r\n".encode("utf-8", "backslashreplace"))


_text = lru_cache(maxsize=4096)(cell)


def written(value: Any) -> str:
    """One value as a cell."""
    if value is None:
        return ""
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return repr(value)
    if kind is Decimal:
        return f"{value:f}"
    if kind is datetime:
        return str(value.astimezone(UTC).isoformat())
    if isinstance(value, Mapping):
        value = {name: f"{part:f}" if isinstance(part, Decimal) else part for name, part in value.items()}
    return cell(json_bytes(value).decode()) if value else ""
