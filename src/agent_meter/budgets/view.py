"""`meter.budgets` as people use it: a list that can be changed while calls run, and how each budget stands."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from ..errors import BudgetError
from ..records import LLM, Call, new_id
from .budget import Budget, readable
from .engine import Engine, Entry
from .matching import TOKENS, Line, Matcher, prefix
from .windows import ALIASES, moment

SET, CODE = "set", "code"
LABELS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}  # as in `usage_by`, UTC
PREHELD = 600_000  # ms that a verdict of `check_and_apply_budget` is held for


class BudgetStatus(msgspec.Struct, frozen=True):
    """How one counter of a budget stands; amounts are US dollars (`Decimal`) or counts, `percent` is 0–100."""

    name: str
    unit: str  # usd, tokens, requests, or a unit's name
    limit: Decimal | int
    used: Decimal | int
    reserved: Decimal | int
    remaining: Decimal | int
    percent: float
    per: str
    mode: str
    scope: str = ""  # which of several counters: "agent=alice"
    starts_at: datetime | None = None
    resets_at: datetime | None = None
    denied: int = 0  # calls refused in this process


class Verdict(int):
    """True or False (as a number), at once or after an `await`: the third document's function is a coroutine."""

    def __await__(self) -> Generator[Any, None, bool]:
        return self._answer().__await__()

    async def _answer(self) -> bool:
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))


class BudgetList:
    """The budgets by name, in the order in which they were added."""

    engine: Engine
    denied: dict[str, int]
    _failed: Callable[[str, str, BaseException], None]

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._changing = threading.RLock()
        self._preholds: dict[str, deque[tuple[str, int]]] = {}
        self._own: dict[str, Budget] = {}  # set in this process
        self._set: dict[str, Budget] = {}  # set by a person, in the store: these go first
        self._documents: dict[str, str] = {}
        for budget in budgets:
            if not isinstance(budget, Budget):
                raise BudgetError(f"budgets are Budget(…) objects, not {budget!r}")
            if budget.name in self._own:
                raise BudgetError(f"two budgets are called {budget.name!r}")
            self._own[budget.name] = budget
        self._by_name: dict[str, Budget] = {}
        self._change()
        self.look_up()
        for budget in self._own.values():
            self._publish(budget)

    def __iter__(self) -> Iterator[Budget]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return (name.name if isinstance(name, Budget) else name) in self._by_name

    def __getitem__(self, which: int | str) -> Budget:
        if isinstance(which, int):
            return tuple(self._by_name.values())[which]
        try:
            return self._by_name[which]
        except KeyError:
            raise self._unknown(which) from None

    def __repr__(self) -> str:
        return repr(list(self))

    def get(self, name: str) -> Budget | None:
        return self._by_name.get(name)

    _named = get

    def lines(self, call: Call) -> tuple[Line, ...]:
        """The limits that a call touches."""
        return self._matcher.of_call(call)

    # ------------------------------------------------------------------------------------------- changing

    def set(self, budget: Budget | str, **options: Any) -> Budget:
        """Add a budget, or put it in the place of the one of its name; what was used stays used.

        A name and options of `Budget` do as well; options alone change the budget of that name.
        """
        if isinstance(budget, str):
            old = self.get(budget)
            budget = Budget(budget, **options) if old is None else old.replace(**options)
        elif options:
            budget = budget.replace(**options)
        if not isinstance(budget, Budget):
            raise BudgetError(f"a Budget or a name, not {budget!r}")
        with self._changing:
            self._own[budget.name] = budget
            if budget.name in self._set:
                self._set[budget.name] = budget
                self.engine.keep(budget.name, SET, json.dumps(budget.to_dict()))
            self._change()
        self._publish(budget)
        return budget

    def add(self, budget: Budget) -> Budget:
        """Add a budget. `BudgetError` where there is one of that name."""
        if budget.name in self._by_name:
            raise BudgetError(f"there is a budget {budget.name!r} already; budgets.set(…) replaces it")
        return self.set(budget)

    def remove(self, name: str) -> Budget:
        """Take a budget away. `BudgetError` where there is none of that name."""
        with self._changing:
            gone = self._by_name.get(name)
            if gone is None:
                raise self._unknown(name)
            self._own.pop(name, None)
            if self._set.pop(name, None) is not None:
                self.engine.keep(name, SET, None)
            self.engine.keep(name, CODE, None)
            self._change()
        return gone

    def _change(self) -> None:
        self._by_name = {**self._own, **self._set}
        self._matcher = Matcher(self._by_name.values())
        self._plug_in()

    def look_up(self) -> None:
        """Take over what a person has set in the store meanwhile. What cannot be read there changes nothing."""
        documents = self.engine.kept(SET)
        if documents == self._documents:
            return
        found = {}
        for name, document in documents.items():
            try:
                found[name] = Budget(**json.loads(document))
            except (TypeError, ValueError) as error:
                self._failed("budgets", "look up", error)
        with self._changing:
            self._documents, self._set = documents, found
            self._change()

    def _publish(self, budget: Budget) -> None:
        """So that others can list it: `agent-meter budget list`."""
        self.engine.keep(budget.name, CODE, json.dumps(budget.to_dict()))

    def _plug_in(self) -> None:
        """Only a meter that has budgets asks for them on its path."""
        raise NotImplementedError

    def reset(self, name: str | None = None) -> None:
        """Forget what was used of a budget, or of all; what calls in flight hold stays held."""
        for budget in [self[name]] if name is not None else list(self):
            for limit in budget.limits:
                for key in self.engine.keys(prefix(budget, limit) + "|"):
                    self.engine.forget(key)

    def _unknown(self, name: str) -> BudgetError:
        from difflib import get_close_matches

        near = get_close_matches(str(name), self._by_name, 1)
        return BudgetError(f"there is no budget {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    # -------------------------------------------------------------------------------------------- reading

    def status(self, name: str | None = None) -> Any:
        """How one budget stands (its first counter), or all of them: a list with an entry for each counter."""
        if name is not None:
            return next(iter(self._statuses(self[name])), None)
        return [status for budget in self for status in self._statuses(budget)]

    def statuses(self, name: str) -> list[BudgetStatus]:
        """How each counter of one budget stands: one for each limit, and for each agent where it is for each."""
        return list(self._statuses(self[name]))

    def _statuses(self, budget: Budget) -> Iterator[BudgetStatus]:
        now = self.engine.now()
        span = budget.window.at(now)
        for limit in budget.limits:
            start = prefix(budget, limit) + "|"
            keys = self.engine.keys(start)
            if not keys:
                each = any(wanted[0] == "*" for wanted in (*budget.scope.values(), *budget.tags.values()))
                keys = [] if each or budget.window.name == "run" else [start]
            for key in keys:
                count = self.engine.read(key, span.since)
                unit = limit.unit
                left = max(0, limit.amount - count.used - count.reserved)
                yield BudgetStatus(
                    budget.name,
                    "usd" if unit == "usd_pico" else unit,
                    readable(limit.amount, unit),
                    readable(count.used, unit),
                    readable(count.reserved, unit),
                    readable(left, unit),
                    count.used * 100 / limit.amount if limit.amount else 100.0,
                    budget.window.name,
                    budget.mode,
                    key[len(start) :],
                    moment(span.since) if span.since else None,
                    budget.window.resets_at(span, count.oldest),
                    self.denied.get(budget.name, 0),
                )

    # -------------------------------------------------------------------------- the third document's names

    def set_agent_limit(self, agent_name: str, max_tokens: int) -> Budget:
        """A limit of tokens for one agent, for ever; the budget has the agent's name. What it has used counts."""
        budget = self.set(Budget(agent_name, tokens=max_tokens, per="total", agent=agent_name))
        self._begin_with(budget, "agent", agent_name)
        return budget

    def set_period_limit(self, period_name: str, max_tokens: int) -> Budget:
        """A limit of tokens for everybody: "daily", "weekly" … ("daily:research" for a second one). What was used in
        the period counts.
        """
        period = period_name.partition(":")[0]
        budget = self.set(Budget(period_name, tokens=max_tokens, per=ALIASES.get(period, period)))
        if (label := LABELS.get(budget.window.name)) is not None:
            self._begin_with(budget, budget.window.name, moment(self.engine.now()).strftime(label))
        return budget

    def _begin_with(self, budget: Budget, dimension: str, name: str) -> None:
        """Count what was used before there was this budget, unless somebody has counted for it already."""
        key = prefix(budget, budget.limits[0]) + "|"
        span = budget.window.at(self.engine.now())
        used = self._used_so_far(dimension, name)
        if used and self.engine.read(key, span.since)[:2] == (0, 0):
            self.engine.add([Entry(key, *span, used, None)])

    def _used_so_far(self, dimension: str, name: str) -> int:
        """Tokens, by what the meter has counted."""
        return 0

    def check_and_apply_budget(self, agent_name: str, estimated_tokens: int) -> Verdict:
        """Whether an agent may use so many tokens; if so, they are held for its next call (ten minutes at most).

        The next model call of the agent, opened or recorded afterwards, takes the place of what is held.
        """
        lines = [line for line in self._lines_of_agent(agent_name) if line.code == TOKENS]
        now = self.engine.now()
        entries = [Entry(line.key, *line.window.at(now), estimated_tokens, line.enforced) for line in lines]
        if not entries:
            return Verdict(True)
        hold = new_id()
        if self.engine.reserve(hold, entries, now + PREHELD) is not None:
            return Verdict(False)
        with self._changing:
            self._preholds.setdefault(agent_name, deque()).append((hold, len(entries)))
        return Verdict(True)

    def _lines_of_agent(self, agent: str) -> tuple[Line, ...]:
        call = Call(LLM)
        call.agent = agent
        return tuple(line for line in self._matcher.of_call(call) if not line.per_run)

    def _take_over(self, call: Call) -> None:
        """A call takes the place of what was held for its agent beforehand."""
        self._release_prehold(call.agent)

    def _release_prehold(self, agent: str) -> None:
        with self._changing:
            waiting = self._preholds.get(agent)
            held = waiting.popleft() if waiting else None
            if waiting is not None and not waiting:
                del self._preholds[agent]
        if held is not None:
            self.engine.settle(held[0], [0] * held[1])
