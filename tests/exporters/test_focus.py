"""FOCUS 1.4, judged by somebody else's rules: focus-data-toolkit's linter of the 1.4 data model."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter import Meter
from agent_meter.exporters import export
from agent_meter.pricing import PriceBook
from agent_meter.records import Record

from .samples import START, records

linter = pytest.importorskip("focus_data_toolkit.model.validator", reason="pip install focus-data-toolkit")

DECLARED = ["SupportsUnitPricing"]


def focus(found: list[Record], folder: Path, **options: Any) -> list[dict[str, str]]:
    export(found, folder / "a.focus.csv", **options)
    with (folder / "a.focus.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def billed(rows: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))


@pytest.mark.parametrize("period", ["day", "hour"])
def test_the_linter_of_the_specification_finds_nothing(tmp_path: Path, period: str):
    rows = focus(records()[0], tmp_path, period=period, by=("agent", "user"))

    report = linter.lint_focus_1_4_structure("Cost and Usage", rows)

    assert report.messages() == []
    assert (report.ok, report.row_count) == (True, len(rows))


def test_with_unit_pricing_declared_the_linter_asks_for_more_and_finds_nothing_in_what_has_a_card(tmp_path: Path):
    found = [record for record in records()[0] if getattr(record, "provider", "") in ("openai", "anthropic")]
    rows = focus(found, tmp_path)

    assert linter.lint_focus_1_4_structure("Cost and Usage", rows, supported_conditions=DECLARED).messages() == []


def test_every_mandatory_column_of_the_specification_is_there(tmp_path: Path):
    columns = linter.load_model()["datasets"]["Cost and Usage"]["columns"]
    mandatory = {name for name, column in columns.items() if column["feature_level"] == "Mandatory"}

    assert mandatory <= set(focus(records()[0], tmp_path)[0])


def test_what_is_billed_is_what_the_meter_says_is_billed(tmp_path: Path):
    found, meter = records()
    rows = focus(found, tmp_path)

    assert billed(rows) == meter.usage.billed_cost_usd + Decimal("0.01")  # the tool's own cost


def test_list_price_times_quantity_is_the_list_cost_exactly(tmp_path: Path):
    priced = [row for row in focus(records()[0], tmp_path) if row["ListUnitPrice"]]

    assert len(priced) >= 8
    for row in priced:
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])


def test_a_call_is_split_into_its_units_at_their_own_prices(tmp_path: Path):
    rows = focus(records()[0], tmp_path)
    claude = {row["SkuMeter"]: row for row in rows if row["SkuId"] == "claude-sonnet-4-5"}

    assert {meter: (row["ConsumedQuantity"], row["ListUnitPrice"]) for meter, row in claude.items()} == {
        "Input Tokens": ("2500", "3"),
        "Cache Write Tokens": ("400", "3.75"),
        "Cache Write Tokens (1 h)": ("100", "6"),
        "Output Tokens": ("70", "15"),
        "Web Searches": ("2", "10"),
    }
    assert {row["PricingUnit"] for row in claude.values()} == {"1000000 Tokens", "1000 Web Searches"}


def test_days_and_months_are_those_of_utc(tmp_path: Path):
    rows = focus(records()[0], tmp_path)
    (day,) = {row["ChargePeriodStart"] for row in rows if row["SkuId"] == "claude-sonnet-4-5"}

    assert day == "2026-03-31T00:00:00Z"
    assert {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows} == {
        ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")
    }


def test_december_ends_in_january(tmp_path: Path):
    record = Meter().record_usage(
        model="gpt-4o", provider="openai", input_tokens=1, started_at=START.replace(month=12, day=31)
    )

    (row,) = focus([record], tmp_path)

    assert (row["ChargePeriodEnd"], row["BillingPeriodEnd"]) == ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z")


def test_unpriced_calls_are_no_charge_and_go_to_a_file_of_their_own(tmp_path: Path):
    result = export(records()[0], tmp_path / "a.focus.csv")

    assert result.skipped == 1
    assert result.side_file == str(tmp_path / "a.unpriced.csv")
    with (tmp_path / "a.unpriced.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["input_tokens"], row["cost_usd"]) == ("acme-unknown", "10", "")


def test_a_side_file_of_an_earlier_export_goes_when_everything_has_a_price(tmp_path: Path):
    found, _ = records()
    export(found, tmp_path / "a.focus.csv")
    result = export(found[:2], tmp_path / "a.focus.csv")

    assert (result.side_file, (tmp_path / "a.unpriced.csv").exists()) == (None, False)


def test_a_partly_priced_call_is_charged_as_far_as_it_is_known_and_listed_as_well(tmp_path: Path):
    meter = Meter(prices={"own": {"input": "2"}})
    record = meter.record_usage(model="own", input_tokens=1_000_000, output_tokens=5, started_at=START)

    result = export([record], tmp_path / "a.focus.csv", prices=meter.prices)

    assert record.cost.missing == ("output_tokens",)
    assert (result.skipped, billed(focus([record], tmp_path, prices=meter.prices))) == (1, Decimal(2))


def test_replayed_and_denied_calls_are_no_charge(tmp_path: Path):
    meter = Meter()
    cached = meter.record_usage(model="gpt-4o", provider="openai", input_tokens=10, cached=True, started_at=START)

    assert focus([cached], tmp_path) == []


def test_a_call_whose_card_is_gone_keeps_its_cost_without_unit_prices(tmp_path: Path):
    meter = Meter(prices={"own": {"input": "2", "output": "8", "fees": {"web_searches": "0.01"}}})
    record = meter.record_usage(
        model="own", provider="acme", input_tokens=100, output_tokens=10, units={"web_searches": 1}, started_at=START
    )

    rows = focus([record], tmp_path, prices=PriceBook({"own": {"input": "3"}}))

    assert linter.lint_focus_1_4_structure("Cost and Usage", rows).messages() == []
    assert billed(rows) == record.billed_cost_usd
    assert {row["SkuMeter"] for row in rows} == {"Input", "Output", "Fees"}
    assert {row["ListUnitPrice"] for row in rows} == {""}


def test_the_attribution_asked_for_becomes_tags_and_nothing_else_does(tmp_path: Path):
    rows = focus(records()[0], tmp_path, by=("user",))

    assert {tag for row in rows for tag in json.loads(row["Tags"])} == {"user"}
    assert "researcher" not in json.dumps(rows)


def test_what_is_no_attribution_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="not by 'tenant'"):
        focus([], tmp_path, by=("tenant",))


calls = st.tuples(
    st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "o3"]),
    st.integers(0, 500_000),
    st.integers(0, 50_000),
    st.integers(0, 1000),
    st.integers(0, 40),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(calls, min_size=1, max_size=12))
def test_whatever_was_used_the_bill_adds_up_to_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, used: list[tuple[str, int, int, int, int]]
):
    meter = Meter()
    found: list[Record] = [
        meter.record_usage(
            model=model, input_tokens=into, output_tokens=out, cache_read_tokens=min(into, cached),
            started_at=START + timedelta(hours=hours),
        )
        for model, into, out, cached, hours in used
    ]  # fmt: skip

    rows = focus(found, tmp_path_factory.mktemp("focus"))

    assert billed(rows) == meter.usage.billed_cost_usd
    if rows:
        assert linter.lint_focus_1_4_structure("Cost and Usage", rows).messages() == []


def test_more_rows_than_are_added_up_at_a_time_still_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent_meter.exporters.focus.MAX_ROWS", 3)
    found, meter = records()

    assert billed(focus(found * 2, tmp_path)) == 2 * (meter.usage.billed_cost_usd + Decimal("0.01"))
