"""The limits that a condition names: those of the budgets, and those that somebody set beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..records import PICO
from .variables import WINDOWS

_PERIODS = {period: window for window, period in WINDOWS.items()}
_DIMENSIONS = ("agent", "task", "user", "session", "model", "provider", "tool", "tags")
EACH = "*"


class Limits:
    """Looks up a limit by the name of its variable, for everything, for an agent or for a task."""

    def __init__(self, budgets: Iterable[Any] = (), beside: Mapping[str, float] | None = None) -> None:
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

    def _read(self, budget: Any) -> None:
        scope = {name: value for name in _DIMENSIONS if (value := getattr(budget, name, None))}
        per = str(getattr(budget, "per", ""))
        for amount, suffix in ((getattr(budget, "tokens", None), "limit"), (_dollars(budget), "cost_limit")):
            if amount is None:
                continue
            window = _PERIODS.get(per)
            if not scope and window:
                self._keep(f"{window}_{suffix}", "", amount)
            elif set(scope) == {"agent"} and window:
                self._keep(f"agent_{window}_{suffix}", str(scope["agent"]), amount)
            elif set(scope) == {"task"} or (not scope and per in ("task", "run")):
                self._keep(f"task_{suffix}", str(scope.get("task", EACH)), amount)

    def _keep(self, name: str, key: str, amount: float) -> None:
        old = self._known.get((name, key))
        self._known[(name, key)] = amount if old is None else min(old, amount)


def _dollars(budget: Any) -> float | None:
    usd = getattr(budget, "usd", None)
    if usd is not None:
        return float(usd)
    pico = getattr(budget, "usd_pico", None)
    return None if pico is None else pico / PICO
