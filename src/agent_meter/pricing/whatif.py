"""What-if sums: what many equal calls would cost."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from ..errors import PriceError, UnknownModel
from ..records import Cost, Model, TokenUsage
from .book import PriceBook
from .cards import Line
from .rates import amount
from .units import WIDE


class WhatIf(NamedTuple):
    """What many equal calls would cost."""

    model: str
    tasks: int
    usage: TokenUsage  # of one task
    each: Cost
    total: Decimal | None
    provider: str = ""
    lines: tuple[Line, ...] = ()  # of one task; they add up to its list price


def whatif(
    prices: PriceBook,
    model: str,
    *,
    tasks: int,
    tokens: int,
    output_share: Decimal | float | str = Decimal("0.125"),
    cached_share: Decimal | float | str = Decimal(0),
    provider: str = "",
    at: datetime | None = None,
) -> WhatIf:
    """What `tasks` calls of `tokens` tokens each would cost, so much of them output, so much of the input cached.

    Raises `PriceError`, as `usage_of` does, and `UnknownModel`.
    """
    usage = usage_of(tokens, output_share, cached_share)
    return cost_of(prices, model, usage, tasks=tasks, provider=provider, at=at)


def usage_of(
    tokens: int, output_share: Decimal | float | str, cached_share: Decimal | float | str = Decimal(0)
) -> TokenUsage:
    """Tokens of one call as usage. Shares are between 0 and 1, of the tokens and of their input; rounded down."""
    if tokens < 0:
        raise PriceError(f"tokens {tokens}: not below 0")
    output = int(WIDE.multiply(Decimal(tokens), _share(output_share)))
    cached = int(WIDE.multiply(Decimal(tokens - output), _share(cached_share)))
    return TokenUsage(tokens - output, output, cached)


def _share(given: Decimal | float | str) -> Decimal:
    try:
        share = amount(given, "share")
    except PriceError:
        share = Decimal(2)
    if share > 1:
        raise PriceError(f"a share is a number from 0 to 1, such as 0.125, not {given!r}")
    return share


def cost_of(
    prices: PriceBook,
    model: str,
    usage: TokenUsage,
    *,
    tasks: int = 1,
    provider: str = "",
    at: datetime | None = None,
) -> WhatIf:
    """What `tasks` calls of this usage each would cost; its `context` picks variants. Raises `UnknownModel`."""
    if tasks < 0:
        raise PriceError(f"tasks {tasks}: not below 0")
    at = at or datetime.now(UTC)
    rates = prices.find(Model(provider, model))
    cost = rates.price(usage, at, usage.context)
    if not rates.known and cost.amount is None:
        raise UnknownModel(f"no price for {model!r}: {rates.reason}")
    total = None if cost.amount is None else WIDE.multiply(cost.amount, Decimal(tasks))
    lines = tuple(rates.lines(usage, at, usage.context))
    return WhatIf(rates.model or model, tasks, usage, cost, total, rates.provider, lines)
