"""The seed document "Token Budget Tracking & Optimization" (Mercury Skills), overview and step 1, through our names.

Deviations, and why:

* `TokenCounter` is a ledger there and counts text here (as in the other document): the ledger is the meter.
  `counter.record(agent, task, …)` is `meter.record_usage(agent=…, task=…, …)`; `agent_total(a)` is
  `meter.usage_by("agent")[a]`; `top_agents(n)` is `meter.top("agent", n)`.
* The document's `record` overwrites what a task used before, and its `top_agents` waits for its own lock for ever: ours
  adds, and answers.
* `task_cost(agent, task, input_rate, output_rate)` takes rates from the caller; ours knows them. A cost at other rates
  is `Rates.per_million(…).price(usage, at)`.
* "Cost per 100K tasks (4K avg)" is no one formula (8.3 % of output in two rows, 12.5 % in the others), and "50K tokens
  per loop for 100 iterations = $50-$150" is $12.50 to $50 at GPT-4o's rates; the per-million prices are right.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from agent_meter import Meter, TokenUsage
from agent_meter.pricing import Rates, calculate_cost, model_info


@pytest.mark.parametrize(
    ("model", "input_rate", "output_rate"),
    [
        ("gpt-4o", "2.50", "10.00"),
        ("claude-3-5-sonnet", "3.00", "15.00"),
        ("gpt-4o-mini", "0.15", "0.60"),
        ("claude-3-haiku", "0.25", "1.25"),
    ],
)
def test_token_cost_economics(model: str, input_rate: str, output_rate: str) -> None:
    info = model_info(model)

    assert (info.prompt_cost, info.completion_cost) == (Decimal(input_rate), Decimal(output_rate))


def test_what_a_runaway_agent_costs() -> None:
    """50K tokens a loop, 100 loops: between all input and all output."""
    cheapest, dearest = calculate_cost("gpt-4o", 5_000_000, 0), calculate_cost("gpt-4o", 0, 5_000_000)

    assert (cheapest, dearest) == (Decimal("12.5"), Decimal(50))


def test_budget_dimensions() -> None:
    meter = Meter()
    at = datetime(2026, 11, 21, 22, tzinfo=UTC)
    for agent, task, user, tokens in (("a", "t1", "ada", 10), ("a", "t2", "bob", 20), ("b", "t3", "ada", 40)):
        meter.record_usage(
            model="gpt-4o", input_tokens=tokens, agent=agent, task=task, user=user, session="s", step="plan",
            started_at=at,
        )  # fmt: skip

    def tokens_by(dimension: str) -> dict[str, int]:
        return {name: usage.total_tokens for name, usage in meter.usage_by(dimension).items()}

    assert tokens_by("agent") == {"a": 30, "b": 40}
    assert tokens_by("task") == {"t1": 10, "t2": 20, "t3": 40}
    assert tokens_by("user") == {"ada": 50, "bob": 20}
    assert tokens_by("session") == {"s": 70}
    assert tokens_by("model") == {"gpt-4o": 70}
    assert tokens_by("day") == {"2026-11-21": 70}
    assert tokens_by("week") == {"2026-W47": 70}
    assert tokens_by("step") == {"plan": 70}


def test_token_usage_adds() -> None:
    one = TokenUsage(input_tokens=100, output_tokens=50)
    other = TokenUsage(input_tokens=10, output_tokens=5)
    total = one + other

    assert (total.prompt_tokens, total.completion_tokens, total.total_tokens) == (110, 55, 165)
    assert sum([one, other]) == total


@pytest.fixture
def counter() -> Meter:
    counter = Meter()
    counter.record_usage(agent="researcher", task="t1", model="gpt-4o", input_tokens=100, output_tokens=50)
    counter.record_usage(agent="researcher", task="t1", model="gpt-4o", input_tokens=10, output_tokens=5)
    counter.record_usage(agent="researcher", task="t2", model="gpt-4o", input_tokens=1_000)
    counter.record_usage(agent="writer", task="t3", model="gpt-4o", input_tokens=2_000, output_tokens=500)
    return counter


def test_agent_total(counter: Meter) -> None:
    """Get total tokens for an agent."""
    total = counter.usage_by("agent")["researcher"]

    assert (total.prompt_tokens, total.completion_tokens, total.total_tokens) == (1_110, 55, 1_165)


def test_task_cost(counter: Meter) -> None:
    """Calculate monetary cost for a specific task."""
    usage = counter.usage_by("agent", "task")["researcher", "t1"]
    rates = Rates.per_million(input="1", output="2")

    assert usage.cost_usd == 110 * Decimal("2.5") / 1_000_000 + 55 * Decimal(10) / 1_000_000
    at_other_rates = rates.price(TokenUsage(usage.prompt_tokens, usage.completion_tokens), datetime.now(UTC))
    assert at_other_rates.total_cost == Decimal("0.00022")


def test_reading_a_total_makes_no_phantom_agent(counter: Meter) -> None:
    assert counter.usage_by("agent").get("nobody") is None
    assert set(counter.usage_by("agent")) == {"researcher", "writer"}


def test_top_agents(counter: Meter) -> None:
    """Get the n highest-consuming agents."""
    assert [(agent, usage.total_tokens) for agent, usage in counter.top("agent", 10)] == [
        ("writer", 2_500),
        ("researcher", 1_165),
    ]
    assert [agent for agent, _ in counter.top("agent", 1)] == ["writer"]


def test_whats_costing_the_most(counter: Meter) -> None:
    """The trigger phrase: top spenders."""
    assert [agent for agent, _ in counter.top("agent", 10, by="cost_usd")] == ["writer", "researcher"]
