"""Budgets that hold: reserve before the call, settle after it, refuse the one that would not fit.

meter = Meter(budgets=[Budget("research", usd=5, per="day", agent="researcher")])
"""

from __future__ import annotations

from .._lazy import front_door
from .budget import Budget
from .engine import Change, Count, Engine, Entry, Refusal
from .memory import MemoryEngine
from .plugin import Budgets
from .view import BudgetStatus

__all__ = [
    "Budget",
    "BudgetForecast",
    "BudgetStatus",
    "Budgets",
    "Change",
    "Count",
    "Engine",
    "Entry",
    "MemoryEngine",
    "Refusal",
]

# Only who asks for forecasts pays for them.
__getattr__, __dir__ = front_door(globals(), {"BudgetForecast": ".forecasting"})
