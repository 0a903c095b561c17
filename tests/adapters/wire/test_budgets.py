"""A used-up budget stops a wrapped client before it sends, and before its own retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from tests.enforcement import refused

from agent_meter import Budget, BudgetExceeded, Meter
from agent_meter.testing import LoopbackProvider, Reply

Loopback = Callable[..., LoopbackProvider]
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200}
CLAUDE: dict[str, Any] = {**ASK, "model": "claude-sonnet-4-6"}
LONG: Any = {"role": "user", "content": "How does a meter count what is used? " * 43}  # about 400 tokens
PAID = Reply("x", input_tokens=400, output_tokens=100)  # $0.002 at gpt-4o's prices
KEY: dict[str, Any] = {"api_key": "none", "max_retries": 2}


def sync_client(provider: LoopbackProvider, meter: Meter, **options: Any) -> openai.OpenAI:
    return meter.wrap(openai.OpenAI(base_url=provider.openai_base_url, **KEY), **options)


def async_client(provider: LoopbackProvider, meter: Meter, **options: Any) -> openai.AsyncOpenAI:
    return meter.wrap(openai.AsyncOpenAI(base_url=provider.openai_base_url, **KEY), **options)


def _claude(provider: LoopbackProvider, meter: Meter) -> anthropic.Anthropic:
    return meter.wrap(anthropic.Anthropic(base_url=provider.anthropic_base_url, **KEY))


WAYS: dict[str, Callable[[LoopbackProvider, Meter], Any]] = {
    "chat": lambda provider, meter: sync_client(provider, meter).chat.completions.create(**ASK),
    "stream": lambda provider, meter: list(sync_client(provider, meter).chat.completions.create(**ASK, stream=True)),
    "responses": lambda provider, meter: sync_client(provider, meter).responses.create(model="gpt-4o", input="hi"),
    "messages": lambda provider, meter: _claude(provider, meter).messages.create(**CLAUDE),
    "async": lambda provider, meter: asyncio.run(async_client(provider, meter).chat.completions.create(**ASK)),
    "embedding": lambda provider, meter: sync_client(provider, meter).embeddings.create(
        model="text-embedding-3-small", input="hi"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_call_beyond_the_budget_is_not_sent(way: str, loopback: Loopback) -> None:
    provider, meter = loopback([PAID], loop=True), Meter(budgets=[Budget("day", requests=1)])
    WAYS[way](provider, meter)

    with pytest.raises(BudgetExceeded) as failure:
        WAYS[way](provider, meter)

    assert (failure.value.budget, failure.value.used) == ("day", 1)
    assert len(provider.requests) == 1
    assert refused(meter) == 1


def test_sixteen_threads_of_one_client_stay_inside_of_ten_cents(loopback: Loopback) -> None:
    provider = loopback(lambda request: Reply("x", input_tokens=400, output_tokens=100, delay=0.01))
    meter = Meter(budgets=[Budget("day", usd="0.10", per="total")])
    client = sync_client(provider, meter)

    def until_refused(_: int) -> int:
        for sent in range(100):
            try:
                client.chat.completions.create(model="gpt-4o", messages=[LONG], max_tokens=100)
            except BudgetExceeded:
                return sent
        return 100

    with ThreadPoolExecutor(16) as pool:
        sent = sum(pool.map(until_refused, range(16)))

    spent = len(provider.requests) * Decimal("0.002")
    assert sent == len(provider.requests)
    assert Decimal("0.085") <= spent <= Decimal("0.10")
    assert meter.budgets.status("day").used == spent
    assert refused(meter) == 16


async def test_async_calls_wait_for_a_budget_while_the_event_loop_goes_on(loopback: Loopback) -> None:
    """One call at a time fits; the others wait for it with `await`, and all are made."""
    provider = loopback(lambda request: Reply("x", input_tokens=10, output_tokens=10, delay=0.1))
    meter = Meter(budgets=[Budget("slow", tokens=300, per="total", mode="wait", timeout=20)])
    client = async_client(provider, meter)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    heart = asyncio.create_task(beat())
    await asyncio.gather(*(client.chat.completions.create(**{**ASK, "max_tokens": 150}) for _ in range(4)))
    heart.cancel()

    assert len(provider.requests) == 4
    assert beats > 10
    assert refused(meter) == 0


async def test_a_call_that_is_cancelled_after_it_was_sent_is_charged(loopback: Loopback) -> None:
    provider = loopback(lambda request: Reply("late", input_tokens=1000, output_tokens=10, delay=5))
    meter = Meter(budgets=[Budget("day", usd="0.02", per="total")])

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(async_client(provider, meter).chat.completions.create(**ASK), 0.5)

    assert len(provider.requests) == 1
    assert refused(meter) == 0
    assert meter.budgets.status("day").used > 0


def test_an_answer_that_cost_more_than_was_held_is_kept_and_the_next_call_is_refused(loopback: Loopback) -> None:
    provider = loopback([Reply("far too long", input_tokens=2_000, output_tokens=3_000)], loop=True)
    meter = Meter(budgets=[Budget("day", usd="0.01", per="total")])
    client = sync_client(provider, meter)

    answer = client.chat.completions.create(**ASK)
    with pytest.raises(BudgetExceeded):
        client.chat.completions.create(**ASK)

    assert answer.choices[0].message.content == "far too long"
    assert meter.health()["budgets"]["overruns"] == 1
    assert refused(meter) == 1


# --------------------------------------------------------------------------------- a maximum for those who name none


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_request_without_a_maximum_is_capped_where_that_is_wanted(
    asynchronous: bool, loopback: Loopback
) -> None:
    provider = loopback([PAID], loop=True)
    meter = Meter(budgets=[Budget("day", tokens=1_000, per="total")])
    bare = {"model": "gpt-4o", "messages": ASK["messages"]}

    if asynchronous:
        await async_client(provider, meter, cap_output=300).chat.completions.create(**bare)  # type: ignore[call-overload]
    else:
        sync_client(provider, meter, cap_output=300).chat.completions.create(**bare)  # type: ignore[call-overload]

    assert [request.max_output_tokens for request in provider.requests] == [300]
    assert refused(meter) == 0


def test_a_cap_reaches_copies_streams_and_responses_and_leaves_what_is_named(loopback: Loopback) -> None:
    provider = loopback(lambda request: PAID)
    client = sync_client(provider, Meter(), cap_output=300).with_options(timeout=5)

    client.responses.create(model="gpt-4o", input="hi")
    list(client.chat.completions.create(model="gpt-4o", messages=ASK["messages"], stream=True))
    client.chat.completions.create(**ASK)
    client.embeddings.create(model="text-embedding-3-small", input="hi")

    assert [request.max_output_tokens for request in provider.requests] == [300, 300, 200, None]


def test_without_a_cap_the_refusal_says_what_was_assumed(loopback: Loopback) -> None:
    provider = loopback([Reply("x", input_tokens=400, output_tokens=600)], loop=True)
    meter = Meter(budgets=[Budget("day", tokens=1_500, per="total")])
    client = sync_client(provider, meter)
    client.chat.completions.create(model="gpt-4o", messages=ASK["messages"])

    with pytest.raises(BudgetExceeded, match=r"its answer is assumed at 964 tokens: no maximum was asked for"):
        client.chat.completions.create(model="gpt-4o", messages=ASK["messages"])

    assert refused(meter) == 1
