"""Recorded calls priced again: under other models, or by other prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ..records import NOT_SENT, Cost, CostStatus, Model, UsageRecord

if TYPE_CHECKING:
    from .book import PriceBook


class Swap(msgspec.Struct):
    """The calls of one model, and what they would have cost under another. Sums are pico-dollars of list price."""

    model: str
    instead: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    before_pico: int = 0
    after_pico: int = 0
    unpriced: int = 0  # calls that the other model has no price for, or that had none themselves: in neither sum
    estimated: int = 0


class Repriced(msgspec.Struct):
    """The calls of one model by the cards that priced them, and by today's. Sums are pico-dollars of list price."""

    provider: str
    model: str
    calls: int = 0
    changed: int = 0
    before_pico: int = 0
    after_pico: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0


def swapped(
    records: Iterable[UsageRecord], prices: PriceBook, swaps: Mapping[str, str], *, provider: str = ""
) -> list[Swap]:
    """The calls of each model named in `swaps` as if the other one had answered, with the same tokens.

    `provider` is whose the other models are; by default the provider that the call went to, if it has the model.
    Token counts are taken as they are: another tokenizer would count differently.
    """
    found: dict[str, Swap] = {}
    for record in records:
        name = next((name for name in (record.model, record.request_model) if name in swaps), None)
        usage = record.usage
        if name is None or usage is None:
            continue
        swap = found.get(name)
        if swap is None:
            swap = found[name] = Swap(name, swaps[name])
        swap.calls += 1
        swap.input_tokens += usage.input_tokens
        swap.output_tokens += usage.output_tokens
        rates = prices.find(Model(provider or record.provider, swap.instead))
        if not rates.known and not provider:
            rates = prices.find(Model("", swap.instead))
        plain = msgspec.structs.replace(usage, reported_pico=None)
        after = rates.price(plain, record.started_at, usage.context)
        if after.list_pico is None or record.cost.list_pico is None:
            swap.unpriced += 1
            continue
        swap.estimated += after.status is CostStatus.ESTIMATED
        swap.before_pico += record.cost.list_pico
        swap.after_pico += after.list_pico
    return [found[name] for name in swaps if name in found]


def price_again(record: UsageRecord, prices: PriceBook) -> Cost | None:
    """What a recorded call costs by these prices on its own day; `None` where they have no better opinion.

    A call that was never answered stays free, a figure that its provider reported stays, and a price that is not
    known any more does not unmake one that was.
    """
    usage, old = record.usage, record.cost
    if usage is None or old == NOT_SENT or old.status is CostStatus.REPORTED:
        return None
    new = prices.find(Model(record.provider, record.model)).price(usage, record.started_at, usage.context)
    if new.list_pico is None or (new.list_pico == old.list_pico and new.missing == old.missing):
        return None
    return msgspec.structs.replace(new, billed_pico=0) if record.cached else new


def repriced(records: Iterable[UsageRecord], prices: PriceBook) -> list[Repriced]:
    """By provider and model, what `price_again` would change; the largest change first."""
    found: dict[tuple[str, str], Repriced] = {}
    for record in records:
        key = record.provider, record.model
        one = found.get(key)
        if one is None:
            one = found[key] = Repriced(*key)
        one.calls += 1
        before = record.cost.list_pico
        again = price_again(record, prices)
        after = before if again is None else again.list_pico
        one.changed += again is not None
        one.unpriced_before += before is None
        one.unpriced_after += after is None
        one.before_pico += before or 0
        one.after_pico += after or 0
    return sorted(found.values(), key=lambda one: (-abs(one.after_pico - one.before_pico), one.provider, one.model))
