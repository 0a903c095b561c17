"""`meter.status()` and `meter.alerts()`: the keys and the sentences of the third document, and more."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from agent_meter import Budget, Meter
from agent_meter.testing import FakeClock


def used(meter: Meter, agent: str, tokens: int) -> None:
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=tokens, agent=agent)


def test_the_status_has_the_dashboards_keys() -> None:
    meter = Meter(clock=FakeClock(datetime(2026, 11, 22, 15, tzinfo=UTC)))
    meter.budgets.set_agent_limit("researcher", 1000)
    used(meter, "researcher", 830)
    used(meter, "writer", 170)

    status = meter.status()

    assert status["agents"]["researcher"] == {
        "total_tokens": 830, "prompt_tokens": 830, "completion_tokens": 0, "budget_limit": 1000, "percent_used": 83.0,
        "estimated_cost": Decimal("0.002075"), "requests": 1, "unpriced_requests": 0,
    }  # fmt: skip
    assert (status["agents"]["writer"]["budget_limit"], status["agents"]["writer"]["percent_used"]) == (None, 0)
    assert (status["global"]["total_tokens"], status["global"]["total_cost"]) == (1000, Decimal("0.0025"))
    assert status["period_usage"] == {
        "hourly:2026-11-22T15": 1000, "daily:2026-11-22": 1000, "weekly:2026-W47": 1000, "monthly:2026-11": 1000,
    }  # fmt: skip
    assert [budget["name"] for budget in status["budgets"]] == ["researcher"]
    assert json.loads(json.dumps(status, default=str))["budgets"][0]["used"] == 830


def test_a_budget_for_each_agent_is_each_ones_limit() -> None:
    meter = Meter(budgets=[Budget("each", tokens=1000, agent="*"), Budget("b", tokens=100, agent="b")])
    used(meter, "a", 100)
    used(meter, "b", 50)

    agents = meter.status()["agents"]

    assert {name: (agent["budget_limit"], agent["percent_used"]) for name, agent in agents.items()} == {
        "a": (1000, 10.0), "b": (100, 50.0),
    }  # fmt: skip


def test_alerts_say_who_is_near_a_limit_and_exact_thresholds_count() -> None:
    meter = Meter()
    meter.budgets.set_agent_limit("researcher", 500_000)
    meter.budgets.set_agent_limit("writer", 1000)
    meter.budgets.set_agent_limit("critic", 1000)
    meter.budgets.set("money", usd=1)
    used(meter, "researcher", 415_000)
    used(meter, "writer", 800)
    used(meter, "critic", 799)

    assert [str(alert) for alert in meter.alerts(threshold=0.8)] == [
        "researcher: 83% of budget used (415,000 tokens)",
        "writer: 80% of budget used (800 tokens)",
        "money: 104% of budget used ($1.0414975)",
    ]
    assert meter.alerts(threshold=1.0)[0].name == "money"


def test_a_meter_without_budgets_has_nothing_to_alert_of_and_asks_nobody() -> None:
    meter = Meter()

    assert meter.alerts() == []
    assert meter.status()["budgets"] == []
    assert not meter.plugins.guarded
