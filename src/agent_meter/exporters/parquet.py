"""Parquet: typed columns, exact amounts, zstd; read by DuckDB, pandas, Spark and whatever else reads tables."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, BinaryIO

from ..records import Record
from . import columns as c
from .sinks import Sink, require

ROW_GROUP = 20_000  # rows that are held in memory
_PLACES = Decimal("1e-12")


class Parquet(Sink):
    """Amounts are decimal128(38, 12) US dollars, times microseconds in UTC; raises `ImportError` without pyarrow."""

    def __init__(self, file: BinaryIO, *, row_group: int = ROW_GROUP) -> None:
        self._arrow = require("pyarrow", "parquet", "Parquet")
        parquet = require("pyarrow.parquet", "parquet", "Parquet")
        self._schema = _schema(self._arrow)
        self._writer: Any = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self._row_group = row_group

    def write(self, record: Record) -> None:
        self._rows.append(c.row(record))
        if len(self._rows) >= self._row_group:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def discard(self, error: BaseException) -> None:
        self._writer.close()  # or it would try when it is collected, when the file is closed

    def _flush(self) -> None:
        if not self._rows:
            return
        arrays = [
            self._arrow.array([_value(value, column.holds) for value in values], field.type)
            for values, column, field in zip(zip(*self._rows, strict=True), c.COLUMNS, self._schema, strict=True)
        ]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows.clear()


def _schema(arrow: Any) -> Any:
    types = {
        c.TEXT: arrow.string(),
        c.COUNT: arrow.int64(),
        c.SECONDS: arrow.float64(),
        c.MONEY: arrow.decimal128(38, 12),
        c.FLAG: arrow.bool_(),
        c.TIME: arrow.timestamp("us", tz="UTC"),
        c.TEXTS: arrow.list_(arrow.string()),
        c.MAP: arrow.map_(arrow.string(), arrow.string()),
    }
    return arrow.schema([(column.name, types[column.holds]) for column in c.COLUMNS])


def _value(value: Any, holds: str) -> Any:
    if value is None:
        return None
    if holds == c.TEXT:
        return value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no UTF-8
    if holds == c.MAP:
        return [
            (_clean(name), f"{part:f}" if isinstance(part, Decimal) else _clean(part)) for name, part in value.items()
        ]
    if holds == c.TEXTS:
        return [_clean(text) for text in value]
    return value


def _clean(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
