"""The budgets of a store, for who has no meter there: the command line, a page, a script."""

from __future__ import annotations

import json
import time
from typing import Any, Self

from .budget import Budget
from .engine import Engine
from .opening import open_engine
from .view import CODE, SET, BudgetList


class KeptBudgets(BudgetList):
    """What programs use there (`code`) and what was set by hand, which goes first. A context manager.

    What is set here reaches the programs that run within seconds.
    """

    def __init__(self, where: Any) -> None:
        self.engine: Engine = open_engine(where, None, time.time)[0]
        self.denied = {}
        self._failed = self._unreadable
        self.problems: list[str] = []
        super().__init__()
        for name, document in self.engine.kept(CODE).items():
            try:
                self._own[name] = Budget(**json.loads(document))
            except (TypeError, ValueError) as error:
                self.problems.append(f"{name}: {error}")
        self._change()

    def _plug_in(self) -> None:
        """There is no meter to be plugged into."""

    def _unreadable(self, plugin: str, hook: str, error: BaseException) -> None:
        self.problems.append(str(error))

    def by_hand(self, name: str) -> bool:
        """Whether it was set here, and not by a program."""
        return name in self._set

    def set(self, budget: Budget | str, **options: Any) -> Budget:
        """Keep a budget; a name and options change the budget of that name, whoever set it."""
        if isinstance(budget, str):
            old = self.get(budget)
            budget = Budget(budget, **options) if old is None else old.replace(**options)
        elif options:
            budget = budget.replace(**options)
        self.engine.keep(budget.name, SET, json.dumps(budget.to_dict()))
        self._set[budget.name] = budget
        self._change()
        return budget

    def remove(self, name: str) -> Budget:
        """Take away what was set by hand; else forget what a program told, until it tells it again."""
        budget = self.get(name)
        if budget is None:
            raise self._unknown(name)
        if self._set.pop(name, None) is not None:
            self.engine.keep(name, SET, None)
        else:
            self._own.pop(name, None)
            self.engine.keep(name, CODE, None)
        self._change()
        return budget

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
