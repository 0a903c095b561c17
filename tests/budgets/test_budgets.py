"""Budgets in the path of a call: what is held, what is refused, what is settled, what is told."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from agent_meter import (
    Alert,
    Budget,
    BudgetError,
    BudgetExceeded,
    Call,
    Denial,
    Kind,
    Meter,
    Model,
    Status,
    TokenUsage,
    hookimpl,
)
from agent_meter.testing import FakeClock, RecordingPlugin

GPT = Model("openai", "gpt-4o")  # $2.50 and $10.00 a million
CENT = TokenUsage(1000, 750)


def spend(meter: Meter, usage: TokenUsage = CENT, **options: Any) -> None:
    with meter.llm("gpt-4o", provider="openai", input_tokens=usage.input_tokens,
                   max_output_tokens=usage.output_tokens, **options) as call:  # fmt: skip
        call.finish(usage)


def until_denied(meter: Meter, most: int = 100, **options: Any) -> tuple[int, BudgetExceeded | None]:
    for number in range(most):
        try:
            spend(meter, **options)
        except BudgetExceeded as error:
            return number, error
    return most, None


# --------------------------------------------------------------------------------------------------- the limit


def test_the_call_that_would_exceed_it_is_not_sent() -> None:
    meter = Meter(budgets=[Budget("research", usd="0.10", per="day")])

    calls, error = until_denied(meter)

    assert calls == 10
    assert error is not None
    assert meter.usage.cost_usd == Decimal("0.10")
    assert (error.budget, error.limit, error.used, error.reserved, error.requested, error.fits) == (
        "research", Decimal("0.10"), Decimal("0.10"), 0, Decimal("0.01"), 0,
    )  # fmt: skip
    assert error.resets_at is not None
    assert error.resets_at.hour == 0
    assert str(error).startswith(
        "budget research: $0.10 of $0.10 used (daily); this call needs up to $0.01; resets at "
    )


def test_a_refused_call_leaves_one_denied_record_and_no_hold() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.10")])
    until_denied(meter)

    (denied,) = [r for r in meter.history(include_denied=True) if r.status is Status.DENIED]
    assert denied.cost.billed_pico == 0
    assert meter.health()["budgets"] == {
        "held": 0, "denied": 1, "overruns": 0, "unpriced": 0, "unsettled": 0, "dropped": 0,
    }  # fmt: skip
    assert meter.budgets.status("x").reserved == 0
    assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("limit", [{"usd": 0}, {"tokens": 0}, {"requests": 0}])
def test_a_limit_of_zero_allows_nothing(limit: dict[str, int]) -> None:
    assert until_denied(Meter(budgets=[Budget("none", **limit)]))[0] == 0


def test_a_limit_of_zero_refuses_a_free_model_too() -> None:
    meter = Meter(budgets=[Budget("none", usd=0)])

    with pytest.raises(BudgetExceeded):
        meter.open(Call(Kind.LLM, model=Model("ollama", "llama3")))


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"tokens": 17_500}, 10), ({"requests": 7}, 7), ({"tokens": 10_000, "metric": "input"}, 10),
        ({"tokens": 7_500, "metric": "output"}, 10), ({"tokens": 17_499}, 9), ({"usd": "0.099"}, 9),
        ({"usd": 1, "requests": 3}, 3), ({"usd": "0.10", "grace": 0.2}, 12),
    ],
)  # fmt: skip
def test_every_unit_is_used_to_the_last(options: dict[str, Any], calls: int) -> None:
    assert until_denied(Meter(budgets=[Budget("x", **options)]))[0] == calls


def test_work_tokens_leave_out_what_the_prompt_cache_answered() -> None:
    meter = Meter(budgets=[Budget("x", tokens=1000, metric="work")])
    spend(meter, TokenUsage(800, 100, cache_read_tokens=700))

    assert meter.budgets.status("x").used == 200


def test_the_tightest_budget_is_the_one_that_is_named() -> None:
    meter = Meter(budgets=[Budget("wide", usd=1), Budget("tight", usd="0.02"), Budget("calls", requests=50)])

    calls, error = until_denied(meter)

    assert calls == 2
    assert error is not None
    assert error.budget == "tight"
    assert [s.reserved for s in meter.budgets.status()] == [0, 0, 0]


def test_fits_says_how_long_an_answer_would_have_been_let_through() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.012")])
    spend(meter)

    with pytest.raises(BudgetExceeded) as caught:
        spend(meter, TokenUsage(400, 750))

    assert caught.value.fits == 100  # $0.002 are left, $0.001 of it for the prompt
    spend(meter, TokenUsage(400, 100))
    assert meter.usage.cost_usd == Decimal("0.012")


# --------------------------------------------------------------------------------------------------- the scope


def test_a_budget_counts_whom_it_names() -> None:
    meter = Meter(budgets=[Budget("x", requests=2, agent="researcher", team=["search", "ads"])])

    assert until_denied(meter, 5, agent="writer", team="search")[0] == 5
    assert until_denied(meter, 5, agent="researcher")[0] == 5
    assert until_denied(meter, 5, agent="researcher", team="ads")[0] == 2
    assert until_denied(meter, 5, agent="researcher", team="search")[0] == 0


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", ["gpt-4o", "o1"]])
def test_a_budget_counts_the_models_that_it_names(model: Any) -> None:
    meter = Meter(budgets=[Budget("x", requests=2, model=model)])

    assert until_denied(meter, 5)[0] == 2
    meter.close(meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o-mini"))))


def test_a_star_is_a_budget_for_each_one() -> None:
    meter = Meter(budgets=[Budget("each", usd="0.03", user="*")])

    assert [until_denied(meter, user=user)[0] for user in ("ann", "bob", "")] == [3, 3, 3]
    error = until_denied(meter, user="ann")[1]
    assert error is not None
    assert "budget each (user=ann)" in str(error)
    assert {s.scope: s.used for s in meter.budgets.status()} == dict.fromkeys(
        ("user=", "user=ann", "user=bob"), Decimal("0.03")
    )


def test_a_tool_budget_counts_calls_of_the_tool_and_the_money_spent_in_it() -> None:
    meter = Meter(budgets=[Budget("search", requests=2, usd=1, tool="search"), Budget("all", usd=5)])

    for _ in range(2):
        with meter.tool("search", {"q": 1}) as tool:
            tool.cost("0.25")
            spend(meter)
    with pytest.raises(BudgetExceeded, match="budget search: 2 requests of 2 requests used"), meter.tool("search"):
        pytest.fail("it was called")
    with meter.tool("other"):
        pass

    assert {(s.name, s.unit): s.used for s in meter.budgets.status()} == {
        ("search", "usd"): Decimal("0.52"), ("search", "requests"): 2, ("all", "usd"): Decimal("0.52"),
    }  # fmt: skip


def test_a_run_budget_covers_everything_below_the_outermost_run_and_starts_anew_with_the_next() -> None:
    meter = Meter(budgets=[Budget("run", requests=3, per="run")])

    for _ in range(2):
        with meter.run("outer") as run:
            spend(meter)
            with run.tool("sub-agent"), meter.run("inner"):
                spend(meter)
                meter.record_usage(model="gpt-4o", input_tokens=5)
            assert until_denied(meter)[0] == 0


def test_the_counters_of_a_run_end_with_it() -> None:
    meter = Meter(budgets=[Budget("run", requests=3, per="run")])
    with meter.run("one"), meter.tool("t"), meter.run("inner"):
        spend(meter)
        assert len(meter.budgets.engine.keys("")) == 1
    spend(meter)  # a run of its own

    assert meter.budgets.engine.keys("") == []


# -------------------------------------------------------------------------------------------------- the window


def test_a_window_that_is_over_is_forgotten() -> None:
    clock = FakeClock(datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    meter = Meter(budgets=[Budget("x", requests=2, per="day")], clock=clock)
    calls, error = until_denied(meter)
    assert calls == 2
    assert error is not None
    assert error.resets_at == datetime(2026, 11, 23, tzinfo=UTC)

    clock.advance(1800)

    assert until_denied(meter)[0] == 2


def test_a_call_counts_in_the_window_in_which_it_began() -> None:
    clock = FakeClock(datetime(2026, 11, 22, 23, 59, tzinfo=UTC))
    meter = Meter(budgets=[Budget("x", usd=1, per="day")], clock=clock)
    call = meter.open(Call(Kind.LLM, model=GPT))
    clock.advance(120)
    meter.close(call, CENT)

    assert meter.budgets.status("x").used == 0


def test_a_rolling_window_lets_go_of_what_is_older() -> None:
    clock = FakeClock()
    meter = Meter(budgets=[Budget("x", requests=2, per="rolling 1h")], clock=clock)
    spend(meter)
    clock.advance(1800)
    spend(meter)
    error = until_denied(meter)[1]
    assert error is not None
    assert error.resets_at == clock.now() + timedelta(minutes=31)

    clock.advance(31 * 60)

    assert until_denied(meter)[0] == 1


# ------------------------------------------------------------------------------------------------- settlements


class Sized(NamedTuple):
    """A prompt that is told by its size."""

    bytes: int

    def size(self) -> int:
        return self.bytes

    def tokens(self) -> int:
        return self.bytes


def held(meter: Meter) -> Call:
    call = Call(Kind.LLM, model=GPT)
    call.prompt = Sized(936)  # and 64 around it: a thousand tokens
    call.max_output_tokens = 750
    return meter.open(call)


@pytest.fixture
def meter() -> Meter:
    return Meter(budgets=[Budget("x", usd=1, tokens=100_000, requests=100)])


def counted(meter: Meter) -> tuple[Any, ...]:
    statuses = meter.budgets.status()
    assert [s.reserved for s in statuses] == [0, 0, 0]
    return tuple(s.used for s in statuses)


def test_what_is_held_is_an_upper_bound(meter: Meter) -> None:
    held(meter)

    assert [s.reserved for s in meter.budgets.status()] == [Decimal("0.01"), 1750, 1]


def test_an_answer_counts_as_it_was(meter: Meter) -> None:
    meter.close(held(meter), TokenUsage(400, 100))

    assert counted(meter) == (Decimal("0.002"), 500, 1)


def test_a_replayed_answer_is_free(meter: Meter) -> None:
    meter.close(held(meter), CENT, cached=True)

    assert counted(meter) == (0, 0, 0)


def test_a_replayed_answer_counts_where_the_list_price_does() -> None:
    meter = Meter(budgets=[Budget("x", usd=1, metric="list")])
    meter.close(held(meter), CENT, cached=True)

    assert meter.budgets.status("x").used == Decimal("0.01")


def test_a_call_that_was_never_answered_is_released(meter: Meter) -> None:
    meter.close(held(meter), status=Status.ERROR, error_type="ConnectError")

    assert counted(meter) == (0, 0, 0)


def test_an_error_after_an_answer_counts_what_was_answered(meter: Meter) -> None:
    meter.close(held(meter), TokenUsage(400, 100), status=Status.ERROR)

    assert counted(meter) == (Decimal("0.002"), 500, 1)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.ERROR])
def test_a_call_that_was_sent_and_cancelled_is_charged_its_prompt(meter: Meter, status: Status) -> None:
    meter.close(held(meter), status=status, estimated=True)

    assert counted(meter) == (Decimal("0.0025"), 1000, 1)


@pytest.mark.parametrize("seen", range(0, 751, 50))
def test_a_stream_that_is_broken_off_is_charged_its_prompt_and_what_was_seen(meter: Meter, seen: int) -> None:
    usage = TokenUsage(0, seen, missing=("input_tokens",))
    meter.close(held(meter), usage, status=Status.CANCELLED, estimated=True)

    assert counted(meter) == (Decimal("0.0025") + seen * Decimal("0.00001"), 1000 + seen, 1)


def test_an_answer_without_usage_is_charged_what_was_held(meter: Meter) -> None:
    meter.close(held(meter))

    assert counted(meter) == (Decimal("0.01"), 1750, 1)


def test_a_call_that_is_given_up_is_charged_and_a_late_answer_corrects_it_once(meter: Meter) -> None:
    call = held(meter)
    meter.expire(older_than=0)
    assert counted(meter) == (Decimal("0.01"), 1750, 1)

    for _ in range(2):
        meter.close(call, TokenUsage(400, 100))

    assert counted(meter) == (Decimal("0.002"), 500, 1)


def test_what_is_denied_after_it_was_held_is_released(meter: Meter) -> None:
    meter.close(held(meter), status=Status.DENIED, error_type="BudgetExceeded")

    assert counted(meter) == (0, 0, 0)


def test_a_guard_that_is_asked_after_the_budgets_leaves_no_hold(meter: Meter) -> None:
    class Late:
        @hookimpl(trylast=True)
        def meter_admit_call(self, call: Call) -> Denial:
            return Denial("no", "late")

    meter.register(Late())
    with pytest.raises(BudgetExceeded, match="late: no"):
        held(meter)

    assert counted(meter) == (0, 0, 0)


def test_strangers_guards_are_asked_first() -> None:
    class Guard:
        @hookimpl
        def meter_admit_call(self, call: Call) -> Denial:
            return Denial("no", "guard")

    with pytest.raises(BudgetExceeded, match="guard: no"):
        spend(Meter([Guard()], budgets=[Budget("x", usd=0)]))


def test_an_answer_dearer_than_was_held_is_counted_and_the_next_call_is_refused() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.02")])
    meter.close(held(meter), TokenUsage(1000, 5000))

    assert meter.budgets.status("x").used == Decimal("0.0525")
    assert meter.health()["budgets"]["overruns"] == 1
    assert until_denied(meter)[0] == 0


def test_facts_that_are_told_afterwards_count(meter: Meter) -> None:
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=400, output_tokens=100)

    assert counted(meter) == (Decimal("0.002"), 500, 1)


def test_a_call_that_began_before_there_was_a_budget_counts_when_it_ends() -> None:
    meter = Meter()
    call = meter.open(Call(Kind.LLM, model=GPT))
    meter.budgets.set("late", usd=1)
    meter.close(call, CENT)

    assert meter.budgets.status("late").used == Decimal("0.01")


def test_units_that_the_provider_names_count_when_they_are_known() -> None:
    meter = Meter(budgets=[Budget("searches", units={"web_searches": 2})])
    for searches in (0, 1, 1):
        spend(meter, TokenUsage(10, 10, units={"web_searches": searches}))

    assert meter.budgets.status("searches").used == 2
    assert until_denied(meter)[0] == 0


# ------------------------------------------------------------------------------------------------ the estimates


def test_a_caller_who_names_no_maximum_is_taken_at_an_assumption_that_the_refusal_names() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.05")])
    call = meter.open(Call(Kind.LLM, model=GPT))

    with pytest.raises(BudgetExceeded, match=r"\(its answer is assumed at 4,096 tokens: no maximum was asked for\)"):
        meter.open(Call(Kind.LLM, model=GPT))
    assert call.reserve is not None
    assert call.reserve.assumed == ("input_tokens", "output_tokens")
    assert call.reserve.output_tokens == 4096


def test_a_budget_smaller_than_an_assumed_answer_lets_one_call_at_a_time_learn() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.02")])
    first = meter.open(Call(Kind.LLM, model=GPT))
    with pytest.raises(BudgetExceeded):
        meter.open(Call(Kind.LLM, model=GPT))

    meter.close(first, TokenUsage(100, 50))

    meter.open(Call(Kind.LLM, model=GPT))
    assert meter.budgets.status("x").used == Decimal("0.00075")


def test_a_budget_that_is_smaller_than_the_prompt_learns_nothing() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.001")])
    call = Call(Kind.LLM, model=GPT)
    call.prompt = Sized(1000)

    with pytest.raises(BudgetExceeded):
        meter.open(call)


def test_bytes_are_weighed_by_what_they_were_seen_to_be() -> None:
    meter = Meter(budgets=[Budget("x", tokens=10**6)])
    reserves = []
    for _ in range(5):
        call = Call(Kind.LLM, model=GPT)
        call.prompt = Sized(40_000)
        call.max_output_tokens = 10
        meter.close(meter.open(call), TokenUsage(10_000, 5))
        assert call.reserve is not None
        reserves.append(call.reserve.input_tokens)

    assert reserves == [40_064, 40_064, 40_064, 11_064, 11_064]


def test_what_a_model_really_costs_is_learned_where_caches_make_it_dearer() -> None:
    meter = Meter(budgets=[Budget("x", usd=10)])
    claude = Model("anthropic", "claude-sonnet-4-5")
    for _ in range(2):
        call = Call(Kind.LLM, model=claude)
        call.prompt, call.max_output_tokens = Sized(10_000), 10
        meter.close(meter.open(call), TokenUsage(10_000, 10, cache_write_tokens=10_000))

    assert call.reserve is not None
    assert call.reserve.pico == int((10_064 * 3 + 10 * 15) * 10**6 * (37.5 + 0.15) / (30 + 0.15))


# -------------------------------------------------------------------------------------------------- no price


def test_a_model_without_a_price_is_refused_by_a_hard_budget_in_money() -> None:
    meter = Meter(budgets=[Budget("x", usd=1), Budget("t", tokens=10**6)])

    with pytest.raises(BudgetExceeded, match="no price is known for acme/acme-new-model"):
        meter.open(Call(Kind.LLM, model=Model("acme", "acme-new-model")))
    assert [s.reserved for s in meter.budgets.status()] == [0, 0]


def test_it_is_let_through_at_an_assumed_price() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.05", on_unpriced="assume:0.005")])

    def ask() -> None:
        with meter.llm("acme-new-model", input_tokens=1000, max_output_tokens=1000) as call:
            call.finish(TokenUsage(1000, 1000))

    for _ in range(5):
        ask()
    with pytest.raises(BudgetExceeded):
        ask()


@pytest.mark.parametrize(("policy", "alerts"), [("warn", 1), ("allow", 0)])
def test_it_is_let_through_where_the_budget_says_so(policy: str, alerts: int) -> None:
    plugin = RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("x", usd=1, on_unpriced=policy)])
    meter.close(meter.open(Call(Kind.LLM, model=Model("acme", "new"))), CENT)

    assert len(plugin.alerts) == alerts
    assert meter.health()["budgets"]["unpriced"] == 1


# ------------------------------------------------------------------------------------------------------ modes


def test_a_soft_budget_lets_through_and_alerts() -> None:
    plugin = RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("x", requests=2, mode="soft")])

    assert until_denied(meter, 5)[0] == 5
    assert [str(alert) for alert in plugin.alerts] == [
        "x: 50% of budget used (1 request)",
        "x: 100% of budget used (2 requests)",
        "x: 100% of budget used (2 requests)",
    ]


def test_a_shadow_budget_only_counts() -> None:
    plugin = RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("x", requests=2, mode="shadow")])

    assert until_denied(meter, 5)[0] == 5
    assert plugin.alerts == []
    assert meter.budgets.status("x").used == 5


def test_a_waiting_budget_holds_a_call_back_until_there_is_room() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.01", per="total", mode="wait", timeout=20)])
    first = held(meter)
    timer = threading.Timer(0.05, meter.close, (first,), {"status": Status.ERROR})
    timer.start()

    meter.close(held(meter), CENT)

    timer.join()
    assert meter.budgets.status("x").used == Decimal("0.01")


def test_a_waiting_budget_denies_when_its_time_is_up() -> None:
    meter = Meter(budgets=[Budget("x", requests=1, mode="wait", timeout=0.05)])
    spend(meter)
    start = time.monotonic()

    assert until_denied(meter)[0] == 0
    assert 0.05 <= time.monotonic() - start < 5


async def test_async_code_waits_without_holding_up_its_loop() -> None:
    meter = Meter(budgets=[Budget("x", requests=1, mode="wait", timeout=20)])
    first = await meter.aopen(Call(Kind.LLM, model=GPT))
    waiting = asyncio.create_task(meter.aopen(Call(Kind.LLM, model=GPT)))
    await asyncio.sleep(0.02)
    assert not waiting.done()

    meter.close(first, status=Status.ERROR)

    second = await asyncio.wait_for(waiting, 5)
    meter.close(second, CENT)
    with pytest.raises(BudgetExceeded):
        meter.open(Call(Kind.LLM, model=GPT))  # inline, in the loop: it cannot wait, and says no at once


async def test_aopen_refuses_as_open_does() -> None:
    meter = Meter(budgets=[Budget("x", requests=1)])
    meter.close(await meter.aopen(Call(Kind.LLM, model=GPT)), CENT)

    with pytest.raises(BudgetExceeded, match="budget x: 1 request of 1 request used"):
        await meter.aopen(Call(Kind.LLM, model=GPT))
    assert [r.status for r in meter.history(include_denied=True)] == [Status.OK, Status.DENIED]


def test_whoever_is_asked_may_raise_the_budget() -> None:
    asked = []

    def ask(call: Call, denial: Denial) -> bool:
        asked.append(denial.budget)
        meter.budgets.set("x", requests=3)
        return True

    meter = Meter(budgets=[Budget("x", requests=2, on_exceed=ask)])

    assert until_denied(meter)[0] == 3
    assert asked == ["x", "x"]


# ------------------------------------------------------------------------------------------------------ alerts


def test_each_threshold_is_told_of_once_a_window_and_exact_ones_count() -> None:
    clock, plugin = FakeClock(), RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("researcher", tokens=500_000, agent="researcher")], clock=clock)
    for tokens in (250_000, 164_999, 1, 85_000):
        meter.record_usage(model="gpt-4o", input_tokens=tokens, agent="researcher")

    assert [str(alert) for alert in plugin.alerts] == [
        "researcher: 50% of budget used (250,000 tokens)",
        "researcher: 83% of budget used (414,999 tokens)",
        "researcher: 100% of budget used (500,000 tokens)",
    ]
    first = plugin.alerts[0]
    assert (first.threshold, first.used, first.limit, first.unit) == (0.5, 250_000, 500_000, "tokens")
    clock.advance(86_400)
    meter.record_usage(model="gpt-4o", input_tokens=250_000, agent="researcher")
    assert len(plugin.alerts) == 4


def test_a_correction_below_a_threshold_does_not_tell_of_it_twice() -> None:
    plugin = RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("x", tokens=3000)])
    call = held(meter)
    meter.expire(older_than=0)
    meter.close(call, TokenUsage(10, 10))
    spend(meter)

    assert [alert.threshold for alert in plugin.alerts] == [0.5]


def test_one_call_may_cross_several_thresholds() -> None:
    plugin = RecordingPlugin()
    meter = Meter([plugin], budgets=[Budget("x", usd="0.01")])
    spend(meter)

    assert [str(alert) for alert in plugin.alerts] == ["x: 100% of budget used ($0.01)"] * 3


# ---------------------------------------------------------------------------------------------- the list of them


@pytest.mark.parametrize("scope", [{"model": "gpt-4o"}, {"model": "openai/gpt-4o"}, {"provider": "openai"}])
@pytest.mark.parametrize(("model", "provider"), [("gpt-4o", "openai"), ("openai/gpt-4o", None)])
def test_a_provider_may_be_written_in_front_of_the_model(scope: Any, model: str, provider: str | None) -> None:
    meter = Meter(budgets=[Budget("one", requests=1, **scope)])
    meter.record_usage(model=model, provider=provider, input_tokens=1)

    with pytest.raises(BudgetExceeded), meter.llm(model, provider=provider):
        pass


def test_budgets_are_a_list_that_can_be_changed_while_calls_run() -> None:
    meter = Meter(budgets=[Budget("a", requests=1)])
    spend(meter)
    meter.budgets.set("a", requests=2)
    meter.budgets.add(Budget("b", usd=1))

    assert [budget.name for budget in meter.budgets] == ["a", "b"]
    assert (len(meter.budgets), "a" in meter.budgets, meter.budgets[0].requests, meter.budgets["b"].usd) == (
        2,
        True,
        2,
        1,
    )
    assert until_denied(meter)[0] == 1
    meter.budgets.reset("a")
    assert until_denied(meter)[0] == 2
    meter.budgets.remove("a")
    assert until_denied(meter, 3)[0] == 3


def test_what_is_not_there_is_said_with_what_is() -> None:
    meter = Meter(budgets=[Budget("research", requests=1)])

    for attempt in (meter.budgets.remove, meter.budgets.reset, meter.budgets.status, meter.budgets.__getitem__):
        with pytest.raises(BudgetError, match="there is no budget 'reserch'; did you mean 'research'"):
            attempt("reserch")
    with pytest.raises(BudgetError, match="there is a budget 'research' already"):
        meter.budgets.add(Budget("research", usd=1))
    with pytest.raises(BudgetError, match="two budgets are called 'x'"):
        Meter(budgets=[Budget("x", usd=1), Budget("x", usd=2)])


def test_the_third_documents_limits_hold() -> None:
    meter = Meter()
    meter.budgets.set_agent_limit("researcher", 1000)
    meter.budgets.set_period_limit("daily", 1500)

    assert meter.budgets.check_and_apply_budget("researcher", 600)
    assert not meter.budgets.check_and_apply_budget("researcher", 600)  # the first is held
    assert meter.budgets.check_and_apply_budget("writer", 900)
    assert not meter.budgets.check_and_apply_budget("writer", 1)
    meter.record_usage(model="gpt-4o", input_tokens=100, agent="researcher")  # takes the place of what was held
    assert meter.budgets.check_and_apply_budget("researcher", 500)


async def test_the_third_documents_check_can_be_awaited() -> None:
    meter = Meter()
    meter.budgets.set_agent_limit("a", 10)

    assert await meter.budgets.check_and_apply_budget("a", 10) is True
    assert await meter.budgets.check_and_apply_budget("a", 1) is False


def test_what_was_held_beforehand_is_taken_over_by_the_call() -> None:
    meter = Meter()
    meter.budgets.set_agent_limit("a", 1750)
    assert meter.budgets.check_and_apply_budget("a", 1750)

    spend(meter, agent="a")

    assert (meter.budgets.status("a").used, meter.budgets.status("a").reserved) == (1750, 0)


# ------------------------------------------------------------------------------------------------- what goes wrong


class Broken:
    """An engine whose store is down."""

    blocking = False

    def __getattr__(self, name: str) -> Any:
        raise OSError("the store is down")

    def now(self) -> int:
        return 0

    def close(self) -> None: ...


@pytest.mark.parametrize(("on_error", "calls"), [("deny", 0), ("allow", 3)])
def test_a_budget_that_cannot_be_read_denies_unless_it_says_otherwise(on_error: str, calls: int) -> None:
    meter = Meter(budgets=[Budget("x", usd=1, on_error=on_error)])
    meter.budgets.engine = Broken()  # type: ignore[assignment]

    assert until_denied(meter, 3)[0] == calls
    assert meter.health()["failures"]["budgets"]["meter_admit_call"] >= 1


def test_an_accounting_error_after_a_paid_call_never_raises() -> None:
    meter = Meter(budgets=[Budget("x", usd=1)])
    call = held(meter)
    meter.budgets.engine = Broken()  # type: ignore[assignment]

    assert meter.close(call, CENT).status is Status.OK
    assert meter.health()["failures"]["budgets"] == {"meter_record": 1}


def test_an_alert_that_raises_is_counted() -> None:
    class Deaf:
        @hookimpl
        def meter_alert(self, alert: Alert) -> None:
            raise RuntimeError("no")

    meter = Meter([Deaf()], budgets=[Budget("x", requests=1)])
    spend(meter)

    assert meter.budgets.status("x").used == 1
    assert meter.health()["failures"]["Deaf"] == {"meter_alert": 3}


# -------------------------------------------------------------------------------------------------------- the race


def test_thirty_two_threads_spend_no_more_than_there_is_and_nearly_all_of_it() -> None:
    meter = Meter(budgets=[Budget("x", usd="1.00"), Budget("each", usd="0.50", agent="*")])
    start = threading.Barrier(32)

    def work(number: int) -> None:
        start.wait()
        for _ in range(40):
            with suppress(BudgetExceeded):
                spend(meter, agent=f"a{number % 4}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert meter.usage.cost_usd == Decimal("1.00")
    assert meter.budgets.status("x").used == Decimal("1.00")


async def test_two_hundred_tasks_that_name_no_maximum_stay_within_the_limit() -> None:
    meter = Meter(budgets=[Budget("x", usd="0.10")])

    async def work() -> None:
        for _ in range(8):
            call = Call(Kind.LLM, model=GPT)
            call.prompt = Sized(30)
            await meter.aopen(call)
            await asyncio.sleep(0.001)
            meter.close(call, CENT)

    results = await asyncio.gather(*(work() for _ in range(200)), return_exceptions=True)

    assert all(isinstance(result, BudgetExceeded) for result in results)
    assert Decimal("0.085") <= meter.usage.cost_usd <= Decimal("0.10")
