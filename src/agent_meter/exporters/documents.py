"""JSON, JSON Lines and CloudEvents: records as documents (`encoding.to_document`), lossless but for private parts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, BinaryIO

from .._version import __version__
from ..encoding import to_document
from ..records import Kind, Record, UsageRecord
from .sinks import Sink, json_bytes

FORMAT = "agent_meter.records.v1"
SOURCE = "/agent_meter"
_TYPES = {kind: f"dev.agent_meter.{kind.value}.v1" for kind in Kind}
_TYPES |= dict.fromkeys((Kind.LLM, Kind.EMBEDDING, Kind.RERANK), "dev.agent_meter.usage.v1")


class JsonLines(Sink):
    """One document a line; `agent-meter import` reads it back with nothing lost."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, record: Record) -> None:
        self._file.write(json_bytes(to_document(record)) + b"\n")


class Json(Sink):
    """One document: `{"format": …, "records": […], "count": …}`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count = 0
        head = {"format": FORMAT, "agent_meter": __version__, "exported_at": datetime.now(UTC).isoformat()}
        self._file.write(json_bytes(head)[:-1] + b',"records":[')

    def write(self, record: Record) -> None:
        self._file.write((b",\n" if self._count else b"\n") + json_bytes(to_document(record)))
        self._count += 1

    def close(self) -> None:
        self._file.write(b'\n],"count":%d}\n' % self._count)


class CloudEvents(Sink):
    """One structured CloudEvent 1.0 a line (`application/cloudevents+json`); `source` says whose events they are."""

    def __init__(self, file: BinaryIO, *, source: str = SOURCE) -> None:
        self._file = file
        self._source = source

    def write(self, record: Record) -> None:
        self._file.write(json_bytes(to_event(record, source=self._source)) + b"\n")


def to_event(record: Record, *, source: str = SOURCE) -> dict[str, Any]:
    """A record as a CloudEvent: `source` and `id` together are unique, so whoever has seen both has seen the record.

    `subject` is the user, left out where nobody said who that is. A correction is an event of its own.
    """
    corrects = type(record) is UsageRecord and record.corrects is not None
    event = {
        "specversion": "1.0",
        "id": f"{record.id}/correction" if corrects else record.id,
        "source": source,
        "type": _TYPES[record.kind],
        "time": record.started_at.astimezone(UTC).isoformat(),
        "datacontenttype": "application/json",
    }
    if record.user:
        event["subject"] = record.user
    return {**event, "data": to_document(record)}
