"""CloudEvents, read by the CloudEvents SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_meter import Meter
from agent_meter.encoding import from_document
from agent_meter.exporters import export
from agent_meter.exporters.documents import to_event
from agent_meter.records import ABANDONED, Call, Kind, Model, TokenUsage

from .samples import records
from .test_export import private

formats = pytest.importorskip("cloudevents.core.formats.json", reason="pip install cloudevents")


def test_the_sdk_reads_every_event_and_its_data_is_the_record(tmp_path: Path):
    found, _ = records()
    export(found, tmp_path / "a.cloudevents.jsonl", source="/agent_meter/ci")
    lines = (tmp_path / "a.cloudevents.jsonl").read_bytes().splitlines()

    events = [formats.JSONFormat().read(None, line) for line in lines]

    assert [from_document(event.get_data()) for event in events] == [private(record) for record in found]
    assert {event.get_specversion() for event in events} == {"1.0"}
    assert {event.get_source() for event in events} == {"/agent_meter/ci"}
    assert [event.get_time() for event in events] == [record.started_at for record in found]
    assert {event.get_type() for event in events} == {
        "dev.agent_meter.usage.v1", "dev.agent_meter.tool.v1", "dev.agent_meter.run.v1", "dev.agent_meter.step.v1"
    }  # fmt: skip


def test_the_subject_is_the_user_and_is_left_out_where_nobody_is_known():
    meter = Meter()

    assert to_event(meter.record_usage(model="m", user="ada"))["subject"] == "ada"
    assert "subject" not in to_event(meter.record_usage(model="m"))


def test_a_correction_is_an_event_of_its_own():
    meter = Meter()
    call = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o")))
    first = meter.close(call, status=ABANDONED)
    second = meter.close(call, TokenUsage(7, 3))

    assert to_event(first)["id"] != to_event(second)["id"]
    assert to_event(second)["data"]["id"] == to_event(first)["data"]["id"]
