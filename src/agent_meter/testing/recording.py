"""A plugin that writes down what it is told, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..hookspecs import hookimpl
from ..records import Alert, Call, Model, Record, RunRecord, ToolRecord, UsageRecord

if TYPE_CHECKING:
    from ..meter import Meter


class RecordingPlugin:
    """Answers every hook with None and keeps the argument of each, in the order in which they came.

    `started`: the meters that started it. `tagged`, `asked`, `calls`: the calls that met `meter_tag_call`,
    `meter_admit_call` and `meter_call_opened`. `models`: those whose rates were looked for. `records`,
    `alerts`: what came out. `shut`: how often it was shut down.
    """

    def __init__(self) -> None:
        self.started: list[Meter] = []
        self.tagged: list[Call] = []
        self.asked: list[Call] = []
        self.calls: list[Call] = []
        self.models: list[Model] = []
        self.records: list[Record] = []
        self.alerts: list[Alert] = []
        self.shut = 0
        self._names: list[str] = []  # only ever appended to: safe from any thread

    def names(self) -> list[str]:
        """The names of the hooks that were called, oldest first."""
        return list(self._names)

    @property
    def usage_records(self) -> list[UsageRecord]:
        return [record for record in list(self.records) if isinstance(record, UsageRecord)]

    @property
    def tool_records(self) -> list[ToolRecord]:
        return [record for record in list(self.records) if isinstance(record, ToolRecord)]

    @property
    def run_records(self) -> list[RunRecord]:
        return [record for record in list(self.records) if isinstance(record, RunRecord)]

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._names.append("meter_startup")
        self.started.append(meter)

    @hookimpl
    def meter_tag_call(self, call: Call) -> None:
        self._names.append("meter_tag_call")
        self.tagged.append(call)

    @hookimpl
    def meter_admit_call(self, call: Call) -> None:
        self._names.append("meter_admit_call")
        self.asked.append(call)

    @hookimpl
    def meter_call_opened(self, call: Call) -> None:
        self._names.append("meter_call_opened")
        self.calls.append(call)

    @hookimpl
    def meter_find_rates(self, model: Model) -> None:
        self._names.append("meter_find_rates")
        self.models.append(model)

    @hookimpl
    def meter_record(self, record: Record) -> None:
        self._names.append("meter_record")
        self.records.append(record)

    @hookimpl
    def meter_alert(self, alert: Alert) -> None:
        self._names.append("meter_alert")
        self.alerts.append(alert)

    @hookimpl
    def meter_shutdown(self) -> None:
        self._names.append("meter_shutdown")
        self.shut += 1
