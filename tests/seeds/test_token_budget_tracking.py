"""The seed document "Token Budget Tracking & Optimization" (Mercury Skills): steps 1, 2, 4, 6, by our names.

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
* `TokenBudget(counter)` is `meter.budgets`. Its `check_and_apply_budget` tests one period label and adds to another, so
  that period limits never bind, and nothing ever settles what it reserved: ours binds, and the agent's next call takes
  the place of what is held. A limit of 0 is no limit there, and allows nothing here.
* `BudgetDashboard(counter, budgets)` is the meter: `current_status()` is `meter.status()`, `budget_alert(threshold)` is
  `meter.alerts(threshold)`, whose entries read as the document's sentences. No limit is `None`, not `inf` (which JSON
  has not); a cost is that of the models, not $0.003 for 1K of anything; exactly 80 % is an alert, too.
* `budget-alerts.yaml` runs as it is written. What its actions do is our choice: pausing spares agents that are named
  critical, killing stops one task of one agent; both refuse the next call and cut nothing off. Numbers in messages have
  separators. `daily_limit` and its like are the limits of the meter's budgets.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.rules.test_loading import SEED

from agent_meter import Budget, BudgetExceeded, Meter, TokenUsage
from agent_meter.pricing import Rates, calculate_cost, model_info
from agent_meter.rules import Rules, read
from agent_meter.testing import FakeClock, RecordingPlugin


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


# ------------------------------------------------------------------------------------------------------- step 2


async def test_token_budget() -> None:
    """Enforce per-agent and global token budgets."""
    meter = Meter()
    budgets = meter.budgets
    budgets.set_agent_limit("researcher", 10_000)
    budgets.set_period_limit("daily", 12_000)

    assert await budgets.check_and_apply_budget("researcher", 8_000)
    assert not await budgets.check_and_apply_budget("researcher", 3_000)  # agent budget exceeded
    assert not await budgets.check_and_apply_budget("writer", 5_000)  # global period budget exceeded
    assert await budgets.check_and_apply_budget("writer", 4_000)


async def test_what_was_applied_is_settled_by_the_call() -> None:
    meter = Meter()
    meter.budgets.set_agent_limit("researcher", 10_000)
    assert await meter.budgets.check_and_apply_budget("researcher", 8_000)

    meter.record_usage(agent="researcher", model="gpt-4o", input_tokens=1_000, output_tokens=500)

    status = meter.budgets.status("researcher")
    assert (status.used, status.reserved, status.remaining) == (1_500, 0, 8_500)


def test_reset_period() -> None:
    meter = Meter()
    meter.budgets.set_period_limit("daily", 1_000)
    meter.record_usage(model="gpt-4o", input_tokens=1_000)
    assert not meter.budgets.check_and_apply_budget("researcher", 1)

    meter.budgets.reset("daily")

    assert meter.budgets.check_and_apply_budget("researcher", 1)


def test_a_limit_counts_what_was_used_before_it_was_set(counter: Meter) -> None:
    counter.budgets.set_agent_limit("researcher", 1_200)
    counter.budgets.set_period_limit("daily", 3_700)

    assert not counter.budgets.check_and_apply_budget("researcher", 36)
    assert not counter.budgets.check_and_apply_budget("writer", 36)
    assert counter.budgets.check_and_apply_budget("researcher", 35)
    counter.budgets.set_agent_limit("researcher", 1_300)  # set anew, nothing is counted twice
    assert counter.budgets.status("researcher").used == 1_165


# ------------------------------------------------------------------------------------------------------- step 4


def test_current_status(counter: Meter) -> None:
    """Get current budget status for all agents."""
    counter.budgets.set_agent_limit("researcher", 2_330)
    status = counter.status()

    assert set(status["agents"]) == {"researcher", "writer"}
    researcher = status["agents"]["researcher"]
    document = {"total_tokens", "prompt_tokens", "completion_tokens", "budget_limit", "percent_used", "estimated_cost"}
    assert document <= set(researcher)
    assert (researcher["total_tokens"], researcher["budget_limit"], researcher["percent_used"]) == (1_165, 2_330, 50.0)
    assert status["global"]["total_tokens"] == 3_665
    assert status["global"]["total_cost"] == sum(agent["estimated_cost"] for agent in status["agents"].values())
    assert any(period.startswith("daily:") and tokens == 3_665 for period, tokens in status["period_usage"].items())


def test_budget_alert() -> None:
    """Get alerts for agents approaching budget limits."""
    meter = Meter()
    meter.budgets.set_agent_limit("researcher", 500_000)
    meter.budgets.set_agent_limit("writer", 500_000)
    meter.record_usage(agent="researcher", model="gpt-4o", input_tokens=415_000)
    meter.record_usage(agent="writer", model="gpt-4o", input_tokens=300_000)

    assert [str(alert) for alert in meter.alerts(threshold=0.8)] == ["researcher: 83% of budget used (415,000 tokens)"]


# --------------------------------------------------------------------------------------- step 6: alerting rules


def test_budget_alerting_rules() -> None:
    """The document's four rules, as written; the limits are those of the meter's budgets."""
    clock = FakeClock()
    rules = Rules.of(read(SEED, "budget-alerts.yaml"), interval=None, critical=["billing"])
    heard = RecordingPlugin()
    limits = [
        Budget("daily", tokens=10_000, per="day", mode="soft"),
        Budget("hourly", tokens=1_000, per="hour", agent="*", mode="soft"),
        Budget("task", tokens=500, per="run", mode="soft"),
    ]
    meter = Meter([heard, rules], budgets=limits, clock=clock)

    meter.record_usage(model="gpt-4o", input_tokens=2_500, agent="research", task="t1")
    rules.check()

    said = {alert.name: alert for alert in heard.alerts}
    assert said["agent_spike"].message == "Agent research token usage spiked: 2,500/hr"
    assert said["runaway_detected"].message == "Agent research may be looping: 2,500 tokens/task"
    assert [said[name].severity for name in ("agent_spike", "runaway_detected")] == ["P2", "P1"]
    with meter.scope(agent="research", task="t1"), pytest.raises(BudgetExceeded, match="task t1 of research: stopped"):
        meter.llm("gpt-4o").__enter__()

    meter.record_usage(model="gpt-4o", input_tokens=7_501, agent="support", task="t2")
    rules.check()

    said = {alert.name: alert for alert in heard.alerts}
    assert said["daily_budget_exceeded"].message == "Daily token budget exceeded: 10,001/10,000"
    assert said["budget_forecast"].message.startswith("On track to exceed daily budget by ")
    with meter.scope(agent="support"), pytest.raises(BudgetExceeded, match="paused"):
        meter.llm("gpt-4o").__enter__()
    with meter.scope(agent="billing"), meter.llm("gpt-4o") as call:  # critical
        call.finish(TokenUsage(1, 1))
    assert meter.budgets.status("daily").reserved == 0
