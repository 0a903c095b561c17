"""`meter.status()` and `meter.alerts()`: the third document's dashboard, with its keys and more."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec

from ..records import Alert, pico
from .told import reached
from .view import LABELS, BudgetStatus

if TYPE_CHECKING:
    from ..meter import Meter

_PERIODS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}


def status(meter: Meter) -> dict[str, Any]:
    """What is used and what of it is allowed, by agent, altogether, in this hour, day, week and month (UTC).

    Costs are US dollars (`Decimal`), `None` where nothing has a price; `budget_limit` is `None` without a limit.
    """
    budgets = meter.budgets.status()
    of_agents: dict[str, BudgetStatus] = {}
    for found in budgets:
        agent = _agent_of(meter, found)
        if agent is not None and (agent not in of_agents or found.percent > of_agents[agent].percent):
            of_agents[agent] = found
    agents = {}
    for name, usage in meter.usage_by("agent").items():
        budget = of_agents.get(name)
        agents[name] = {
            "total_tokens": usage.total_tokens,
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "budget_limit": None if budget is None else budget.limit,
            "percent_used": 0.0 if budget is None else budget.percent,
            "estimated_cost": usage.cost_usd,
            "requests": usage.requests,
            "unpriced_requests": usage.unpriced_requests,
        }
    total = meter.usage
    now = meter.now()
    periods = {}
    for period, dimension in _PERIODS.items():
        label = now.strftime(LABELS[dimension])
        used = meter.usage_by(dimension).get(label)
        periods[f"{period}:{label}"] = 0 if used is None else used.total_tokens
    return {
        "agents": agents,
        "global": {
            "total_tokens": total.total_tokens,
            "total_cost": total.cost_usd,
            "requests": total.requests,
            "unpriced_requests": total.unpriced_requests,
        },
        "period_usage": periods,
        "budgets": [msgspec.structs.asdict(found) for found in budgets],
        "at": now,
    }


def _agent_of(meter: Meter, found: BudgetStatus) -> str | None:
    """Whose limit of tokens a counter is, where it is an agent's and nothing else's."""
    budget = meter.budgets.get(found.name)
    if budget is None or found.unit != "tokens" or budget.tags or set(budget.scope) != {"agent"}:
        return None
    (agent, *more) = budget.scope["agent"]
    if agent == "*":
        return found.scope.removeprefix("agent=")
    return None if more else agent


def alerts(meter: Meter, threshold: float) -> list[Alert]:
    """The budgets of which this fraction is used, or more; as it stands now, told before or not."""
    return alerts_of(meter.budgets.status(), threshold)


def alerts_of(statuses: Iterable[BudgetStatus], threshold: float) -> list[Alert]:
    share = Fraction(str(threshold))
    found = []
    for one in statuses:
        unit = "usd_pico" if one.unit == "usd" else one.unit
        limit, used = (pico(one.limit), pico(one.used)) if unit == "usd_pico" else (int(one.limit), int(one.used))
        if used >= limit * share:
            found.append(reached(one.name, one.scope, threshold, used, limit, unit))
    return found
