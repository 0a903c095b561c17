"""Budgets that hold: reserve before the call, settle after it, refuse the one that would not fit.

meter = Meter(budgets=[Budget("research", usd=5, per="day", agent="researcher")])
"""

from __future__ import annotations

from .budget import Budget
from .engine import Change, Count, Engine, Entry, Refusal
from .memory import MemoryEngine
from .plugin import Budgets
from .view import BudgetStatus

__all__ = ["Budget", "BudgetStatus", "Budgets", "Change", "Count", "Engine", "Entry", "MemoryEngine", "Refusal"]
