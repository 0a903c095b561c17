"""Messages: the placeholders of a rule's message, filled with numbers as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .model import Rule, placeholders
from .variables import VARIABLES

Value = Callable[[str], float | None]


class _Number(float):
    """Writes itself with thousands separators, and amounts of money with cents, unless the message says how."""

    money = False

    def __format__(self, spec: str) -> str:
        if spec:
            return float(self).__format__(spec)
        if self.money:
            return f"${float(self):,.2f}" if abs(self) >= 0.01 or not self else f"${float(self):.6f}"
        return f"{int(self):,}" if self.is_integer() else f"{float(self):,.2f}"


class _Money(_Number):
    money = True


def fill(rule: Rule, agent: str, task: str, value: Value) -> tuple[int | None, int | None, str, str]:
    """What the rule's condition has used and may use, in which unit, and the rule's message about it."""
    used_name = next((name for name in rule.condition.names if not VARIABLES[name].is_limit), None)
    limit_name = next((name for name in rule.condition.names if VARIABLES[name].is_limit), None)
    used = value(used_name) if used_name else None
    limit = value(limit_name) if limit_name else None
    unit = (
        "usd_pico"
        if used_name and "cost" in used_name
        else "requests"
        if used_name and "req" in used_name
        else "tokens"
    )
    parts: dict[str, Any] = {
        "name": agent or rule.name,
        "agent": agent,
        "task": task,
        "rule": rule.name,
        "severity": rule.severity,
    }
    for name in placeholders(rule.message):
        if name not in parts:
            parts[name] = _number(name, agent, used_name, limit_name, value)
    message = rule.message.format_map(parts) if rule.message else f"{rule.name}: {rule.condition.text}"
    scale = 10**12 if unit == "usd_pico" else 1
    return _whole(used, scale), _whole(limit, scale), unit, message


def _number(name: str, agent: str, used_name: str | None, limit_name: str | None, value: Value) -> Any:
    used = value(used_name) if used_name else None
    limit = value(limit_name) if limit_name else None
    whose = "agent_" if agent else ""
    if name == "percent":
        return _Number(round(used / limit * 100)) if used is not None and limit else "?"
    if name == "overshoot":
        if used is None or limit is None:
            return "?"
        return _Number(round(max(0.0, used / limit - 1) * 100)) if limit else _Number(100)
    source = {
        "used": used_name,
        "limit": limit_name,
        "projected": used_name,
        "hourly_used": f"{whose}hourly_tokens",
        "daily_used": f"{whose}daily_tokens",
        "tokens_per_task": "agent_tokens_per_task",
    }.get(name, name)
    amount = value(source) if source else None
    if amount is None:
        return "?"
    return _Money(amount) if source and "cost" in source else _Number(amount)


def _whole(amount: float | None, scale: int) -> int | None:
    return None if amount is None else round(amount * scale)
