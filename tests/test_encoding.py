"""Records survive the way through JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import Meter, RunRecord, ToolRecord, UsageRecord
from agent_meter.encoding import from_document, to_document, totals_document, totals_from_document
from agent_meter.records import (
    TOKEN_CLASSES,
    Attempt,
    Cost,
    CostStatus,
    FrozenMap,
    Kind,
    Status,
    TokenUsage,
    new_id,
)
from agent_meter.testing import RecordingPlugin

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
maybe = st.none() | text
counts = st.integers(0, 2**40)
money = st.none() | st.integers(-(2**60), 2**60)
tags = st.dictionaries(text, text, max_size=3).map(FrozenMap)
moments = st.datetimes(timezones=st.just(UTC))
seconds = st.none() | st.floats(0, 1e6)
usages = st.builds(
    TokenUsage,
    *[counts for _ in TOKEN_CLASSES],
    units=st.dictionaries(text, st.integers(0, 99) | st.decimals(0, 99, places=3), max_size=2).map(FrozenMap),
    missing=st.lists(text, max_size=2).map(tuple),
    context=tags,
    reported_pico=money,
)
costs = st.builds(
    Cost,
    st.sampled_from(CostStatus),
    money,
    money,
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    maybe,
    maybe,
    st.lists(text, max_size=2).map(tuple),
    st.lists(text, max_size=2).map(tuple),
    maybe,
    money,
)
kinds = st.sampled_from([Kind.LLM, Kind.EMBEDDING, Kind.RERANK])
calls = st.builds(
    UsageRecord,
    id=st.builds(new_id),
    kind=kinds,
    started_at=moments,
    duration=seconds,
    time_to_first_token=seconds,
    provider=text,
    request_model=text,
    response_model=maybe,
    model=text,
    usage=st.none() | usages,
    cost=costs,
    status=st.sampled_from(Status),
    error_type=maybe,
    cached=st.booleans(),
    estimated=st.booleans(),
    streamed=st.booleans(),
    attempt=st.integers(1, 9),
    response_id=maybe,
    framework=text,
    run_id=maybe,
    parent_id=maybe,
    agent=text,
    task=text,
    user=text,
    session=text,
    step=text,
    tools=st.lists(text, max_size=3).map(tuple),
    tags=tags,
    notes=st.lists(text, max_size=2).map(tuple),
    attempts=st.lists(st.builds(Attempt, st.none() | counts, st.floats(0, 9), seconds, maybe), max_size=2).map(tuple),
)


@given(calls, calls)
def test_a_model_call_comes_back_as_it_was(record, corrected):
    record = msgspec.structs.replace(record, corrects=corrected)

    assert from_document(json.loads(json.dumps(to_document(record), allow_nan=False))) == record


def test_what_comes_back_is_frozen_to_the_bottom():
    usage = TokenUsage(1, 2, units=FrozenMap(web_searches=2), context=FrozenMap(service_tier="flex"))
    record = UsageRecord(
        new_id(),
        Kind.LLM,
        datetime.now(UTC),
        None,
        None,
        "p",
        "m",
        None,
        "m",
        usage,
        Cost(),
        Status.OK,
        tags={"a": "b"},
    )

    back = from_document(to_document(record))

    assert isinstance(back.tags, FrozenMap)
    assert isinstance(back.usage.units, FrozenMap)
    assert isinstance(back.usage.context, FrozenMap)


def test_runs_and_tools_come_back_too():
    seen = RecordingPlugin()
    meter = Meter([seen])
    with meter.run("research", user="u1") as run:
        with run.step() as step:
            step.llm("gpt-4o", provider="openai").__enter__().finish(TokenUsage(10, 5, units={"pages": Decimal("1.5")}))
            with step.tool("search", {"q": "secret"}):
                pass
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=7, tools=("search", "fetch"))

    assert {type(record) for record in seen.records} == {UsageRecord, ToolRecord, RunRecord}
    for record in seen.records:
        back = from_document(json.loads(json.dumps(to_document(record, params=True))))
        for name in record.__struct_fields__:
            assert getattr(back, name) == getattr(record, name), name
        if type(record) is RunRecord:
            assert totals_document(back.usage.totals) == totals_document(record.usage.totals)


def test_what_a_tool_was_called_with_stays_out_unless_it_is_asked_for():
    tool = ToolRecord(new_id(), "search", "", datetime.now(UTC), 0.1, Status.OK, {"q": "secret", "at": object})

    assert "secret" not in json.dumps(to_document(tool))
    assert to_document(tool, params=True)["params"]["q"] == "secret"


def test_totals_come_back_with_the_shares_of_their_tools():
    meter = Meter()
    meter.record_usage(model="gpt-4o", input_tokens=101, output_tokens=7, tools=("a", "b"), units={"s": Decimal("0.1")})
    meter.record_tool_call("a", True, 0.1, {})
    totals = meter.usage.totals

    back = totals_from_document(json.loads(json.dumps(totals_document(totals))))

    assert totals_document(back) == totals_document(totals)
    assert back.turns["a"].asked == 1
    assert back.units == totals.units


def test_a_document_from_elsewhere_needs_only_what_makes_it_a_call():
    record = from_document({"id": "x", "started_at": "2026-11-21T23:00:00+02:00", "request_model": "gpt-4o", "new": 1})

    assert record.kind is Kind.LLM
    assert record.model == "gpt-4o"
    assert record.started_at == datetime(2026, 11, 21, 21, tzinfo=UTC)
    assert record.cost.amount is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"usage": {"input_tokens": "many"}}, "input_tokens"),
        ({"kind": "song"}, "song"),
        ({"started_at": "2026-11-21T23:00:00"}, "offset"),
        ({"status": 7}, "status"),
    ],
)
def test_a_wrong_value_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        from_document({"id": "x", "started_at": "2026-11-21T23:00:00Z", **wrong})


def test_times_are_written_in_utc():
    at = datetime(2026, 11, 21, 1, tzinfo=timezone(timedelta(hours=5)))
    tool = ToolRecord(new_id(), "t", "", at, float("nan"), Status.OK)

    assert to_document(tool)["started_at"] == "2026-11-20T20:00:00+00:00"
    assert to_document(tool)["duration"] == 0.0
