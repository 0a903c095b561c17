"""What a condition may look at: one table, which the documentation prints and the loader checks names against."""

from __future__ import annotations

from typing import NamedTuple

WINDOWS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
_MEASURES = {
    "tokens": "input and output tokens of model calls, replayed ones included",
    "cost": "US dollars billed; a lower bound while a call is unpriced",
    "requests": "model calls, replayed ones included",
}
_LIMITS = {"limit": "the tightest token budget", "cost_limit": "the tightest budget in US dollars"}


class Variable(NamedTuple):
    """A name that a condition may use, whose it is (meter, agent or task), and what it says."""

    name: str
    subject: str
    meaning: str
    is_limit: bool = False


def _table() -> dict[str, Variable]:
    found: list[Variable] = []
    for window, period in WINDOWS.items():
        for measure, meaning in _MEASURES.items():
            found.append(Variable(f"{window}_{measure}", "meter", f"this {period}: {meaning}"))
            found.append(Variable(f"agent_{window}_{measure}", "agent", f"this {period}, one agent: {meaning}"))
            found.append(
                Variable(f"projected_{window}_{measure}", "meter", f"expected by the end of this {period}: {meaning}")
            )
        for limit, meaning in _LIMITS.items():
            found.append(Variable(f"{window}_{limit}", "meter", f"{meaning} for everything, per {period}", True))
            found.append(Variable(f"agent_{window}_{limit}", "agent", f"{meaning} for the agent, per {period}", True))
    found += [
        Variable("agent_tokens_per_task", "task", "tokens of one task of one agent, since it began"),
        Variable("task_tokens", "task", "the same"),
        Variable("task_cost", "task", "US dollars billed for one task of one agent, since it began"),
        Variable("task_requests", "task", "model calls of one task of one agent, since it began"),
        Variable("task_limit", "task", "the tightest token budget of a task", True),
        Variable("task_cost_limit", "task", "the tightest budget of a task in US dollars", True),
        Variable("unpriced_requests", "meter", "model calls whose price nobody knows, since the meter or store began"),
        Variable("denied_requests", "meter", "model calls that were refused, since the meter or store began"),
    ]
    return {variable.name: variable for variable in found}


VARIABLES = _table()

# What a message may name beside the variables of its condition, and of which rules.
PLACEHOLDERS = {
    "name": "the agent; of a rule about everything: the rule",
    "agent": "the agent",
    "task": "the task",
    "rule": "the rule's name",
    "severity": "the rule's severity",
    "used": "the first variable of the condition that is no limit",
    "limit": "the first limit of the condition",
    "percent": "used as a percentage of limit",
    "overshoot": "by how many per cent the projection exceeds the limit; 0 while it does not",
    "hourly_used": "agent_hourly_tokens; of a rule about everything: hourly_tokens",
    "daily_used": "agent_daily_tokens; of a rule about everything: daily_tokens",
    "tokens_per_task": "agent_tokens_per_task",
    "projected": "the first projection of the condition",
}
