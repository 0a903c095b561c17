"""The other commands over a ledger, on a real SQLite file."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_meter import Meter, TokenUsage
from agent_meter.records import Record
from agent_meter.store import open_store
from agent_meter.views.calls import wilson

from .conftest import Invoke, Run, installed

FIRST = "01a20000-0000-7001-8000-000000000001"


def stored(ledger: Path, *kinds: str) -> list[Record]:
    store = open_store(ledger, readonly=True)
    found = list(store.records(kinds=kinds))
    store.close()
    return found


def documents(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


# --------------------------------------------------------------------------------------------- history, tail


def test_what_is_shown_of_an_id_finds_its_record(invoke: Invoke, folder: Path) -> None:
    with Meter(store="meter.db") as meter:
        for number in range(30):
            with meter.run("nightly"), meter.llm("gpt-4o", provider="openai") as call:
                call.finish(TokenUsage(1000 + number, 10))
        for end in "123":
            meter.record_usage(model="gpt-4o", id=f"01a20000-0000-7000-8000-00000000000{end}")
    wide = {"COLUMNS": "160"}
    calls = [line.split()[2] for line in invoke("history", "-n", "33", env=wide).output.splitlines()[2:]]
    runs = [line.split()[2] for line in invoke("runs", "-n", "30", env=wide).output.splitlines()[2:]]

    assert (len(set(calls)), len(set(runs))) == (33, 30)
    assert {invoke("explain", id).exit_code for id in calls[::4]} == {0}
    assert {invoke("runs", id).exit_code for id in runs[::4]} == {0}


def test_the_history_shows_the_newest_calls_last(invoke: Invoke, ledger: Path) -> None:
    found = documents(invoke("history", "-n", "3", "--json").stdout)

    assert [record["model"] for record in found] == ["gpt-4o-mini", "gpt-4o", "acme-1"]
    assert "cached" in invoke("history", "-n", "3").output


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ("--agent writer", 5), ("--user ada", 7), ("--model gpt-4o", 5), ("--status error", 0),
        ("--since 2026-04-01", 5), ("--tools", 17), ("--agent researcher --model gpt-4o", 4),
    ],
)  # fmt: skip
def test_a_history_can_be_narrowed(options: str, number: int, invoke: Invoke, ledger: Path) -> None:
    assert len(documents(invoke("history", "--json", *options.split()).stdout)) == number


def test_a_run_has_a_history_of_its_own(invoke: Invoke, ledger: Path) -> None:
    (run,) = stored(ledger, "run")

    assert len(documents(invoke("history", "--run", run.id, "--json").stdout)) == 2


def test_no_history_is_wider_than_80_columns(invoke: Invoke, ledger: Path) -> None:
    for command in ("history --tools", "tools", "runs", "doctor --since all"):
        assert max(map(len, invoke(*command.split()).output.splitlines())) <= 80, command


def test_tail_follows_what_another_process_writes(folder: Path) -> None:
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=10, agent="before")
    with subprocess.Popen(
        [installed(), "tail", "-f", "--json"], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as tail:
        assert tail.stdout is not None
        first = json.loads(tail.stdout.readline())
        with Meter(store="meter.db") as meter:
            meter.record_usage(model="gpt-4o", provider="openai", input_tokens=20, agent="after")
        second = json.loads(tail.stdout.readline())
        tail.terminate()

    assert (first["agent"], second["agent"], second["usage"]["input_tokens"]) == ("before", "after", 20)


# ------------------------------------------------------------------------------------------------ tools, runs


def test_tools_have_their_success_percentiles_and_turns(invoke: Invoke, ledger: Path) -> None:
    (tool,) = json.loads(invoke("tools", "--json").stdout)

    assert (tool["name"], tool["total_calls"], tool["failed_calls"]) == ("search", 3, 1)
    assert (tool["p50"], tool["p99"]) == (pytest.approx(0.5, rel=0.02), pytest.approx(0.75, rel=0.02))
    assert tool["turns"]["requests"] == 6
    assert tool["last_errors"] == ["TimeoutError"]


def test_tools_in_a_range_are_those_of_the_range(invoke: Invoke, ledger: Path) -> None:
    (tool,) = json.loads(invoke("tools", "--json", "--since", "2026-03-31", "--until", "2026-04-01").stdout)

    assert (tool["total_calls"], tool["success_rate"]) == (1, 0.0)


def test_tools_as_csv_are_one_row_each(invoke: Invoke, ledger: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(invoke("tools", "--csv").stdout))

    assert (row["name"], row["total_calls"], row["turns"]) == ("search", "3", "6")


@pytest.mark.parametrize(("good", "number", "low"), [(0, 0, 0.0), (3, 3, 0.4385), (90, 100, 0.8256), (0, 10, 0.0)])
def test_few_calls_say_little_for_sure(good: int, number: int, low: float) -> None:
    assert wilson(good, number) == pytest.approx(low, abs=5e-4)


def test_a_run_is_found_by_the_beginning_of_its_id_and_its_tree_adds_up(invoke: Invoke, ledger: Path) -> None:
    (run,) = json.loads(invoke("runs", "--json").stdout)
    tree = json.loads(invoke("runs", run["id"][:18], "--json").stdout)
    screen = invoke("runs", run["id"][:18]).output

    assert (run["name"], run["usage"]["requests"]) == ("nightly", 2)
    assert [(node["depth"], node["name"]) for node in tree["nodes"]] == [(0, "nightly"), (1, "draft")]
    assert sum(Decimal(node["own"]["cost_usd"]) for node in tree["nodes"]) == Decimal(tree["cost_usd"])
    assert re.search(r"^nightly +2 +660 .*1\.9k", screen, re.MULTILINE)


@pytest.mark.parametrize("command", ["runs", "explain"])
def test_an_id_that_nobody_has_is_not_found(command: str, invoke: Invoke, ledger: Path) -> None:
    result = invoke(command, "ffffffff")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "ffffffff" in result.stderr


# --------------------------------------------------------------------------------------------------- explain


def test_the_lines_of_an_explanation_add_up_to_the_cost(invoke: Invoke, ledger: Path) -> None:
    told = json.loads(invoke("explain", FIRST, "--json").stdout)

    assert sum(Decimal(line["usd"]) for line in told["lines"]) == Decimal(told["cost_usd"]) == Decimal("0.0315")
    assert [line["unit"] for line in told["lines"]] == ["input_tokens", "cache_read_tokens", "output_tokens"]
    assert (told["card_known"], told["source"]) == (True, "genai-prices 0.2.3")


def test_every_record_of_a_ledger_can_be_explained(invoke: Invoke, ledger: Path) -> None:
    for record in stored(ledger):
        result = invoke("explain", record.id)

        assert (result.exit_code, result.stderr) == (0, ""), record
        assert record.id in result.output


def test_a_replayed_call_says_that_it_is_not_billed(invoke: Invoke, ledger: Path) -> None:
    (cached,) = [record for record in stored(ledger) if getattr(record, "cached", False)]

    assert "$0.039, billed $0.00" in invoke("explain", cached.id).output


def test_a_card_that_is_not_at_hand_is_said_to_be_missing_with_what_would_be_asked_today(
    invoke: Invoke, folder: Path
) -> None:
    with Meter(store="meter.db", prices={"own": {"input": "2"}}) as meter:
        record = meter.record_usage(model="own", input_tokens=1_000_000)
    (folder / "agent_meter.toml").write_text('[prices."own"]\ninput = "3"\n')

    output = invoke("explain", record.id).output

    assert "· $2.00\n" in output or "· $2\n" in output
    assert "is not among the prices of this machine" in output
    assert "by the prices of this machine it would cost $3.00" in output


# --------------------------------------------------------------------------------- whatif, reprice, reconcile


def test_the_past_under_another_model_is_priced_call_by_call(invoke: Invoke, ledger: Path) -> None:
    (swap,) = json.loads(invoke("whatif", "--model", "gpt-4o=gpt-4o-mini", "--json").stdout)["models"]
    calls = [record for record in stored(ledger, "llm") if getattr(record, "model", "") == "gpt-4o"]
    expected = sum(
        Decimal("0.15") * (call.input_tokens - call.cache_read_tokens)  # type: ignore[union-attr]
        + Decimal("0.075") * call.cache_read_tokens  # type: ignore[union-attr]
        + Decimal("0.6") * call.output_tokens  # type: ignore[union-attr]
        for call in calls
    ) / Decimal(1_000_000)

    assert swap["calls"] == len(calls) == 5
    assert Decimal(swap["was_usd"]) == sum(call.cost_usd for call in calls)  # type: ignore[union-attr]
    assert Decimal(swap["would_be_usd"]) == expected


def test_a_model_that_nobody_can_price_is_in_neither_sum_and_the_exit_code_says_so(
    invoke: Invoke, ledger: Path
) -> None:
    result = invoke("whatif", "--model", "gpt-4o=acme-2", "--json")
    (swap,) = json.loads(result.stdout)["models"]

    assert (result.exit_code, swap["unpriced_calls"], swap["was_usd"]) == (1, 5, "0")


def test_a_model_without_calls_is_not_found(invoke: Invoke, ledger: Path) -> None:
    result = invoke("whatif", "--model", "o3=gpt-4o")

    assert result.exit_code == 1
    assert "No calls of o3" in result.stderr


def test_a_price_that_is_known_by_now_is_shown_then_written_as_a_correction(invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "agent_meter.toml").write_text('[prices."acme-1"]\ninput = "2"\noutput = "4"\n')
    shown = invoke("reprice", "--dry-run", "--json")
    untouched = json.loads(invoke("report", "--json").stdout)["total"]
    written = invoke("reprice", "--json")
    again = invoke("reprice", "--dry-run")
    total = json.loads(invoke("report", "--json").stdout)["total"]

    (change,) = [one for one in json.loads(shown.stdout)["models"] if one["changed"]]
    assert (shown.exit_code, written.exit_code, again.exit_code) == (1, 0, 0)
    assert (change["model"], change["unpriced_before"], change["is_usd"]) == ("acme-1", 1, "0.00108")
    assert (untouched["unpriced_requests"], total["unpriced_requests"]) == (1, 0)
    assert Decimal(total["cost_usd"]) - Decimal(untouched["cost_usd"]) == Decimal("0.00108")
    assert invoke("verify").exit_code == 0


def test_a_range_goes_with_a_dry_run_only(invoke: Invoke, ledger: Path) -> None:
    assert invoke("reprice", "--since", "7d").exit_code == 2


def test_calls_that_name_no_provider_are_on_the_bill_of_the_one_that_has_their_model(
    invoke: Invoke, folder: Path
) -> None:
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", input_tokens=1_000_000)
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1_000_000)
        meter.record_usage(model="gpt-4o", provider="azure", input_tokens=1_000_000)

    assert invoke("reconcile", "--official", "OpenAI=5.00").exit_code == 0


def test_what_the_provider_says_is_compared_in_any_spelling(invoke: Invoke, ledger: Path) -> None:
    ours = json.loads(invoke("report", "--by", "provider", "--json").stdout)
    billed = {row["provider"]: row["billed_cost_usd"] for row in ours["rows"]}
    same = invoke(
        "reconcile", "--official", f"OpenAI={billed['openai']}", "--official", f"claude={billed['anthropic']}"
    )
    differs = invoke("reconcile", "--official", "OPENAI=$1,000.00", "--json")

    assert same.exit_code == 0, same.output
    assert differs.exit_code == 1
    (line,) = json.loads(differs.stdout)["lines"]
    assert (line["official_usd"], line["agrees"]) == ("1000", False)
    assert line["reasons"] == ["1 replayed from a cache and billed 0"]


USAGE = """date,model,cost_usd,input_tokens,output_tokens,input_cached_tokens
2026-03-31,gpt-4o,0.0540,24000,900,6000
2026-03-31,claude-sonnet-4-5,0.5,80000,2100,0
"""


def test_a_providers_export_is_compared_by_day_and_model(invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "usage.csv").write_text(USAGE)
    result = invoke("reconcile", "--usage", "usage.csv", "--json")
    lines = {tuple(line["of"]): line for line in json.loads(result.stdout)["lines"]}

    assert result.exit_code == 1
    assert set(lines) == {("2026-03-31", name) for name in ("gpt-4o", "claude-sonnet-4-5", "gpt-4o-mini")}
    assert (lines["2026-03-31", "gpt-4o"]["our_tokens"], lines["2026-03-31", "gpt-4o"]["official_tokens"]) == (
        24900,
        24900,
    )
    assert lines["2026-03-31", "claude-sonnet-4-5"]["agrees"] is False
    assert lines["2026-03-31", "gpt-4o-mini"]["agrees"] is True  # less than half a cent


def test_an_export_of_tokens_alone_is_compared_by_tokens(invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "usage.csv").write_text(
        "start_time_iso,model,n_context_tokens_total,n_generated_tokens_total\n"
        "2026-03-31T00:00:00+00:00,gpt-4o,24000,900\n"
        "2026-03-31T00:00:00+00:00,gpt-4o-mini,16000,3000\n"
        "2026-03-31T00:00:00+00:00,claude-sonnet-4-5,80000,2100\n"
    )

    assert invoke("reconcile", "--usage", "usage.csv").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("reconcile", 2), ("reconcile --official OpenAI", 2), ("reconcile --official OpenAI=lots", 2),
        ("reconcile --usage odd.csv", 1), ("reconcile --usage none.csv", 2),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(arguments: str, code: int, invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "odd.csv").write_text("a,b\n1,2\n")

    assert invoke(*arguments.split()).exit_code == code


# ------------------------------------------------------------------------------------------ doctor, statusline


def test_the_doctor_names_what_has_no_price_and_what_to_do(invoke: Invoke, ledger: Path) -> None:
    result = invoke("doctor", "--since", "all", "--json")
    findings = {one["about"]: one for one in json.loads(result.stdout)["findings"]}

    assert result.exit_code == 1
    assert (findings["prices"]["ok"], findings["usage"]["ok"]) == (False, True)
    assert "acme/acme-1" in findings["prices"]["said"]


def test_the_doctor_sees_that_a_price_is_known_by_now(invoke: Invoke, ledger: Path) -> None:
    (ledger.parent / "agent_meter.toml").write_text('[prices."acme-1"]\ninput = "2"\noutput = "4"\n')

    assert "has a price by now: agent-meter reprice --dry-run" in invoke("doctor", "--since", "all").output


def test_a_well_ledger_is_well_and_one_of_guesses_is_not(invoke: Invoke, folder: Path) -> None:
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1, agent="a")
    well = invoke("doctor")
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1, estimated=True)
    guessed = invoke("doctor")

    assert (well.exit_code, guessed.exit_code) == (0, 1)
    assert "50.0% of 2 calls have the provider's own usage" in guessed.output


def test_the_status_line_is_one_line_and_nothing_where_there_is_no_ledger(invoke: Invoke, folder: Path) -> None:
    nothing = invoke("statusline")
    now = datetime.now(UTC)
    with Meter(store="meter.db") as meter:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=400_000, started_at=now)
        meter.record_usage(
            model="gpt-4o", provider="openai", input_tokens=800_000, started_at=now - timedelta(days=3), agent="b"
        )

    assert (nothing.exit_code, nothing.output) == (0, "")
    assert invoke("statusline").output == "$1.00 today · $3.00 7d · 1 calls · 400k tokens\n"
    assert invoke("statusline", "--agent", "b").output == "$0.00 today · $2.00 7d · 0 calls · 0 tokens\n"


# ---------------------------------------------------------------------------------------------- prune, verify


def test_pruned_records_are_in_the_file_and_reports_of_days_stay_as_they_were(invoke: Invoke, ledger: Path) -> None:
    before = json.loads(invoke("report", "--by", "day,agent", "--json").stdout)
    result = invoke("prune", "--before", "2026-03-31", "--export", "old.jsonl", "--yes", "--json")
    after = json.loads(invoke("report", "--by", "day,agent", "--json").stdout)

    done = json.loads(result.stdout)
    assert (result.exit_code, done["exported"], done["deleted"] >= 8) == (0, 9, True)
    assert after == before
    assert {record.started_at.day for record in stored(ledger)} == {31, 1}
    assert invoke("import", "old.jsonl", "--store", "archive.db").exit_code == 0
    assert invoke("verify").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("prune --before 2026-03-31", "add --yes"),
        ("prune --before 2099-01-01 --yes", "in the future"),
        ("prune --before all --yes", "say before when"),
        ("prune --before 2026-03-31 --yes --store nowhere.db", "no store 'nowhere.db'"),
        ("prune --before 2026-03-31 --yes --export old.xyz", "name one of csv"),
        ("verify --store nowhere.db", "no store 'nowhere.db'"),
    ],
)
def test_nothing_is_deleted_by_mistake(arguments: str, said: str, invoke: Invoke, ledger: Path) -> None:
    number = len(stored(ledger))
    result = invoke(*arguments.split())

    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
    assert len(stored(ledger)) == number


def test_sums_that_are_wrong_are_found_and_repaired(invoke: Invoke, ledger: Path) -> None:
    import sqlite3

    assert invoke("verify").exit_code == 0
    connection = sqlite3.connect(ledger)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    connection.close()
    assert "record" in tables
    total = json.loads(invoke("report", "--json").stdout)["total"]

    assert invoke("verify", "--repair", "--prices", "--json").exit_code == 0
    assert json.loads(invoke("report", "--json").stdout)["total"] == total


def test_the_commands_are_quick_to_answer(run: Run, ledger: Path) -> None:
    best = 9.0
    for _ in range(3):
        begin = time.perf_counter()
        result = run("statusline")
        best = min(best, time.perf_counter() - begin)

    assert result.returncode == 0
    assert best < 2.0  # a status bar asks every few seconds


def test_an_estimated_cost_is_marked_in_the_history(invoke: Invoke, folder: Path) -> None:
    with Meter(store="meter.db") as meter:
        with meter.llm("gpt-4o", provider="openai") as call:
            call.finish(TokenUsage(5, missing=("output_tokens",)))
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=5, estimated=True)

    assert invoke("history").output.count("≈") == 2
