"""`agent-meter budget plan | forecast | report`, over a real ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_meter import Budget, Meter

from .conftest import Invoke


@pytest.fixture
def spent(folder: Path) -> Path:
    """Ten busy days, up to this hour; one budget that will not last, one that will."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with Meter(
        store="meter.db", budgets=[Budget("week", usd=1, per="week"), Budget("year", usd=10**6, per="year")]
    ) as m:
        for back in range(240):
            m.record_usage(
                model="gpt-4o", provider="openai", input_tokens=4_000, output_tokens=200, agent="researcher",
                started_at=hour - timedelta(hours=back),
            )  # fmt: skip
    return folder / "meter.db"


def test_plan_prints_the_table_with_prices(invoke: Invoke) -> None:
    result = invoke("budget", "plan")

    assert result.exit_code == 0
    assert "Customer Support       500,000  gpt-4o        65.63  150.00" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_plan_says_with_exit_code_1_that_a_cap_does_not_last(invoke: Invoke) -> None:
    result = invoke("budget", "plan", "research", "--model", "gpt-4o-mini", "--model", "claude-opus-4-1", "--json")

    cheap, dear = json.loads(result.stdout)
    assert (cheap["fits"], dear["fits"], dear["days"], dear["monthly_usd"]) == (True, False, 10, "1800.00")
    assert result.exit_code == 1


def test_the_yaml_of_a_plan_can_be_set_and_is_enforced(folder: Path, invoke: Invoke) -> None:
    (folder / "budgets.yaml").write_text(invoke("budget", "plan", "--yaml").stdout)

    assert invoke("budget", "set", "--file", "budgets.yaml").exit_code == 0
    listed = json.loads(invoke("budget", "list", "--json").stdout)

    assert len(listed) == 10
    with Meter(budgets="budgets.yaml") as meter:
        assert meter.budgets["research-daily"].tokens == 2_000_000


def test_a_plan_of_ones_own(invoke: Invoke) -> None:
    (mine,) = json.loads(invoke("budget", "plan", "mine", "--tokens", "1.5M", "--usd", "$1,000", "--json").stdout)

    assert (mine["daily_tokens"], mine["cap_usd"]) == (1_500_000, "1000")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reserch",), "did you mean research"),
        (("--tokens", "5K"), "one kind of agent"),
        (("research", "--tokens", "many"), "no number of tokens"),
        (("research", "--usd", "much"), "no amount"),
        (("--output-share", "2"), "0 to 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...], says: str, invoke: Invoke) -> None:
    result = invoke("budget", "plan", *arguments)

    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_plan_for_a_model_without_a_price_says_so(invoke: Invoke) -> None:
    result = invoke("budget", "plan", "--model", "acme-1")

    assert (result.exit_code, "no price for 'acme-1'" in result.output) == (1, True)


def test_forecast_marks_what_will_not_last_and_exits_with_1(spent: Path, invoke: Invoke) -> None:
    result = invoke("budget", "forecast")

    assert result.exit_code == 1
    assert "week *" in result.stdout
    assert "year *" not in result.stdout
    week, year = json.loads(invoke("budget", "forecast", "--json").stdout)
    assert (week["exceeds"], year["exceeds"]) == (True, False)
    assert float(year["low"]) <= float(year["expected"]) <= float(year["high"])
    assert invoke("budget", "forecast", "year").exit_code == 0


def test_forecast_without_budgets_is_exit_code_1(ledger: Path, invoke: Invoke) -> None:
    result = invoke("budget", "forecast")

    assert (result.exit_code, "No budgets" in result.output) == (1, True)


@pytest.mark.parametrize(("option", "days"), [("--daily", 1), ("--weekly", 7)])
def test_report_puts_budget_and_actual_beside_each_other(option: str, days: int, spent: Path, invoke: Invoke) -> None:
    result = invoke("budget", "report", option, "--json")
    told = json.loads(result.stdout)
    now = datetime.now(UTC)
    since = datetime.fromisoformat(told["since"])
    hours = int((now - since) / timedelta(hours=1)) + 1

    assert result.exit_code == 1
    assert since.hour == 0
    assert told["total"]["requests"] == told["agents"]["researcher"]["requests"] == hours
    assert told["total"]["before"]["requests"] == min(hours, 240 - days * 24)
    assert [one["budget"] for one in told["alerts"]] == ["week"]
    assert {"week", "month"} == set(told["projections"])
    assert float(told["projections"]["month"]["expected"]) >= float(told["projections"]["month"]["used"])


def test_the_report_reads_well_in_80_columns(spent: Path, invoke: Invoke) -> None:
    result = invoke("budget", "report")

    assert "Budget report: the day from" in result.stdout
    assert "This week: $" in result.stdout
    assert "! week: " in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_report_without_budgets_says_how_to_get_some(ledger: Path, invoke: Invoke) -> None:
    result = invoke("budget", "report")

    assert (result.exit_code, "agent-meter budget plan" in result.stdout) == (0, True)


def test_a_report_is_of_a_day_or_of_a_week(ledger: Path, invoke: Invoke) -> None:
    assert invoke("budget", "report", "--daily", "--weekly").exit_code == 2
