"""The limits that a condition names: those of the budgets, and those that somebody set beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..records import PICO
from .variables import WINDOWS

if TYPE_CHECKING:
    from ..budgets import Budget

_PERIODS = {period: window for window, period in WINDOWS.items()}
_SUFFIXES = {"tokens": "limit", "usd_pico": "cost_limit"}
EACH = "*"


class Limits:
    """Looks up a limit by the name of its variable, for everything, for an agent or for a task."""

    def __init__(self, budgets: Iterable[Budget] = (), beside: Mapping[str, float] | None = None) -> None:
        self._beside = dict(beside or {})
        self._known: dict[tuple[str, str], float] = {}
        for budget in budgets:
            self._read(budget)

    def find(self, name: str, agent: str = "", task: str = "") -> float | None:
        """`daily_limit`, or `agent_hourly_limit` of an agent; `None`: nobody set one."""
        own = [self._known.get((name, key)) for key in {task or agent, EACH, ""}]
        found = [limit for limit in (*own, self._beside.get(name)) if limit is not None]
        return min(found, default=None)

    def known(self, name: str) -> bool:
        """Whether somebody set it, for whomever."""
        return name in self._beside or any(limit == name for limit, _ in self._known)

    def _read(self, budget: Budget) -> None:
        """A budget for everything, for agents, or for tasks; one for anything narrower limits no variable."""
        per = budget.window.name
        window = _PERIODS.get(per)
        scope = set(budget.scope)
        if budget.tags:
            return
        for limit in budget.limits:
            suffix = _SUFFIXES.get(limit.unit)
            if suffix is None:
                continue
            amount = limit.amount / PICO if limit.unit == "usd_pico" else limit.amount
            if not scope and window:
                self._keep(f"{window}_{suffix}", "", amount)
            elif not scope and per == "run":
                self._keep(f"task_{suffix}", EACH, amount)
            elif scope == {"agent"} and window:
                for name in budget.scope["agent"]:
                    self._keep(f"agent_{window}_{suffix}", name, amount)
            elif scope == {"task"}:
                for name in budget.scope["task"]:
                    self._keep(f"task_{suffix}", name, amount)

    def _keep(self, name: str, key: str, amount: float) -> None:
        old = self._known.get((name, key))
        self._known[(name, key)] = amount if old is None else min(old, amount)
