"""`usage_by`, `top`, `history`: the same calls by any dimension, adding up to the whole, in bounded memory."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter import AgentUsage, Meter, accounts
from agent_meter.totals import COUNTERS

DIMENSIONS = ("agent", "task", "user", "session", "step", "provider", "model", "tool", "hour", "day", "week", "month")
START = datetime(2026, 12, 30, 22, 30, tzinfo=UTC)

NAMES = st.sampled_from(["", "a", "b"])
CALLS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt-4o", "gpt-4o-mini", "house", ""]),
        "provider": st.sampled_from([None, "openai", "ollama"]),
        "kind": st.sampled_from(["llm", "llm", "embedding", "rerank"]),
        "input_tokens": st.integers(0, 5000),
        "output_tokens": st.integers(0, 5000),
        "cache_read_tokens": st.integers(0, 9),
        "reasoning_tokens": st.integers(0, 9),
        "units": st.sampled_from([{}, {"web_searches": 2}]),
        "cached": st.booleans(),
        "status": st.sampled_from(["ok", "ok", "error", "abandoned", "denied"]),
        "tools": st.lists(st.sampled_from(["search", "add", "(other)"]), max_size=3).map(tuple),
        "started_at": st.integers(0, 80).map(lambda hours: START + timedelta(hours=hours)),
        "agent": NAMES,
        "task": NAMES,
        "user": NAMES,
        "session": NAMES,
        "step": NAMES,
        "team": st.sampled_from([None, "x", "y"]),
    }
)
TOOL_CALLS = st.fixed_dictionaries({"name": st.sampled_from(["search", "run"]), "agent": NAMES, "team": NAMES})


def made(calls: list[dict[str, Any]], tool_calls: list[dict[str, Any]]) -> Meter:
    meter = Meter(analytics=False)
    for call in calls:
        meter.record_usage(**call)
    for call in tool_calls:
        meter.record_tool_call(call["name"], True, 0.1, {}, agent=call["agent"], team=call["team"])
    return meter


def assert_adds_up(groups: dict[Any, AgentUsage], whole: AgentUsage) -> None:
    for counter in COUNTERS:
        assert sum(getattr(usage.totals, counter) for usage in groups.values()) == getattr(whole.totals, counter), (
            counter
        )
    tools = {name for usage in groups.values() for name in usage.tool_tokens} | set(whole.tool_tokens)
    for tool in tools:
        assert sum(usage.tool_tokens.get(tool, 0) for usage in groups.values()) == whole.tool_tokens.get(tool, 0)
    units = {name for usage in groups.values() for name in usage.units} | set(whole.units)
    for unit in units:
        assert sum(usage.units.get(unit, 0) for usage in groups.values()) == whole.units.get(unit, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(CALLS, max_size=10), st.lists(TOOL_CALLS, max_size=4), st.data())
def test_the_values_of_any_dimensions_add_up_to_the_whole_in_every_counter(
    calls: list[dict[str, Any]], tool_calls: list[dict[str, Any]], data: st.DataObject
) -> None:
    meter = made(calls, tool_calls)
    several = data.draw(st.lists(st.sampled_from([*DIMENSIONS, "team"]), min_size=2, max_size=3, unique=True))

    for dimension in (*DIMENSIONS, "team", "nobody uses this tag"):
        assert_adds_up(meter.usage_by(dimension), meter.usage)
    assert_adds_up(meter.usage_by(*several), meter.usage)


@settings(max_examples=60, deadline=None)
@given(st.lists(CALLS, max_size=10), st.data())
def test_every_key_has_the_sum_of_its_own_calls(calls: list[dict[str, Any]], data: st.DataObject) -> None:
    meter = made(calls, [])
    dimension = data.draw(st.sampled_from(["agent", "task", "user", "session", "step", "provider", "model", "team"]))
    counted = [call for call in calls if call["status"] != "denied"]

    expected: dict[str, int] = {}
    for call in counted:
        tokens = 0 if call["kind"] == "embedding" else call["input_tokens"] + call["output_tokens"]
        expected[call[dimension] or ""] = expected.get(call[dimension] or "", 0) + tokens

    told = {key: usage.total_tokens for key, usage in meter.usage_by(dimension).items() if usage.requests}
    assert told == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=8))
def test_the_iterations_of_a_key_are_its_own_records(calls: list[dict[str, Any]]) -> None:
    meter = made(calls, [])

    for dimension in ("agent", "model", "day", "team"):
        groups = meter.usage_by(dimension)
        assert sum(len(usage.iterations) for usage in groups.values()) == meter.usage.requests
        for usage in groups.values():
            assert len(usage.iterations) == usage.requests


# ------------------------------------------------------------------------------------------------ dimensions


def test_what_nobody_attributed_is_under_the_empty_key() -> None:
    meter = made([{"model": "m", "input_tokens": 1}, {"model": "m", "input_tokens": 2, "agent": "a"}], [])

    assert {key: usage.input_tokens for key, usage in meter.usage_by("agent").items()} == {"a": 2, "": 1}
    assert {key: usage.input_tokens for key, usage in meter.usage_by("user").items()} == {"": 3}
    assert {key: usage.input_tokens for key, usage in meter.usage_by("team").items()} == {"": 3}


def test_where_everything_is_attributed_there_is_no_empty_key() -> None:
    meter = made([{"model": "m", "agent": "a", "team": "x"}], [])

    assert (list(meter.usage_by("agent")), list(meter.usage_by("team"))) == (["a"], ["x"])


def test_a_tool_call_has_no_model() -> None:
    meter = made([{"model": "m", "agent": "a"}], [{"name": "run", "agent": "a", "team": ""}])

    assert list(meter.usage_by("model")) == ["m"]
    assert list(meter.usage_by("agent", "model")) == [("a", "m")]
    assert meter.usage_by("agent")["a"].tool_usage == {"run": 1}
    assert meter.usage_by("agent", "tool")["a", "run"].tool_usage == {"run": 1}


def test_several_dimensions_give_tuples_in_their_order() -> None:
    meter = made([{"model": "m", "agent": "a", "team": "x", "tools": ("search",), "input_tokens": 8}], [])

    assert list(meter.usage_by("team", "agent", "model")) == [("x", "a", "m")]
    assert {key: usage.total_tokens for key, usage in meter.usage_by("agent", "tool", "model").items()} == {
        ("a", "search", "m"): 8
    }


def test_tools_share_every_counter_of_their_turns() -> None:
    meter = made(
        [{"model": "gpt-4o", "input_tokens": 9, "cache_read_tokens": 5, "status": "error", "tools": ("a", "b")}], []
    )
    by_tool = meter.usage_by("tool")

    assert {name: (usage.input_tokens, usage.cache_read_tokens) for name, usage in by_tool.items()} == {
        "a": (5, 3),
        "b": (4, 2),
    }
    assert {name: usage.failed_requests for name, usage in by_tool.items()} == {"a": 1, "b": 0}
    assert by_tool["a"].tool_usage == {"a": 1}


@pytest.mark.parametrize(
    ("moment", "hour", "day", "week", "month"),
    [
        ("2026-11-21T22:59:59.999+00:00", "2026-11-21T22", "2026-11-21", "2026-W47", "2026-11"),
        ("2026-12-31T23:59:59+00:00", "2026-12-31T23", "2026-12-31", "2026-W53", "2026-12"),
        ("2027-01-01T00:00:00+00:00", "2027-01-01T00", "2027-01-01", "2026-W53", "2027-01"),
        ("2027-01-04T00:00:00+00:00", "2027-01-04T00", "2027-01-04", "2027-W01", "2027-01"),
        ("2024-12-30T12:00:00+00:00", "2024-12-30T12", "2024-12-30", "2025-W01", "2024-12"),
        ("2027-01-01T08:30:00+09:00", "2026-12-31T23", "2026-12-31", "2026-W53", "2026-12"),
        ("2024-02-29T00:00:00-05:00", "2024-02-29T05", "2024-02-29", "2024-W09", "2024-02"),
    ],
)
def test_periods_are_utc_and_weeks_are_iso(moment: str, hour: str, day: str, week: str, month: str) -> None:
    meter = Meter()
    meter.record_usage(model="m", started_at=datetime.fromisoformat(moment), agent="a")

    periods = ("hour", "day", "week", "month")
    assert [list(meter.usage_by(period)) for period in periods] == [[hour], [day], [week], [month]]
    assert list(meter.usage_by("agent", *periods)) == [("a", hour, day, week, month)]
    assert len(meter.usage_by("month")[month].iterations) == 1


def test_a_call_belongs_to_the_hour_in_which_it_began() -> None:
    meter = Meter()
    for minutes in (0, 29, 30, 90):
        meter.record_usage(model="m", started_at=START + timedelta(minutes=minutes))

    assert {hour: usage.requests for hour, usage in meter.usage_by("hour").items()} == {
        "2026-12-30T22": 2,
        "2026-12-30T23": 1,
        "2026-12-31T00": 1,
    }


@pytest.mark.parametrize(
    ("asked", "meant"), [("agnet", "agent"), ("models", "model"), ("days", "day"), ("sesion", "session")]
)
def test_a_misspelt_dimension_is_an_error_with_the_nearest_name(asked: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"no dimension and no tag '{asked}' so far; did you mean '{meant}'"):
        Meter().usage_by(asked)


def test_a_tag_may_be_named_almost_like_a_dimension() -> None:
    meter = made([{"model": "m", "models": "big"}], [])

    assert list(meter.usage_by("models")) == ["big"]


def test_no_dimension_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="name at least one dimension: agent, task, user"):
        Meter().usage_by()


# -------------------------------------------------------------------------------------------------------- top


def test_the_biggest_come_first_and_equals_by_name() -> None:
    meter = made(
        [
            {"model": "gpt-4o-mini", "input_tokens": tokens, "user": user}
            for user, tokens in zip("cabd", (5, 9, 5, 1), strict=True)
        ]
        + [{"model": "gpt-4o", "input_tokens": 1, "user": "d"}],
        [],
    )

    assert [(user, usage.total_tokens) for user, usage in meter.top("user", 3)] == [("a", 9), ("b", 5), ("c", 5)]
    assert [user for user, _ in meter.top("user", 1, by="cost_usd")] == ["d"]
    assert [user for user, _ in meter.top("user", 1, by="requests")] == ["d"]
    assert len(meter.top("user")) == 4


# ----------------------------------------------------------------------------------------------------- bounds


def test_a_dimension_keeps_ten_thousand_keys_and_the_rest_sums_up() -> None:
    meter = Meter(analytics=False, keep=10)
    for number in range(10_050):
        meter.record_usage(model="gpt-4o", input_tokens=1, user=f"u{number}")
    for _ in range(3):
        meter.record_usage(model="gpt-4o", input_tokens=1, user="u7")
        meter.record_usage(model="gpt-4o", input_tokens=1, user="u10049")

    by_user = meter.usage_by("user")
    assert len(by_user) == 10_001
    assert by_user["(other)"].requests == 50 + 3
    assert by_user["u7"].requests == 4
    assert sum(usage.total_tokens for usage in by_user.values()) == meter.usage.total_tokens == 10_056
    assert meter.usage_by("model")["gpt-4o"].requests == 10_056


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_KEYS", 4)
    monkeypatch.setattr(accounts, "MAX_COMBINATIONS", 4)
    monkeypatch.setattr(accounts, "MAX_TAGS", 2)
    monkeypatch.setattr(accounts, "HOT_CELLS", 2)


@pytest.mark.usefixtures("tight")
def test_combinations_that_are_kept_stay_exact_and_the_rest_sums_up() -> None:
    meter = Meter(analytics=False)
    for hour, user in itertools.product(range(3), "abcdefgh"):
        meter.record_usage(
            model="gpt-4o", input_tokens=1, user=user, agent="x", started_at=START + timedelta(hours=hour)
        )

    assert {key: usage.requests for key, usage in meter.usage_by("user", "model").items()} == {
        ("a", "gpt-4o"): 3,
        ("b", "gpt-4o"): 3,
        ("c", "gpt-4o"): 3,
        ("d", "gpt-4o"): 3,
        ("(other)", "gpt-4o"): 12,
    }
    assert sum(usage.requests for usage in meter.usage_by("agent", "hour").values()) == 24
    assert {key for key, _ in meter.usage_by("agent", "user")} == {"x"}


@pytest.mark.usefixtures("tight")
@settings(max_examples=40, deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=40), st.lists(TOOL_CALLS, max_size=10))
def test_however_little_is_kept_everything_adds_up(
    calls: list[dict[str, Any]], tool_calls: list[dict[str, Any]]
) -> None:
    meter = made(
        [{**call, f"tag{number % 4}": "v", "user": f"u{number}"} for number, call in enumerate(calls)], tool_calls
    )

    for dimensions in (
        ("user",),
        ("agent",),
        ("day",),
        ("tag3",),
        ("user", "model"),
        ("agent", "tool"),
        ("task", "day"),
    ):
        groups = meter.usage_by(*dimensions)
        assert_adds_up(groups, meter.usage)
    assert len(meter.usage_by("user").keys() - {"", "(other)"}) <= 4
    assert ("" in meter.usage_by("user")) == bool(tool_calls)


@pytest.mark.usefixtures("tight")
def test_the_number_of_combinations_is_bounded() -> None:
    meter = Meter(analytics=False)
    for number in range(400):
        meter.record_usage(
            model=f"m{number}",
            provider=f"p{number}",
            agent=f"a{number}",
            user=f"u{number}",
            tag=f"t{number}",
            started_at=START + timedelta(hours=number),
        )

    assert len(meter.usage_by("agent", "user", "model", "hour")) <= 12
    assert sum(usage.requests for usage in meter.usage_by("agent", "hour").values()) == 400


@pytest.mark.usefixtures("tight")
def test_names_of_tags_are_bounded_and_the_calls_are_counted() -> None:
    meter = Meter()
    for number in range(5):
        meter.record_usage(model="m", **{f"tag{number}": "v"})

    assert list(meter.usage_by("tag0")) == ["v", ""]
    assert list(meter.usage_by("tag4")) == [""]
    assert meter.usage.requests == 5


def test_money_by_key_is_exact() -> None:
    meter = Meter(cost_rates={"house": "0.0000001"})
    for _ in range(1000):
        meter.record_usage(model="house", input_tokens=1, user="u")

    assert meter.usage_by("user")["u"].cost_usd == Decimal("0.0000001")
