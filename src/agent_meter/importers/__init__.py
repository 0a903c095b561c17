"""History from elsewhere as ledger rows: `import_file("old.jsonl", store)`.

Reads what this package exports (JSON, JSON Lines, CloudEvents), observations that Langfuse exported, and
OpenTelemetry spans with GenAI attributes (OTLP JSON, or the SDK's console form). Every record has an id that
depends on its source alone, so that importing a file again adds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ImportFailed
from ..pricing.book import PriceBook
from ..records import Record
from . import langfuse, otel, own
from .building import NotACall
from .files import documents

if TYPE_CHECKING:
    from ..store.base import Store

__all__ = ["FORMATS", "ImportFailed", "Imported", "import_file", "read"]

FORMATS = ("records", "cloudevents", "langfuse", "otel")
_PROGRESS_EVERY = 1000
_KEPT_PROBLEMS = 10


class Imported(NamedTuple):
    """What came of an import. `others` are entries that are no model call and no tool call (spans, events, scores);
    `problems` says of the first entries that could not be read why, `unreadable` how many there were."""

    path: str
    records: int
    others: int
    unreadable: int
    stored: int = 0
    duplicates: int = 0
    problems: tuple[str, ...] = ()


class Reading:
    """The records of a file, one after another, and counts of what was no record."""

    def __init__(self, path: str | os.PathLike[str], format: str | None = None, *, prices: PriceBook | None = None):
        if format is not None and format not in FORMATS:
            raise ImportFailed(f"no format {format!r}; there are {', '.join(FORMATS)}")
        self.path = os.fspath(path)
        self.format = format
        self.prices = prices or PriceBook(on_unpriced="block")
        self.records = self.others = self.unreadable = 0
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Record]:
        for number, document in enumerate(documents(self.path, self._problem), 1):
            form = self.format or _form(document)
            if form is None:
                if number == 1:
                    raise ImportFailed(
                        f"{self.path}: neither records of agent_meter, CloudEvents, a Langfuse export nor OTel spans"
                    )
                self._problem(f"entry {number}: not in a form that can be read")
                continue
            yield from self._of(form, document, number)

    def _of(self, form: str, document: dict[str, object], number: int) -> Iterator[Record]:
        try:
            for span in otel.spans(document) if form == "otel" else (document,):
                try:
                    record = _READERS[form](span, self.prices)
                except NotACall:
                    self.others += 1
                    continue
                self.records += 1
                yield record
        except Exception as error:  # whatever is wrong with one entry, the others are read
            self._problem(f"entry {number}: {type(error).__name__}: {error}")

    def _problem(self, text: str) -> None:
        self.unreadable += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(text[:300])


_READERS: dict[str, Callable[..., Record]] = {
    "records": own.record,
    "cloudevents": own.event,
    "langfuse": langfuse.record,
    "otel": otel.record,
}


def read(
    path: str | os.PathLike[str], format: str | None = None, *, prices: PriceBook | None = None
) -> Iterator[Record]:
    """The records of a file; what is in a foreign form is priced by `prices` as of the day of the call."""
    return iter(Reading(path, format, prices=prices))


def import_file(
    path: str | os.PathLike[str],
    store: Store,
    format: str | None = None,
    *,
    prices: PriceBook | None = None,
    progress: Callable[[int], object] | None = None,
) -> Imported:
    """Put the records of a file into a store. Those that it has already are counted and left as they are.

    `ImportFailed` when the file is in no form that can be read, OSError, `StoreError`.
    """
    before = store.health()
    reading = Reading(path, format, prices=prices)
    for number, record in enumerate(reading, 1):
        store.put(record)
        if number % _PROGRESS_EVERY == 0:
            store.flush()
            if progress is not None:
                progress(number)
    store.flush()
    if progress is not None:
        progress(reading.records)
    after = store.health()
    stored, duplicates = (int(after.get(name, 0)) - int(before.get(name, 0)) for name in ("stored", "duplicates"))
    return Imported(
        reading.path,
        reading.records,
        reading.others,
        reading.unreadable,
        stored,
        duplicates,
        tuple(reading.problems),
    )


def _form(document: dict[str, object]) -> str | None:
    """What kind of thing a document is, by what it has."""
    if "specversion" in document:
        return "cloudevents"
    if "resourceSpans" in document or "scopeSpans" in document or ("attributes" in document and "context" in document):
        return "otel"
    if "traceId" in document and "startTimeUnixNano" in document:
        return "otel"
    if ("traceId" in document or "trace_id" in document) and "type" in document:
        return "langfuse"
    if "kind" in document and "started_at" in document and "id" in document:
        return "records"
    return None
