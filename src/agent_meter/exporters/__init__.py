"""Records in the formats that finance, data and operations already use: `export(records, "usage.parquet")`.

Everything goes through one streaming interface (`sinks.Sink`): memory does not grow with the number of records.
Prometheus and OpenTelemetry while a program runs are `exporters.prometheus` and `exporters.otel`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import ExportError
from ..files import replacing
from ..records import Record
from .sinks import Sink

if TYPE_CHECKING:
    from ..meter import Meter
    from ..store import Store

__all__ = ["FORMATS", "ExportError", "Exported", "Format", "Sink", "export", "format_of"]


class Format(NamedTuple):
    """Where a format is written, and the endings of file names that ask for it."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    sink: str
    options: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("csv", (".csv",), "csv", "Csv"),
        Format("json", (".json",), "documents", "Json"),
        Format("jsonl", (".jsonl", ".ndjson"), "documents", "JsonLines"),
        Format("parquet", (".parquet", ".pq"), "parquet", "Parquet", ("row_group",)),
        Format("focus", (".focus.csv",), "focus", "Focus", ("account", "account_name", "period", "by", "prices")),
        Format("cloudevents", (".cloudevents.jsonl",), "documents", "CloudEvents", ("source",)),
        Format("prometheus", (".prom",), "prometheus", "Textfile"),
    )
}
_PROGRESS_EVERY = 1000


class Exported(NamedTuple):
    """What came of an export: `skipped` records could not be charges and are in `side_file` (FOCUS only)."""

    path: str
    format: str
    records: int
    skipped: int = 0
    side_file: str | None = None


def format_of(path: str) -> Format:
    """The format that a file name asks for. `ExportError` names those that there are."""
    asked = [format for format in FORMATS.values() if path.lower().endswith(format.suffixes)]
    if not asked:
        raise ExportError(f"{path!r} does not say its format: name one of {', '.join(FORMATS)}")
    return max(asked, key=lambda one: max(len(end) for end in one.suffixes if path.lower().endswith(end)))


def export(
    records: Iterable[Record] | Store | Meter,
    path: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,
    *,
    progress: Callable[[int], object] | None = None,
    **options: Any,
) -> Exported:
    """Write records to a file; the format is that of its name unless one is named. The file appears when it is whole.

    A store is exported whole, a meter with its store or, without one, with the calls that it remembers. `path` may be
    an open binary file, which then needs a `format`. `progress` is told every now and then how many records have been
    written. `options` are the format's own: `source` (cloudevents), `account`, `account_name`, `period`, `by` and
    `prices` (focus), `row_group` (parquet).

    Raises `ExportError`, OSError, and ImportError where a format needs what is not installed.
    """
    name = "" if not isinstance(path, str | os.PathLike) else os.fspath(path)
    chosen = _format(name, format)
    unknown = [option for option in options if option not in chosen.options]
    if unknown:
        raise ExportError(f"{chosen.name} has no option {unknown[0]!r}; it has {', '.join(chosen.options) or 'none'}")
    made: Callable[..., Sink] = getattr(import_module(f".{chosen.module}", __name__), chosen.sink)
    side = side_path(name) if chosen.name == "focus" and name else None
    with ExitStack() as stack:
        file = stack.enter_context(replacing(name)) if isinstance(path, str | os.PathLike) else path
        if side is not None:
            options["beside"] = lambda _: replacing(side)
        number = 0
        with made(file, **options) as sink:
            for number, record in enumerate(_all(records), 1):
                sink.write(record)
                if progress is not None and number % _PROGRESS_EVERY == 0:
                    progress(number)
    if progress is not None:
        progress(number)
    skipped = sink.skipped
    if side is not None and not skipped and os.path.isfile(side):
        os.unlink(side)  # of an earlier export: now everything has a price
    return Exported(name, chosen.name, number, skipped, side if skipped else None)


def _all(source: Any) -> Iterable[Record]:
    """The records of a meter, of a store, or as they were given."""
    if getattr(source, "store", None) is not None:
        source.flush()
        source = source.store
    for name, asked in (("records", {}), ("history", {"include_denied": True})):
        if callable(getattr(source, name, None)):
            found: Iterable[Record] = getattr(source, name)(**asked)
            return found
    given: Iterable[Record] = source
    return given


def side_path(path: str) -> str:
    """Where calls go that FOCUS has no place for: `may.focus.csv` has `may.unpriced.csv` beside it."""
    stem = re.sub(r"(\.focus)?\.csv$", "", path, flags=re.IGNORECASE)
    return str(Path(f"{stem}.unpriced.csv"))


def _format(name: str, format: str | None) -> Format:
    if format is None:
        return format_of(name or "a stream")
    if format not in FORMATS:
        raise ExportError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    return FORMATS[format]
