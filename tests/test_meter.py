"""The path of a call: opened, admitted, closed by exactly one record, whatever happens in between."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agent_meter import (
    BudgetExceeded,
    Call,
    CostStatus,
    Denial,
    Kind,
    Meter,
    MeterError,
    Model,
    PluginError,
    Status,
    TokenUsage,
    default_meter,
    hookimpl,
)
from agent_meter.pricing import Rates
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import FakeClock, RecordingPlugin

GPT = Model("openai", "gpt-4o")
USAGE = TokenUsage(30, 15)
COST = Decimal("0.000225")  # 30 × $2.50/1M + 15 × $10/1M


class Denying:
    """Denies model calls and tool calls named in `names`."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        name = call.model.name if call.model else call.name
        return Denial(f"{name} is closed", by="gate") if name in self.names else None


@pytest.fixture
def watching() -> RecordingPlugin:
    return RecordingPlugin()


@pytest.fixture
def meter(watching: RecordingPlugin) -> Meter:
    return Meter([watching])


def opened(meter: Meter, kind: Kind = Kind.LLM, **options: Any) -> Call:
    model = GPT if kind is Kind.LLM else None
    return meter.open(Call(kind, "" if model else "name", model=model, **options))


# -------------------------------------------------------------------------------------- exactly one record


@pytest.mark.parametrize("status", [Status.OK, Status.ERROR, Status.CANCELLED, Status.ABANDONED])
@pytest.mark.parametrize("kind", [Kind.LLM, Kind.EMBEDDING, Kind.RERANK, Kind.TOOL, Kind.RUN, Kind.STEP])
def test_a_closed_call_has_one_record_of_its_status(kind: Kind, status: Status, watching: RecordingPlugin) -> None:
    meter = Meter([watching])
    call = opened(meter, kind)

    record = meter.close(call, status=status)

    assert watching.records == [record]
    assert (record.id, record.kind, record.status) == (call.id, kind, status)
    assert call.record is record
    assert call.done
    assert meter.health()["open_calls"] == 0


def test_a_second_close_changes_nothing(meter: Meter, watching: RecordingPlugin) -> None:
    call = opened(meter)
    first = meter.close(call, USAGE)

    second = meter.close(call, TokenUsage(999, 999), status=Status.ERROR)

    assert second is first
    assert watching.records == [first]
    assert meter.usage.total_tokens == 45


def test_a_call_that_was_never_opened_cannot_be_closed(meter: Meter, watching: RecordingPlugin) -> None:
    with pytest.raises(MeterError, match=r"close\(\) before open\(\): <Call llm openai/gpt-4o"):
        meter.close(Call(Kind.LLM, model=GPT))
    assert watching.records == []


def test_a_call_says_what_is_known_of_it(meter: Meter) -> None:
    clock = FakeClock(datetime(2026, 5, 1, 12, tzinfo=UTC))
    meter = Meter(clock=clock)
    call = Call(Kind.LLM, model=GPT, framework="acme")
    call.attempt, call.streamed = 2, True
    meter.open(call)
    clock.advance(0.25)
    call.first_token_at = clock.monotonic()
    clock.advance(0.75)

    record: Any = meter.close(
        call,
        USAGE,
        response_model="gpt-4o-2024-08-06",
        response_id="chatcmpl-1",
        tools=("search",),
        notes=("counted twice",),
    )

    assert (record.started_at, record.duration) == (datetime(2026, 5, 1, 12, tzinfo=UTC), 1.0)
    assert record.time_to_first_token == 0.25
    assert (record.provider, record.request_model, record.response_model) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert (record.usage, record.attempt, record.streamed, record.framework) == (USAGE, 2, True, "acme")
    assert (record.response_id, record.tools, record.notes) == ("chatcmpl-1", ("search",), ("counted twice",))
    assert (record.error_type, record.cached, record.estimated, record.corrects) == (None, False, False, None)


# ------------------------------------------------------------------------------------ parents and children


def test_a_parent_that_closes_gives_up_its_open_children_first(meter: Meter, watching: RecordingPlugin) -> None:
    run = opened(meter, Kind.RUN)
    step = opened(meter, Kind.STEP, parent=run)
    tool = opened(meter, Kind.TOOL, parent=step)
    llm = opened(meter, parent=tool)
    done = opened(meter, parent=step)
    meter.close(done, USAGE)

    meter.close(run)

    assert [(record.id, record.status) for record in watching.records] == [
        (done.id, "ok"),
        (llm.id, "abandoned"),
        (tool.id, "abandoned"),
        (step.id, "abandoned"),
        (run.id, "ok"),
    ]
    assert {record.error_type for record in watching.records[1:4]} == {"abandoned"}
    assert meter.health()["open_calls"] == 0


def test_a_detached_call_outlives_its_parent(meter: Meter, watching: RecordingPlugin) -> None:
    """A stream that was handed to the caller ends later than the agent that began it."""
    run = opened(meter, Kind.RUN)
    stream = opened(meter, parent=run)
    meter.detach(stream)

    meter.close(run)
    assert [record.id for record in watching.records] == [run.id]
    meter.close(stream, USAGE)

    assert [(record.id, record.status) for record in watching.records] == [(run.id, "ok"), (stream.id, "ok")]
    assert meter.tree(run.id).usage.total_tokens == 45


def test_a_shutdown_gives_up_everything_detached_calls_too(meter: Meter, watching: RecordingPlugin) -> None:
    run = opened(meter, Kind.RUN)
    stream = opened(meter, parent=run)
    meter.detach(stream)

    meter.shutdown()

    assert Counter((record.id, record.status) for record in watching.records) == {
        (run.id, "abandoned"): 1,
        (stream.id, "abandoned"): 1,
    }
    assert watching.names()[-1] == "meter_shutdown"


def test_calls_know_the_run_and_the_parent_around_them(meter: Meter, watching: RecordingPlugin) -> None:
    outer = opened(meter, Kind.RUN)
    inner = opened(meter, Kind.RUN, parent=outer)
    llm = opened(meter, parent=inner)
    for call in (llm, inner, outer):
        meter.close(call)

    told = {record.id: (record.run_id, record.parent_id) for record in watching.records}
    assert told == {llm.id: (inner.id, inner.id), inner.id: (inner.id, outer.id), outer.id: (outer.id, None)}


# --------------------------------------------------------------------------------------- lost and late ends


def test_a_call_that_nobody_closes_expires(watching: RecordingPlugin) -> None:
    clock = FakeClock()
    meter = Meter([watching], clock=clock)
    lost, run = opened(meter), opened(meter, Kind.RUN)
    clock.advance(Meter.call_ttl - 1)
    young = opened(meter)
    assert meter.expire() == 0
    clock.advance(2)

    assert meter.expire() == 1

    record = watching.records[0]
    assert [record.id, record.status, record.error_type] == [lost.id, "abandoned", "expired"]
    assert meter.health()["open_calls"] == 2
    assert meter.health()["expired_calls"] == 1
    clock.advance(Meter.run_ttl)
    assert meter.expire() == 2
    assert {record.id for record in watching.records[1:]} == {young.id, run.id}


def test_expiry_needs_no_caller(watching: RecordingPlugin) -> None:
    """Any later call sweeps, at most once a minute."""
    clock = FakeClock()
    meter = Meter([watching], clock=clock)
    lost = opened(meter)
    clock.advance(Meter.call_ttl + 61)

    opened(meter)

    assert [record.id for record in watching.records] == [lost.id]


def test_an_age_may_be_given_to_expiry(watching: RecordingPlugin) -> None:
    clock = FakeClock()
    meter = Meter([watching], clock=clock)
    opened(meter)
    clock.advance(10)

    assert meter.expire(older_than=10) == 0
    assert meter.expire(older_than=9) == 1


def late_answer(meter: Meter) -> tuple[Any, Any]:
    """A call that its run gave up, and that is answered afterwards: what was told, and what is told then."""
    with meter.run("r") as run:
        call = opened(meter, parent=run.call)
    given_up = call.record
    return given_up, meter.close(call, USAGE, response_id="late")


def test_an_answer_after_the_end_corrects_the_record(meter: Meter, watching: RecordingPlugin) -> None:
    given_up, corrected = late_answer(meter)

    assert (given_up.status, given_up.usage, given_up.cost_usd) == ("abandoned", None, None)
    assert (corrected.id, corrected.status, corrected.usage) == (given_up.id, "ok", USAGE)
    assert corrected.corrects is given_up
    usage = meter.usage
    assert (usage.requests, usage.api_calls, usage.total_tokens, usage.cost_usd) == (1, 1, 45, COST)
    assert (usage.failed_requests, usage.unpriced_requests, usage.estimated_requests) == (0, 0, 0)
    assert meter.history() == [corrected]
    assert meter.usage_by("model")["gpt-4o"].requests == 1
    assert meter.tree(given_up.run_id).usage.total_tokens == 45
    assert meter.health()["corrected_calls"] == 1
    assert [record.status for record in watching.usage_records] == ["abandoned", "ok"]


def test_only_the_first_late_answer_counts(meter: Meter) -> None:
    late_answer(meter)
    call = opened(meter)
    meter.expire(older_than=-1)

    assert meter.close(call, status=Status.ABANDONED) is call.record
    meter.close(call, USAGE)
    meter.close(call, TokenUsage(1000, 1000))
    assert meter.usage.total_tokens == 90
    assert meter.usage.requests == 2


def test_an_expired_call_that_answers_is_corrected_too() -> None:
    clock = FakeClock()
    meter = Meter(clock=clock)
    call = opened(meter)
    clock.advance(Meter.call_ttl + 1)
    meter.expire()
    clock.advance(5)

    record: Any = meter.close(call, USAGE)

    assert (record.status, record.duration) == ("ok", Meter.call_ttl + 6)
    assert meter.usage.requests == 1


def test_a_late_answer_after_a_reset_counts_once_and_takes_nothing_back(meter: Meter) -> None:
    call = opened(meter)
    meter.expire(older_than=-1)
    meter.reset()

    corrected = meter.close(call, USAGE)

    assert (meter.usage.requests, meter.usage.total_tokens, meter.usage.failed_requests) == (1, 45, 0)
    assert meter.history() == [corrected]


def test_a_late_answer_after_its_sessions_reset_is_right_in_the_total_and_in_the_session(meter: Meter) -> None:
    call = Call(Kind.LLM, model=GPT)
    call.session = "s1"
    meter.open(call)
    meter.expire(older_than=-1)
    meter.reset(session="s1")

    corrected = meter.close(call, USAGE)

    by_session = meter.usage_by("session")
    assert (meter.usage.requests, meter.usage.total_tokens, meter.usage.failed_requests) == (1, 45, 0)
    assert list(by_session) == ["s1"]
    assert (by_session["s1"].requests, by_session["s1"].total_tokens, by_session["s1"].failed_requests) == (1, 45, 0)
    assert meter.usage_by("session", "model")["s1", "gpt-4o"].total_tokens == 45
    assert meter.history() == [corrected]


def test_two_threads_that_end_a_call_at_once_lose_nothing() -> None:
    """One gives it up (its run has ended), the other has the answer: whoever comes first, the answer is counted."""
    slow = threading.Event()

    class SlowRates(Rates):
        def price(self, *args: Any) -> Any:
            slow.wait(5)  # between the end of the call and its record
            return super().price(*args)

    class Acme:
        @hookimpl
        def meter_find_rates(self, model: Model) -> Any:
            return SlowRates(Rates.per_million("1", "1").segments)

    meter = Meter([Acme()])
    call = opened(meter)
    giving_up = threading.Thread(target=lambda: meter.close(call, USAGE, status=Status.ABANDONED))
    giving_up.start()
    while call.id in meter._open:
        pass
    threading.Timer(0.05, slow.set).start()
    record = meter.close(call, TokenUsage(70, 30))
    giving_up.join()

    assert record.status == "ok"
    assert (meter.usage.requests, meter.usage.total_tokens) == (1, 100)


# -------------------------------------------------------------------------------------------------- denial


def test_a_denied_call_is_never_made_and_leaves_one_record(watching: RecordingPlugin) -> None:
    meter = Meter([watching, Denying("gpt-4o")])

    with pytest.raises(BudgetExceeded, match="gate: gpt-4o is closed"), meter.llm("gpt-4o"):
        pytest.fail("the call was made")

    (record,) = watching.usage_records
    assert (record.status, record.error_type, record.usage) == ("denied", "BudgetExceeded", None)
    assert (record.billed_cost_usd, record.cost_usd, record.estimated) == (0, 0, False)
    assert record.cost.status is not CostStatus.UNPRICED
    usage = meter.usage
    assert (usage.requests, usage.api_calls, usage.cached_requests, usage.unpriced_requests) == (0, 0, 0, 0)
    assert (usage.denied_requests, usage.failed_requests, usage.cost_usd) == (1, 0, 0)
    assert meter.health()["open_calls"] == 0
    assert watching.calls == []


def test_the_history_shows_denied_calls_only_when_asked_and_in_their_place() -> None:
    meter = Meter([Denying("closed")])
    for model in ("a", "closed", "b", "closed", "c"):
        try:
            with meter.llm(model) as call:
                call.finish(USAGE)
        except BudgetExceeded:
            pass
    meter.record_usage(model="d", id="an id of its own")

    assert [record.request_model for record in meter.history()] == ["a", "b", "c", "d"]
    told = [record.request_model for record in meter.history(include_denied=True)]
    assert told == ["a", "closed", "b", "closed", "c", "d"]
    assert [record.request_model for record in meter.history(3, include_denied=True)] == ["closed", "c", "d"]


def test_a_denied_tool_is_neither_run_nor_counted(watching: RecordingPlugin) -> None:
    meter = Meter([watching, Denying("shell")])

    with pytest.raises(BudgetExceeded), meter.tool("shell"):
        pytest.fail("the tool was run")

    assert watching.tool_records[0].status == "denied"
    assert meter.usage.tool_usage == {}
    assert meter.analytics.get_metrics("shell").total_calls == 0
    assert meter.analytics.get_metrics("shell").denied_calls == 1


def test_what_has_happened_cannot_be_denied() -> None:
    meter = Meter([Denying("gpt-4o")])

    assert meter.record_usage(model="gpt-4o", input_tokens=1).status == "ok"


def test_a_denied_call_does_not_end_the_run_around_it(watching: RecordingPlugin) -> None:
    meter = Meter([watching, Denying("gpt-4o")])

    with meter.run("r") as run:
        with pytest.raises(BudgetExceeded), run.llm("gpt-4o"):
            pass
        with run.llm("gpt-4o-mini") as call:
            call.finish(USAGE)

    assert [record.status for record in watching.records] == ["denied", "ok", "ok"]
    assert meter.tree(run.id).usage.requests == 1
    assert meter.tree(run.id).usage.denied_requests == 1


# --------------------------------------------------------------------------------------------------- money


def test_the_model_that_answers_prices_the_call() -> None:
    record: Any = _ended(Meter(), "gpt-4o", response_model="gpt-4o-mini")

    assert record.model == "gpt-4o-mini"
    assert record.cost_usd == Decimal("0.0000135")  # 30 × $0.15/1M + 15 × $0.60/1M


def test_the_model_that_was_asked_for_prices_the_call_where_the_answering_one_is_unknown() -> None:
    record = _ended(Meter(), "gpt-4o", response_model="zz-internal-9")

    assert (record.model, record.cost_usd) == ("gpt-4o", COST)


def test_an_unpriced_call_is_none_and_never_zero() -> None:
    meter = Meter()
    record = _ended(meter, "zz-house-model")

    assert (record.cost_usd, record.billed_cost_usd) == (None, None)
    assert record.cost.status is CostStatus.UNPRICED
    assert meter.usage.unpriced_requests == 1
    assert meter.usage.is_lower_bound
    assert meter.usage.cost_usd == 0
    assert "Total Cost: ≥ $0.000000" in str(meter.usage)


def test_a_call_whose_usage_is_unknown_is_unpriced_though_its_rates_are_known() -> None:
    meter = Meter()
    record: Any = meter.close(opened(meter), None)

    assert (record.cost_usd, record.cost.reason, record.estimated) == (None, "no_usage", True)


def test_a_local_model_is_free_even_when_its_usage_is_unknown() -> None:
    meter = Meter()
    call = meter.open(Call(Kind.LLM, model=Model("ollama", "llama3")))
    record: Any = meter.close(call, None)

    assert (record.cost.status, record.cost_usd) == (CostStatus.FREE, 0)


def test_an_error_without_an_answer_costs_nothing_and_is_not_unpriced() -> None:
    meter = Meter()
    record: Any = meter.close(opened(meter), None, status=Status.ERROR, error_type="RateLimitError")

    assert (record.billed_cost_usd, record.error_type, record.estimated) == (0, "RateLimitError", False)
    assert (meter.usage.failed_requests, meter.usage.unpriced_requests) == (1, 0)


def test_an_error_after_an_answer_costs_what_it_used() -> None:
    meter = Meter()
    record: Any = meter.close(opened(meter), USAGE, status=Status.ERROR, error_type="OutputParserException")

    assert record.cost_usd == COST
    assert (meter.usage.failed_requests, meter.usage.cost_usd) == (1, COST)


def test_a_cached_call_has_its_list_price_is_billed_nothing_and_saves() -> None:
    meter = Meter()
    paid = _ended(meter, "gpt-4o")
    replayed = _ended(meter, "gpt-4o", cached=True)

    assert (replayed.cost_usd, replayed.billed_cost_usd) == (COST, 0)
    assert (paid.cost_usd, paid.billed_cost_usd) == (COST, COST)
    usage = meter.usage
    assert (usage.cost_usd, usage.billed_cost_usd, usage.saved_cost_usd) == (2 * COST, COST, COST)
    assert (usage.requests, usage.api_calls, usage.cached_requests) == (2, 1, 1)


def test_rates_follow_the_price_book() -> None:
    meter = Meter(cost_rates={"house": 0.001})
    first = meter.record_usage(model="house", input_tokens=1000)
    meter.prices.set("house", Rates.per_million(input="5", output="5"))
    second = meter.record_usage(model="house", input_tokens=1000)

    assert (first.cost_usd, second.cost_usd) == (Decimal("0.001"), Decimal("0.005"))


def _ended(meter: Meter, model: str, **options: Any) -> Any:
    return meter.close(meter.open(Call(Kind.LLM, model=Model("", model))), USAGE, **options)


# ------------------------------------------------------------------------------------------ telling facts


def test_every_fact_of_a_call_can_be_told() -> None:
    meter = Meter()
    counts = {name: number for number, name in enumerate(TOKEN_CLASSES[2:], 1)}
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)

    record = meter.record_usage(
        model="gpt-4o",
        provider="openai",
        input_tokens=1000,
        output_tokens=500,
        **counts,
        units={"web_searches": 2},
        missing=("reasoning_tokens",),
        context={"service_tier": "flex"},
        reported_cost_usd="0.01",
        kind="llm",
        cached=True,
        estimated=True,
        status="error",
        error_type="Timeout",
        streamed=True,
        duration=1.5,
        started_at=noon,
        id="call-1",
        response_model="gpt-4o-2024-08-06",
        response_id="chatcmpl-1",
        tools=("search", "add"),
        run_id="run-1",
        agent="a",
        task="t",
        user="u",
        session="s",
        step="1",
        team="x",
        floor=3,
    )

    usage: Any = record.usage
    assert (usage.input_tokens, usage.output_tokens) == (1000, 500)
    assert {name: getattr(usage, name) for name in counts} == counts
    assert (dict(usage.units), usage.missing, dict(usage.context)) == (
        {"web_searches": 2},
        ("reasoning_tokens",),
        {"service_tier": "flex"},
    )
    assert usage.reported_pico == 10**10
    assert (record.id, record.kind, record.provider, record.request_model) == ("call-1", "llm", "openai", "gpt-4o")
    assert (record.cached, record.estimated, record.streamed) == (True, True, True)
    assert (record.status, record.error_type, record.duration, record.started_at) == ("error", "Timeout", 1.5, noon)
    assert (record.response_model, record.response_id) == ("gpt-4o-2024-08-06", "chatcmpl-1")
    assert (record.tools, record.tool_name, record.run_id) == (("search", "add"), "search", "run-1")
    assert (record.agent, record.task, record.user, record.session, record.step) == ("a", "t", "u", "s", "1")
    assert dict(record.tags) == {"team": "x", "floor": "3"}
    assert meter.history() == [record]


def test_a_told_call_whose_duration_is_not_known_has_none() -> None:
    assert Meter().record_usage(model="m").duration is None


def test_a_told_call_may_name_its_tool() -> None:
    meter = Meter()
    meter.record_usage(model="m", input_tokens=10, tool_name="search")

    assert meter.usage.tool_tokens == {"search": 10}


@pytest.mark.parametrize("kind", ["tool", "run", "step", "chat"])
def test_only_a_model_call_can_be_told_as_usage(kind: str, meter: Meter, watching: RecordingPlugin) -> None:
    with pytest.raises(ValueError, match=kind):
        meter.record_usage(model="m", kind=kind)
    with pytest.raises(ValueError, match=kind):
        meter.llm("m", kind=kind)
    assert watching.records == []


def test_a_naive_time_is_refused(meter: Meter, watching: RecordingPlugin) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001

    with pytest.raises(ValueError, match="started_at must be aware, for example"):
        meter.record_usage(model="m", started_at=naive)
    with pytest.raises(ValueError, match="started_at must be aware, for example"):
        meter.record_tool_call("t", True, 0.1, {}, started_at=naive)
    assert watching.records == []


def test_what_is_told_inside_a_run_belongs_to_it(meter: Meter) -> None:
    with meter.run("r", agent="a") as run, run.tool("t") as tool:
        record = meter.record_usage(model="gpt-4o", input_tokens=10)
        meter.record_tool_call("inner", True, 0.1, {})

    assert (record.run_id, record.parent_id, record.agent) == (run.id, tool.id, "a")
    assert meter.tree(run.id).usage.total_tokens == 10
    assert meter.tree(run.id).usage.tool_usage == {"t": 1, "inner": 1}


def test_what_is_told_of_a_run_by_its_id_belongs_to_it(meter: Meter) -> None:
    with meter.run("r") as run:
        pass
    meter.record_usage(model="gpt-4o", input_tokens=10, run_id=run.id)

    assert meter.tree(run.id).usage.total_tokens == 10


def test_tool_calls_can_be_told_by_position(meter: Meter, watching: RecordingPlugin) -> None:
    record = meter.record_tool_call(
        "search", False, 0.25, {"q": "x"}, 0.001, 3, error_type="Timeout", call_id="c1", user="u", team="x"
    )

    assert watching.tool_records == [record]
    assert (record.name, record.success, record.duration, record.params) == ("search", False, 0.25, {"q": "x"})
    assert (record.cost_pico, record.chunk_count, record.error_type, record.call_id) == (10**9, 3, "Timeout", "c1")
    assert (record.user, dict(record.tags)) == ("u", {"team": "x"})
    assert meter.analytics.get_metrics("search").failed_calls == 1
    assert meter.usage.tool_usage == {"search": 1}


# ------------------------------------------------------------------------------------------------- resets


def test_a_reset_clears_usage_history_and_analytics(meter: Meter) -> None:
    with meter.run("r") as run, run.llm("gpt-4o") as call:
        call.finish(USAGE, tools=("search",))
    meter.record_tool_call("search", True, 0.1, {})

    meter.reset()

    assert meter.usage.to_dict() == Meter().usage.to_dict()
    assert (meter.history(), meter.history(include_denied=True), meter.usage_by("model")) == ([], [], {})
    assert meter.analytics.get_all_metrics() == {}
    with pytest.raises(LookupError):
        meter.tree(run.id)


def test_a_reset_leaves_open_runs_open(meter: Meter) -> None:
    with meter.run("outer") as outer:
        with outer.llm("gpt-4o") as call:
            call.finish(USAGE)
        meter.reset()
        assert outer.usage.total_tokens == 0
        with outer.llm("gpt-4o") as call:
            call.finish(TokenUsage(1, 1))

    assert meter.tree(outer.id).usage.total_tokens == 2
    assert meter.usage.total_tokens == 2
    assert meter.health()["open_calls"] == 0


def test_resetting_a_session_clears_its_view_and_leaves_the_totals(meter: Meter) -> None:
    for session, agent in (("s1", "a"), ("s1", "b"), ("s2", "a"), ("", "a")):
        meter.record_usage(model="gpt-4o", input_tokens=30, output_tokens=15, session=session, agent=agent)
    meter.record_tool_call("search", True, 0.1, {}, session="s1", agent="a")

    meter.reset(session="s1")

    assert meter.usage.requests == 4
    assert {agent: usage.requests for agent, usage in meter.usage_by("agent").items()} == {"a": 3, "b": 1}
    assert {key: usage.requests for key, usage in meter.usage_by("session").items()} == {"s2": 1, "": 1}
    assert meter.usage_by("session")[""].tool_usage == {}
    by_both = meter.usage_by("session", "agent")
    assert {key: usage.requests for key, usage in by_both.items()} == {("s2", "a"): 1, ("", "a"): 1}
    assert meter.usage_by("agent", "model")["b", "gpt-4o"].requests == 1
    assert [record.session for record in meter.history()] == ["s2", ""]
    assert meter.analytics.get_metrics("search").total_calls == 1


def test_a_session_that_was_reset_begins_anew(meter: Meter) -> None:
    for _ in range(2):
        meter.record_usage(model="gpt-4o", input_tokens=30, session="s1")
        meter.reset(session="s1")
        assert meter.usage_by("session") == {}
    meter.record_usage(model="gpt-4o", input_tokens=7, session="s1")

    assert meter.usage_by("session")["s1"].input_tokens == 7
    assert meter.usage.input_tokens == 67


def test_the_session_that_nobody_named_can_be_reset_as_well(meter: Meter) -> None:
    meter.record_usage(model="gpt-4o", input_tokens=30)
    meter.record_usage(model="gpt-4o", input_tokens=1, session="s1")

    meter.reset(session="")

    assert list(meter.usage_by("session")) == ["s1"]
    assert meter.usage.input_tokens == 31


def test_the_denied_calls_of_a_session_go_with_it() -> None:
    meter = Meter([Denying("gpt-4o")])
    with pytest.raises(BudgetExceeded), meter.llm("gpt-4o", session="s1"):
        pass

    meter.reset(session="s1")

    assert meter.history(include_denied=True) == []
    assert meter.usage_by("session") == {}
    assert meter.usage.denied_requests == 1


# ------------------------------------------------------------------------------------------- the meter itself


def test_analytics_can_be_switched_off() -> None:
    meter = Meter(analytics=False)
    meter.record_tool_call("search", True, 0.1, {"q": 1})
    meter.reset()

    assert meter.plugins.names() == ["prices", "log", "usage"]
    with pytest.raises(PluginError, match="this meter was made with analytics=False"):
        meter.analytics.summary()


def test_the_history_keeps_the_last_and_counts_all() -> None:
    meter = Meter(keep=3)
    for number in range(5):
        meter.record_usage(model="gpt-4o", input_tokens=number, user="u")

    assert [record.input_tokens for record in meter.history()] == [2, 3, 4]
    assert [record.input_tokens for record in meter.history(2)] == [3, 4]
    assert (meter.history(0), len(meter.history(99))) == ([], 3)
    assert (meter.usage.requests, len(meter.usage.iterations)) == (5, 3)
    assert len(meter.usage_by("user")["u"].iterations) == 3
    assert "Iterations: 5" in str(meter.usage)


def test_a_history_may_be_longer_than_usual() -> None:
    meter = Meter(keep=10_050)
    for _ in range(10_100):
        meter.record_usage(model="m")

    assert len(meter.history()) == len(meter.usage.iterations) == 10_050


def test_a_history_may_be_empty() -> None:
    meter = Meter(keep=0)
    meter.record_usage(model="m", input_tokens=1)

    assert (meter.history(), meter.usage.iterations, meter.usage.requests) == ([], [], 1)


def test_a_block_ends_with_the_shutdown_of_the_meter(watching: RecordingPlugin) -> None:
    with Meter([watching]) as meter:
        meter.record_usage(model="m")
    meter.flush()

    assert watching.shut == 1


def test_health_says_what_is_open_and_who_is_plugged_in(meter: Meter) -> None:
    call = opened(meter)

    assert meter.health() == {
        "ok": True,
        "failures": {},
        "last_errors": {},
        "open_calls": 1,
        "expired_calls": 0,
        "corrected_calls": 0,
        "disagreements": 0,
        "plugins": ["prices", "log", "analytics", "usage", "RecordingPlugin"],
    }
    meter.close(call)


def test_the_process_has_one_default_meter() -> None:
    found: list[Meter] = []
    threads = [threading.Thread(target=lambda: found.append(default_meter())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(meter) for meter in found}) == 1
    assert default_meter() is found[0]


def test_a_call_that_ends_in_a_finalizer_is_counted() -> None:
    """Streams are closed by garbage collection, which may come while this very thread counts another call."""
    meter = Meter()
    told = 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal told
        if phase == "stop" and told < 500:
            told += 1
            meter.record_usage(model="gpt-4o-mini", input_tokens=1, user=f"u{told}")
            meter.record_tool_call("late", True, 0.1, {})

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        for number in range(500):
            meter.record_usage(model="gpt-4o", input_tokens=1, agent=f"a{number}", user=f"u{number}")
            if number % 50 == 0:
                meter.usage_by("user")
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)

    assert told == 500
    assert meter.usage.requests == 1000
    assert {model: usage.requests for model, usage in meter.usage_by("model").items()} == {
        "gpt-4o": 500,
        "gpt-4o-mini": 500,
    }
    assert meter.usage.tool_usage == {"late": 500}


def test_hours_of_calls_with_lost_ends_leave_nothing_open() -> None:
    clock = FakeClock()
    meter = Meter(clock=clock, keep=10)
    for _ in range(300):
        with meter.run("r"):
            opened(meter)
        opened(meter)
        clock.advance(timedelta(minutes=2).total_seconds())

    assert meter.health()["open_calls"] <= 31  # an hour's worth
    assert meter.usage.requests + meter.health()["open_calls"] == 600
