"""What a call costs: the rates of models as plugins answer for them, kept until prices change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from .plugins import Plugins
from .records import NO_USAGE, NOT_SENT, Call, Cost, CostStatus, Model, Rates, TokenUsage

if TYPE_CHECKING:
    from .pricing import PriceBook

RATES_KEPT = 4096
NO_USAGE_SEEN = Cost(CostStatus.UNPRICED, reason="no_usage")


class Rating:
    """Prices the calls of one meter. Whatever rates do, the user's run goes on."""

    def __init__(self, plugins: Plugins, prices: PriceBook, now: Callable[[], datetime]) -> None:
        self._plugins = plugins
        self._prices = prices
        self._now = now
        self._rates: dict[Model, Rates | None] = {}
        self._answers: dict[tuple[Model, str], tuple[Rates | None, str]] = {}
        self._version = -1

    def rates(self, model: Model) -> Rates | None:
        """The rates of a model as plugins answer for it; kept until the price book changes."""
        if self._version != self._prices.version:
            self.forget()
        try:
            return self._rates[model]
        except KeyError:
            rates = self._plugins.find_rates(model)
            if len(self._rates) >= RATES_KEPT:
                self._rates = {}
            self._rates[model] = rates
            return rates

    def _answering(self, asked: Model, response_model: str, rates: Rates | None) -> tuple[Rates | None, str]:
        """The rates of the model that answered, and its name; those of the one that was asked where it has none.

        Rates that the user gave the asked name (a deployment, a contract) stand whatever name answers.
        """
        if getattr(rates, "own", False):
            return rates, asked.name
        if self._version != self._prices.version:
            self.forget()
        found = self._answers.get((asked, response_model))
        if found is None:
            answering = self.rates(Model(asked.provider, response_model, asked.endpoint))
            known = answering is not None and getattr(answering, "known", True)
            found = (answering, response_model) if known else (rates, asked.name)
            if len(self._answers) >= RATES_KEPT:
                self._answers = {}
            self._answers[asked, response_model] = found
        return found

    def forget(self) -> None:
        self._version = self._prices.version
        self._rates, self._answers = {}, {}

    def price(
        self,
        call: Call,
        model: Model,
        usage: TokenUsage | None,
        response_model: str | None,
        estimated: bool,
        cached: bool,
    ) -> tuple[Cost, str]:
        """The cost, and the name that priced it: the answering model's, else the one that was asked for."""
        if usage is None and not estimated:
            return NOT_SENT, model.name
        rates, name = call.rates, model.name
        if response_model and response_model != name:
            rates, name = self._answering(model, response_model, rates)
        cost = Cost(reason="no_rates") if rates is None else self.cost(rates, usage or NO_USAGE, call)
        if usage is None and cost.status is not CostStatus.FREE:
            cost = NO_USAGE_SEEN
        if cached:
            cost = msgspec.structs.replace(cost, billed_pico=0)
        return cost, name

    def cost(self, rates: Rates, usage: TokenUsage, call: Call) -> Cost:
        """The list price of a usage; rates may be a stranger's, and theirs to break."""
        try:
            cost = rates.price(usage, call.started_at or self._now(), usage.context)
            if type(cost) is not Cost:
                raise TypeError(f"price() answers with a Cost, not with {cost!r}")
        except Exception as error:
            self._plugins.failed(type(rates).__name__, "price", error)
            return Cost(reason=f"price() raised {type(error).__name__}")
        return cost
