"""The front door: formats by name, whole files or none, bounded memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_meter import Meter
from agent_meter.encoding import from_document
from agent_meter.errors import ExportError
from agent_meter.exporters import FORMATS, export, format_of
from agent_meter.records import EMPTY, Record, ToolRecord

from .samples import many, records


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "csv"), ("A.CSV", "csv"), ("a.json", "json"), ("a.jsonl", "jsonl"), ("a.ndjson", "jsonl"),
        ("a.parquet", "parquet"), ("may.focus.csv", "focus"), ("a.cloudevents.jsonl", "cloudevents"),
        ("agent.prom", "prometheus"),
    ],
)  # fmt: skip
def test_the_name_of_a_file_says_its_format(name: str, expected: str):
    assert format_of(name).name == expected


@pytest.mark.parametrize("name", ["a", "a.xlsx", "csv"])
def test_a_name_that_says_nothing_is_refused_with_what_there_is(name: str, tmp_path: Path):
    with pytest.raises(ExportError, match="name one of csv, json, jsonl, parquet, focus, cloudevents, prometheus"):
        export([], tmp_path / name)


def test_an_option_of_another_format_is_refused(tmp_path: Path):
    with pytest.raises(ExportError, match="csv has no option 'account'"):
        export([], tmp_path / "a.csv", account="1")


def test_json_lines_and_json_hold_the_records_as_they_were(tmp_path: Path):
    found, _ = records()
    for name in ("a.jsonl", "a.json"):
        export(found, tmp_path / name)
    expected = [private(record) for record in found]

    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))

    assert [from_document(json.loads(line)) for line in lines] == expected
    assert [from_document(each) for each in document["records"]] == expected
    assert (document["format"], document["count"]) == ("agent_meter.records.v1", len(found))


def private(record: Record) -> Record:
    """As exports have it: without what a tool was called with."""
    from msgspec.structs import replace

    return replace(record, params=EMPTY) if type(record) is ToolRecord else record


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_fails_leaves_the_old_file(format: str, tmp_path: Path):
    def broken() -> Iterator[Record]:
        yield from records()[0]
        raise RuntimeError("store went away")

    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="store went away"):
        export(broken(), path, format)

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_of_nothing_is_a_file_that_can_be_read(format: str, tmp_path: Path):
    result = export([], tmp_path / "out", format)

    assert (result.records, result.format) == (0, format)
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_is_written_as_a_file_is(format: str, tmp_path: Path):
    found, _ = records()
    out = io.BytesIO()

    export(found, out, format)
    export(found, tmp_path / "out", format)

    assert len(out.getvalue()) > 100
    if format not in ("json", "parquet"):  # which say when, and where
        assert out.getvalue() == (tmp_path / "out").read_bytes()


def test_a_store_is_exported_whole_and_a_meter_with_its_store(tmp_path: Path):
    with Meter(store=str(tmp_path / "meter.db")) as meter:
        for _ in range(5):
            meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1)
        meter.record_tool_call("search", True, 0.1, {"q": "secret"})

        assert export(meter, tmp_path / "meter.jsonl").records == 6
        assert export(meter.store, tmp_path / "store.jsonl").records == 6
    assert (tmp_path / "meter.jsonl").read_bytes() == (tmp_path / "store.jsonl").read_bytes()


def test_a_meter_without_a_store_is_exported_with_the_calls_that_it_remembers(tmp_path: Path):
    meter = Meter(keep=3)
    for _ in range(5):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1)

    assert export(meter, tmp_path / "meter.jsonl").records == 3


@pytest.mark.soak
@pytest.mark.parametrize("format", FORMATS)
def test_a_million_records_are_written_in_the_memory_of_a_few(format: str):
    program = (
        "import resource, sys, logging; logging.disable(50)\n"
        "from tests.exporters.samples import many\n"
        "from agent_meter.exporters import export\n"
        f"export(many(30_000), '/dev/null', {format!r})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"export(many(1_000_000), '/dev/null', {format!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(run.stdout) < 50_000  # kB


def test_progress_is_told_on_the_way_and_at_the_end(tmp_path: Path):
    told: list[int] = []

    export(many(2500), tmp_path / "a.jsonl", progress=told.append)

    assert told == [1000, 2000, 2500]


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_number_of_records(format: str, tmp_path: Path):
    # Parquet holds a row group; a small one shows the same.
    options = {"row_group": 500} if format == "parquet" else {}
    export(many(100), tmp_path / "warm", format, **options)
    peaks = []
    for number in (2_000, 8_000):
        tracemalloc.start()
        export(many(number), tmp_path / "out", format, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] + 500_000, peaks


def test_the_exporters_are_imported_without_what_they_need():
    program = (
        "import agent_meter.exporters, sys\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "heavy = {'pyarrow', 'prometheus_client', 'opentelemetry', 'duckdb'} & loaded\n"
        "assert not heavy, heavy"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_format_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ImportError, match=r"pip install 'agent-meter\[parquet\]'"):
        export([], tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == []
