"""A used-up budget in an own loop: runs, steps, tools, streams, sync and async."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter, TokenUsage
from agent_meter.records import Status

PAID = TokenUsage(400, 100)  # $0.002 at gpt-4o's prices


def ask(meter: Meter, most: int | None = 100) -> None:
    with meter.llm("gpt-4o", input_tokens=400, max_output_tokens=most) as call:
        call.finish(PAID)


@pytest.fixture
def meter() -> Meter:
    return Meter(budgets=[Budget("day", usd="0.01", per="total")])


def test_the_loop_ends_where_the_budget_does(meter: Meter) -> None:
    for _ in range(5):
        ask(meter)

    with pytest.raises(BudgetExceeded):
        ask(meter)

    assert meter.budgets.status("day").used == Decimal("0.01")
    assert refused(meter) == 1


async def test_so_does_an_async_one(meter: Meter) -> None:
    async def ask() -> None:
        async with meter.llm("gpt-4o", input_tokens=400, max_output_tokens=100) as call:
            call.finish(PAID)

    for _ in range(5):
        await ask()

    with pytest.raises(BudgetExceeded):
        await ask()

    assert refused(meter) == 1


def test_a_denied_call_inside_a_run_ends_run_and_step_as_failed(meter: Meter) -> None:
    meter.budgets.set("day", usd=0)

    with pytest.raises(BudgetExceeded), meter.run("research") as run, run.step():
        ask(meter)

    assert meter.tree(run.call.id).status is Status.ERROR
    assert refused(meter) == 1


def test_the_run_goes_on_when_somebody_raises_the_budget(meter: Meter) -> None:
    meter.budgets.set("day", usd="0.001")

    def more(call: object, denial: object) -> bool:
        meter.budgets.set("day", usd="0.01")
        return True

    meter.budgets.set("day", on_exceed=more)
    ask(meter)

    assert meter.usage.requests == 1
    assert refused(meter) == 0


def test_a_call_that_fails_before_it_is_answered_gives_back_what_it_held(meter: Meter) -> None:
    with pytest.raises(ConnectionError), meter.llm("gpt-4o", input_tokens=400, max_output_tokens=100):
        raise ConnectionError

    assert meter.budgets.status("day").used == 0
    assert refused(meter) == 0


def test_a_stream_that_is_left_is_paid_for(meter: Meter) -> None:
    def chunks() -> Iterator[str]:
        yield "a"
        yield "b"

    stream = meter.llm("gpt-4o", input_tokens=400, max_output_tokens=100).stream(chunks())
    next(stream)
    stream.close()

    assert meter.budgets.status("day").used > 0
    assert refused(meter) == 0


def test_grace_lets_through_a_little_more(meter: Meter) -> None:
    meter.budgets.set("day", grace=0.2)
    for _ in range(6):
        ask(meter)

    with pytest.raises(BudgetExceeded):
        ask(meter)

    assert meter.budgets.status("day").used == Decimal("0.012")
    assert refused(meter) == 1


def test_replays_pass_a_used_up_budget(meter: Meter) -> None:
    meter.budgets.set("day", usd=0)

    record = meter.record_usage(model="gpt-4o", input_tokens=400, output_tokens=100, cached=True)

    assert (record.status, record.billed_cost_usd) == (Status.OK, 0)
    assert meter.budgets.status("day").used == 0


def test_a_refusal_reads_like_a_sentence(meter: Meter) -> None:
    for _ in range(4):
        ask(meter)

    with pytest.raises(BudgetExceeded) as failure:
        ask(meter, most=500)

    assert str(failure.value) == (
        "budget day: $0.008 of $0.01 used (in total); this call needs up to $0.006; 100 output tokens would fit"
    )
    assert failure.value.fits == 100


def test_an_overrun_is_counted_and_said(meter: Meter) -> None:
    with meter.llm("gpt-4o", input_tokens=400, max_output_tokens=100) as call:
        call.finish(TokenUsage(400, 2_000))

    assert meter.health()["budgets"]["overruns"] == 1
    with pytest.raises(BudgetExceeded):
        ask(meter)
    assert refused(meter) == 1
