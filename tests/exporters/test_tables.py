"""CSV and Parquet, read by others: Python's csv, pyarrow, DuckDB."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import Meter, UsageRecord
from agent_meter.exporters import export
from agent_meter.exporters.columns import COLUMNS, NAMES, row

from .samples import HOSTILE, START, records

duckdb = pytest.importorskip("duckdb", reason="pip install duckdb")
parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'agent-meter[parquet]'")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Meter]:
    folder = tmp_path_factory.mktemp("tables")
    found, meter = records()
    for name in ("all.csv", "all.parquet"):
        export(found, folder / name)
    return folder, meter


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_has_a_value_in_every_row():
    found, _ = records()

    assert {len(row(record)) for record in found} == {len(COLUMNS)}


def test_a_csv_file_has_one_row_a_record_and_the_same_columns_in_each(written: tuple[Path, Meter]):
    rows = rows_of(written[0] / "all.csv")

    assert [row["kind"] for row in rows].count("tool") == 2
    assert [row["kind"] for row in rows].count("run") == 1
    assert all(tuple(row) == NAMES and None not in row.values() for row in rows)


def test_the_sums_of_a_csv_file_are_those_of_the_meter(written: tuple[Path, Meter]):
    folder, meter = written
    rows = rows_of(folder / "all.csv")
    usage = meter.usage

    def total(name: str) -> Decimal:
        return sum((Decimal(row[name]) for row in rows if row[name]), Decimal(0))

    assert total("cost_usd") == usage.cost_usd
    assert total("billed_cost_usd") == usage.billed_cost_usd
    assert total("saved_cost_usd") == usage.saved_cost_usd
    assert total("output_tokens") == usage.output_tokens
    assert total("input_tokens") == usage.input_tokens + usage.embedding_tokens
    assert total("tool_cost_usd") == Decimal("0.01")
    assert [row["cost_status"] for row in rows].count("unpriced") == usage.unpriced_requests


def test_duckdb_reads_the_csv_file_with_the_same_sums(written: tuple[Path, Meter]):
    folder, meter = written
    query = f"SELECT sum(cost_usd::DECIMAL(38,12)) FROM read_csv('{folder / 'all.csv'}', all_varchar=true)"

    assert duckdb.sql(query).fetchall()[0][0] == meter.usage.cost_usd


def test_an_unpriced_call_has_an_empty_cost_and_not_zero(written: tuple[Path, Meter]):
    (unpriced,) = [row for row in rows_of(written[0] / "all.csv") if row["cost_status"] == "unpriced"]

    assert (unpriced["cost_usd"], unpriced["billed_cost_usd"]) == ("", "")


def test_what_a_tool_was_called_with_is_in_no_file(written: tuple[Path, Meter]):
    for path in written[0].iterdir():
        assert b"secret" not in path.read_bytes()


@given(st.text(max_size=30))
def test_no_name_becomes_a_formula_or_two_cells(tmp_path_factory: pytest.TempPathFactory, name: str):
    meter = Meter()
    record = meter.record_usage(model="m", agent=name, started_at=START)
    path = tmp_path_factory.mktemp("cells") / "one.csv"

    export([record], path)

    (found,) = rows_of(path)
    assert not found["agent"].lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert found["id"] == record.id
    assert path.read_bytes().count(b"\r\n") == 2


def test_lists_and_maps_are_json_in_csv(written: tuple[Path, Meter]):
    rows = rows_of(written[0] / "all.csv")

    assert [json.loads(row["tags"]) for row in rows if row["tags"]] == [{"tenant": "acme"}]
    assert [json.loads(row["units"]) for row in rows if row["units"]] == [{"web_searches": 2}]


def test_pyarrow_reads_typed_columns_with_exact_amounts(written: tuple[Path, Meter]):
    folder, meter = written
    table = parquet.read_table(folder / "all.parquet")

    assert table.column_names == list(NAMES)
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 12)"
    assert str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"
    assert sum(cost for cost in table["cost_usd"].to_pylist() if cost is not None) == meter.usage.cost_usd
    assert table["started_at"][0].as_py() == START
    assert dict(table["tags"][0].as_py()) == {"tenant": "acme"}
    assert HOSTILE in table["agent"].to_pylist()


def test_duckdb_answers_over_parquet_as_the_meter_does(written: tuple[Path, Meter]):
    folder, meter = written
    found = duckdb.sql(
        f"SELECT agent, count(*), sum(input_tokens), sum(cost_usd) FROM '{folder / 'all.parquet'}' "
        "WHERE kind = 'llm' AND agent <> '' GROUP BY agent"
    ).fetchall()
    expected = [
        (agent, usage.requests, usage.input_tokens, usage.cost_usd)
        for agent, usage in meter.usage_by("agent").items()
        if agent
    ]

    assert sorted(found) == sorted(expected)


def test_a_parquet_file_has_row_groups_of_the_size_asked_for(tmp_path: Path):
    found, _ = records()

    export(found, tmp_path / "small.parquet", row_group=4)

    meta = parquet.ParquetFile(tmp_path / "small.parquet").metadata
    assert (meta.num_rows, meta.num_row_groups) == (len(found), -(-len(found) // 4))


def test_text_that_is_no_unicode_is_written_as_its_escape(tmp_path: Path):
    record = Meter().record_usage(model="m", agent="a\udc80", started_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert type(record) is UsageRecord

    for name in ("one.csv", "one.parquet"):
        export([record], tmp_path / name)

    assert rows_of(tmp_path / "one.csv")[0]["agent"] == "a\\udc80"
    assert parquet.read_table(tmp_path / "one.parquet")["agent"].to_pylist() == ["a\\udc80"]
