"""What becomes of a call that does not fit: who is asked first, and what the refusal says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..records import TOOL, Call, Denial, TokenUsage
from . import told
from .amounts import Held
from .budget import Budget
from .engine import Refusal
from .estimates import price
from .matching import USD, Line
from .windows import Span

if TYPE_CHECKING:
    from ..meter import Meter

PLUGIN = "budgets"
COUNTED = 4096  # names whose denials and overruns are told apart


class Refusals:
    """The part of `Budgets` that says no."""

    _meter: Meter
    _failed: Callable[[str, str, BaseException], None]
    denied: dict[str, int]
    unpriced: int

    def ask(self, budget: Budget, call: Call, denial: Denial) -> bool:
        """Whether the budget's `on_exceed` wants another try."""
        try:
            return bool(budget.on_exceed is not None and budget.on_exceed(call, denial))
        except Exception as error:
            self._failed(PLUGIN, "on_exceed", error)
            return False

    def count_denied(self, denial: Denial, times: int = 1) -> None:
        if denial.budget in self.denied or len(self.denied) < COUNTED:
            self.denied[denial.budget] = self.denied.get(denial.budget, 0) + times

    def _denial(self, call: Call, held: Held, refusal: Refusal, pico: int | None, assumed: tuple[str, ...]) -> Denial:
        line, entry = held.lines[refusal.position], held.entries[refusal.position]
        fits = None
        if call.kind is not TOOL:
            per_million: int | None = None
            input_pico: int | None = None
            if line.code == USD and call.started_at is not None:
                input_pico = price(held.rates, TokenUsage(held.input_tokens), call.started_at, self._failed)
                both = price(held.rates, TokenUsage(held.input_tokens, 10**6), call.started_at, self._failed)
                per_million = None if both is None or input_pico is None else both - input_pico
            fits = told.fitting(line, refusal, held.input_tokens, input_pico, per_million)
        span = Span(entry.slot, entry.since, entry.until)
        return told.denial(line, refusal, entry.amount, span, fits, assumed, held.output_tokens)

    def _unpriced(self, call: Call, lines: tuple[Line, ...]) -> Denial | None:
        """What the budgets in money say to a model that nobody can price."""
        for line in lines:
            if line.code != USD:
                continue
            self.unpriced += 1
            policy = line.budget.on_unpriced
            if policy == "deny" and line.enforced is not None:
                return told.unpriced(line, call.model)
            if policy == "warn":
                from ..records import Alert

                message = f"{line.label}: {call.model} has no price, its cost is not counted"
                self._meter.plugins.alert(Alert(line.budget.name, message, unit="usd_pico", scope=line.scope))
        return None

    def _unreadable(self, lines: tuple[Line, ...], error: BaseException) -> Denial | None:
        for line in lines:
            if line.enforced is not None and line.budget.on_error == "deny":
                return told.unreadable(line, error)
        return None
