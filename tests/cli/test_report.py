"""`agent-meter report` and its short forms, on a real SQLite ledger."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from agent_meter import Meter
from agent_meter.cli.ledger import Span, when
from agent_meter.store import open_store

from .conftest import Invoke, Run

NOW = datetime(2026, 11, 22, 13, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("today", datetime(2026, 11, 22, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 22, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 16, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 9, tzinfo=UTC)),
        ("yesterday", datetime(2026, 11, 21, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 22, 1, 45, tzinfo=UTC)),
        ("30m", datetime(2026, 11, 22, 13, 15, tzinfo=UTC)),
        ("2026-03", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-30", datetime(2026, 3, 30, tzinfo=UTC)),
        ("2026-03-30T10:00+02:00", datetime(2026, 3, 30, 8, tzinfo=UTC)),
        ("all", None),
        ("", None),
    ],
)
def test_times_are_said_as_people_say_them(text: str, expected: datetime | None) -> None:
    assert when(text, now=NOW) == expected


def rows(output: str) -> list[list[str]]:
    """The rows of a table, split at two or more blanks."""
    lines = output.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("──"))
    below = lines[rule + 1 :]
    return [re.split(r"  +", line.strip()) for line in below[: below.index("")]]


def test_agents_are_shown_dearest_first_with_a_total_and_what_it_leaves_out(invoke: Invoke, ledger: Path) -> None:
    result = invoke("report")

    assert result.exit_code == 0
    assert [row[0] for row in rows(result.output)] == ["researcher", "writer", "(nobody)", "triage"]
    assert re.search(r"^total +14 .* ≥\$0\.\d+$", result.output, re.MULTILINE)
    assert "! 1 call unpriced (acme-1): not in the cost" in result.output
    assert "1 call replayed from a cache: $0.0390 saved" in result.output


def test_no_line_is_wider_than_the_terminal(invoke: Invoke, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (80, 100, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        for command in ("report", "report --by agent,model", "daily", "sessions --since all", "top-spenders"):
            output = invoke(*command.split()).output

            assert max(map(len, output.splitlines())) <= width, (width, command)


def test_a_wide_terminal_shows_more(invoke: Invoke, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")

    assert {"reasoning", "saved"} <= set(invoke("report").output.split("\n")[2].split())


def test_json_has_exact_amounts_that_add_up_to_the_total(invoke: Invoke, ledger: Path) -> None:
    document = json.loads(invoke("report", "--by", "agent,model", "--json").stdout)

    assert document["by"] == ["agent", "model"]
    costs = [row["cost_usd"] for row in document["rows"]]
    assert sum(Decimal(cost) for cost in costs if cost) == Decimal(document["total"]["cost_usd"])
    assert costs.count(None) == 1  # the model without a price: unknown is never zero
    assert sum(row["requests"] for row in document["rows"]) == document["total"]["requests"] == 14
    assert document["total"]["cost_is_lower_bound"] is True
    assert document["unpriced_models"] == {"acme-1": 1}


def test_csv_is_what_a_spreadsheet_sums(invoke: Invoke, ledger: Path) -> None:
    found = list(csv.DictReader(io.StringIO(invoke("report", "--by", "day", "--by", "user", "--csv").stdout)))
    store = open_store(ledger, readonly=True)

    assert sum(Decimal(row["cost_usd"] or 0) for row in found) == store.usage().cost_usd
    assert {row["day"] for row in found} == {"2026-03-30", "2026-03-31", "2026-04-01"}
    store.close()


def test_days_are_in_their_order(invoke: Invoke, ledger: Path) -> None:
    output = invoke("daily", "--since", "2026-03-30").output

    assert [row[0] for row in rows(output)] == ["2026-03-30", "2026-03-31", "2026-04-01"]


@pytest.mark.parametrize(
    ("command", "first"), [("weekly --since all", "2026-W14"), ("monthly", "2026-03"), ("sessions --since all", "s2")]
)
def test_weeks_months_and_sessions_have_commands_of_their_own(
    command: str, first: str, invoke: Invoke, ledger: Path
) -> None:
    assert rows(invoke(*command.split()).output)[0][0] == first


def test_a_limit_sums_the_rest_so_that_the_total_stays(invoke: Invoke, ledger: Path) -> None:
    output = invoke("top-spenders", "user", "-n", "1").output

    assert [row[0] for row in rows(output)] == ["ada", "(2 more)"]
    assert re.search(r"^total +14 ", output, re.MULTILINE)


def test_a_tag_is_a_dimension(invoke: Invoke, ledger: Path) -> None:
    assert [row[0] for row in rows(invoke("report", "--by", "team").output)] == ["red", "(no team)"]


def test_an_empty_range_says_so(invoke: Invoke, ledger: Path) -> None:
    result = invoke("report", "--since", "2020-01-01", "--until", "2020-02-01")

    assert result.exit_code == 0
    assert "No calls in this range." in result.output


def test_a_misspelt_dimension_names_the_nearest(invoke: Invoke, ledger: Path) -> None:
    result = invoke("report", "--by", "modell")

    assert result.exit_code == 2
    assert "did you mean 'model'?" in result.output.replace("\n", " ")


def test_the_command_alone_shows_today_and_without_a_ledger_its_help(invoke: Invoke, folder: Path) -> None:
    without = invoke()
    now = datetime.now(UTC)
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1000, agent="a", started_at=now)
        meter.record_usage(
            model="gpt-4o",
            provider="openai",
            input_tokens=4000,
            agent="a",
            started_at=now - timedelta(days=1, seconds=9),
        )

    assert (without.exit_code, "Commands:" in without.output) == (2, True)
    result = invoke()
    assert result.exit_code == 0
    assert result.output.startswith("agent · today (UTC)\n")
    if now.hour or now.minute:  # at midnight, yesterday at this time was the day before
        assert re.search(r"^  -75% against \$0\.0100 ", result.output, re.MULTILINE)


def test_a_range_is_compared_with_as_much_time_before_it(invoke: Invoke, ledger: Path) -> None:
    arguments = ("report", "--since", "2026-04-01", "--until", "2026-04-02", "--compare")
    output = invoke(*arguments).output
    document = json.loads(invoke(*arguments, "--json").stdout)

    assert [(row[0], row[-1]) for row in rows(output)] == [("researcher", "+68%"), ("writer", "+31%"), ("triage", "0%")]
    assert "  +67% against $0.2829 2026-03-31 to 2026-04-01" in output
    assert document["before"]["total"]["requests"] == 3


def test_there_is_nothing_before_all_time(invoke: Invoke, ledger: Path) -> None:
    assert invoke("report", "--compare").exit_code == 2


@pytest.mark.parametrize(
    ("since", "until", "before"),
    [
        (datetime(2026, 11, 22, tzinfo=UTC), None, (datetime(2026, 11, 21, tzinfo=UTC), NOW - timedelta(days=1))),
        (datetime(2026, 11, 16, tzinfo=UTC), None, (datetime(2026, 11, 9, tzinfo=UTC), NOW - timedelta(days=7))),
        (NOW - timedelta(hours=2), None, (NOW - timedelta(hours=4), NOW - timedelta(hours=2))),
        (
            datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC),
            (datetime(2026, 1, 29, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        ),
    ],
)  # fmt: skip
def test_the_range_before_has_the_same_length_and_ends_at_the_same_time_of_day(
    since: datetime, until: datetime | None, before: tuple[datetime, datetime]
) -> None:
    assert Span(since, until).previous(now=NOW) == before


def test_the_store_may_be_named_by_a_variable(invoke: Invoke, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.rename(ledger.with_name("elsewhere.db"))
    monkeypatch.setenv("AGENT_METER_STORE", "elsewhere.db")

    assert "researcher" in invoke("report").output
    assert invoke().exit_code == 0


def test_a_reader_does_not_wait_for_a_writer_nor_make_one_wait(run: Run, ledger: Path) -> None:
    with sqlite3.connect(ledger, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")

        result = run("report", timeout=20)

        writer.execute("ROLLBACK")
    assert (result.returncode, result.stderr) == (0, "")


def test_in_a_pipe_nothing_is_coloured_or_folded(run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    result = run("report", "--by", "model,agent,user,session,team")

    assert "\x1b" not in result.stdout
    assert "claude-sonnet-4-5" in result.stdout


@pytest.mark.parametrize("name", ["", "user", "model"])
def test_hostile_names_stay_in_their_row(name: str, invoke: Invoke, folder: Path) -> None:
    hostile = "[bold]\x1b[31m=1+1\n\r"
    with Meter(store="meter.db") as meter:
        meter.record_usage(**{"model": "m", name or "agent": hostile})

    output = invoke("report", "--by", name or "agent").output
    assert "\x1b" not in output
    assert [row[0] for row in rows(output)] == [r"[bold]\x1b[31m=1+1\n\r"]
