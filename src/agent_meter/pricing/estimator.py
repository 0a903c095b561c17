"""Costs for people who ask in plain numbers: an estimator on a price book, and two functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from ..errors import UnknownModel
from ..records import EMPTY, Cost, Model, TokenUsage
from .book import PriceBook
from .rates import Amount, Rates

MOST_ASKED = 10_000  # models that an estimator remembers to have been asked about


class CostEstimator:
    """What calls would cost, by a price book of its own or one that is given."""

    def __init__(self, custom_rates: Mapping[str, Amount] | None = None, *, prices: PriceBook | None = None) -> None:
        """`custom_rates` are US$ for 1,000 tokens, input and output alike, by model."""
        self.prices = PriceBook.of(prices, cost_rates=custom_rates)
        self._asked: dict[Model, None] = {}  # the book forgets what it looked up whenever a price is set

    def estimate(
        self,
        usage: TokenUsage | None = None,
        model: str = "",
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        provider: str = "",
        at: datetime | None = None,
        context: Mapping[str, str] = EMPTY,
        **classes: Any,
    ) -> Cost:
        """The cost of one call; `classes` are further fields of `TokenUsage` (`cache_read_tokens=…`)."""
        if usage is None:
            usage = TokenUsage(input_tokens, output_tokens, **classes)
        return self.prices.price(self._model(provider, model), usage, at or datetime.now(UTC), context or usage.context)

    def get_rate(self, model: str, provider: str = "") -> Rates:
        """The rates of a model: US$ for 1M tokens by class, and `.blended_per_1k`; `.known` says if any."""
        return self.prices.find(self._model(provider, model))

    def _model(self, provider: str, name: str) -> Model:
        model = Model(provider, name)
        if len(self._asked) < MOST_ASKED:
            self._asked[model] = None
        return model

    def set_rate(self, model: str, per_1k: Amount) -> None:
        """Set one blended rate in US$ for 1,000 tokens."""
        self.prices.set(model, per_1k)

    def set_rates(self, model: str, **rates: Any) -> None:
        """Set rates in US$ for 1M tokens by class: `input="2.5", output="10", cache_read="1.25"`."""
        self.prices.set(model, rates)

    def get_all_rates(self) -> Mapping[str, Rates]:
        """The rates that were set, and those that were looked up so far, by model."""
        found = {**{model: self.prices.find(model) for model in list(self._asked)}, **dict(self.prices.known())}
        rates = {str(model): rate for model, rate in found.items() if rate.known}
        return rates | {name: self.prices.find(name) for name in self.prices.names_set()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.get_all_rates())


class ModelInfo(NamedTuple):
    """What the price list says about a model today; costs are US$ for 1M tokens."""

    id: str
    provider: str
    prompt_cost: Decimal
    completion_cost: Decimal
    cached_prompt_cost: Decimal
    context_window: int | None
    rates: Rates


@cache
def _book() -> PriceBook:
    return PriceBook()


def model_info(model: str, provider: str = "") -> ModelInfo:
    """A model's prices and context window. Raises `UnknownModel`."""
    rates = _known(model, provider)
    zero = Decimal(0)
    return ModelInfo(
        rates.model or model, rates.provider, rates.input or zero, rates.output or zero,
        rates.cache_read or zero, rates.context_window, rates,
    )  # fmt: skip


def calculate_cost(
    model: str,
    prompt_tokens: int,
    completion_tokens: int = 0,
    cache_read_input_tokens: int = 0,
    cache_creation_input_tokens: int = 0,
    *,
    provider: str = "",
    at: datetime | None = None,
) -> Decimal:
    """US dollars for one call; `prompt_tokens` include those read from and written to a cache.

    Raises `UnknownModel`: a function that returns a number cannot say that it does not know.
    """
    usage = TokenUsage(prompt_tokens, completion_tokens, cache_read_input_tokens, cache_creation_input_tokens)
    cost = _known(model, provider).price(usage, at or datetime.now(UTC)).amount
    if cost is None:
        raise UnknownModel(f"no price for {model!r}")
    return cost


def calculate_embedding_cost(model: str, tokens: int, *, provider: str = "", at: datetime | None = None) -> Decimal:
    """US dollars for embedding so many tokens. Raises `UnknownModel`."""
    return calculate_cost(model, tokens, provider=provider, at=at)


def _known(model: str, provider: str) -> Rates:
    rates = _book().find(Model(provider, model))
    if not rates.known:
        raise UnknownModel(f"no price for {model!r}: {rates.reason}")
    return rates
