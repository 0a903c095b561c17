"""How much a call counts for: what is held for it before, and what it turned out to be."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ..records import (
    ABANDONED,
    CANCELLED,
    DENIED,
    ERROR,
    NO_USAGE,
    CostStatus,
    Rates,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)
from .engine import Entry
from .estimates import Seen, assumed_price, price
from .matching import REQUESTS, TOKENS, USD, Line

if TYPE_CHECKING:
    from collections.abc import Callable


class Held(msgspec.Struct, eq=False):
    """What is held for one open call, and what is needed to settle it."""

    id: str
    lines: tuple[Line, ...]
    entries: list[Entry]
    input_tokens: int = 0
    output_tokens: int = 0
    size: int | None = None
    seen: Seen | None = None
    rates: Rates | None = None
    extended: int = 0


def held_amount(line: Line, input_tokens: int, output_tokens: int, pico: int | None) -> int:
    """What a line holds for a call that may use so much; money that nobody can price is the line's to assume."""
    code = line.code
    if code == USD:
        if pico is not None:
            return pico
        assumed = line.budget.assumed
        return assumed_price(assumed, input_tokens, output_tokens) if assumed else 0
    if code == TOKENS:
        counting = line.counting
        if counting == "input":
            return input_tokens
        return output_tokens if counting == "output" else input_tokens + output_tokens
    return 1  # of a unit that only the provider's answer tells, one is held


class Outcome(msgspec.Struct, frozen=True):
    """What a record says of what was used. `charge`: nothing is known, so what was held counts."""

    usage: TokenUsage
    billed_pico: int | None
    list_pico: int | None
    requests: int
    cached: bool = False
    charge: bool = False
    final: bool = True


NOTHING = Outcome(NO_USAGE, 0, 0, 0)


def outcome(record: UsageRecord, held: Held | None, failed: Callable[[str, str, BaseException], None]) -> Outcome:
    """Released when it was never sent, charged when nobody knows, else what was used."""
    status, usage, cost = record.status, record.usage, record.cost
    if status is DENIED:
        return NOTHING
    if usage is None:
        if status is ERROR and not record.estimated:
            return NOTHING  # never answered
        if status is CANCELLED or status is ERROR:
            # It was sent, and nothing was seen of an answer: the provider has read the prompt.
            return _priced(TokenUsage(held.input_tokens if held else 0), record, held, failed)
        return Outcome(NO_USAGE, None, None, 1, charge=True, final=status is not ABANDONED)
    final = status is not ABANDONED
    if held is not None and usage.missing and not record.cached:
        seen_in, seen_out = usage.input_tokens, usage.output_tokens
        asked_in = held.input_tokens if not seen_in and "input_tokens" in usage.missing else seen_in
        asked_out = held.output_tokens if not seen_out and "output_tokens" in usage.missing else seen_out
        if (asked_in, asked_out) != (seen_in, seen_out):
            return _priced(TokenUsage(asked_in, asked_out), record, held, failed)
    if cost.status is CostStatus.UNPRICED:
        return Outcome(usage, None, None, 0 if record.cached else 1, record.cached, final=final)
    return Outcome(usage, cost.billed_pico, cost.list_pico, 0 if record.cached else 1, record.cached, final=final)


def _priced(
    usage: TokenUsage, record: UsageRecord, held: Held | None, failed: Callable[[str, str, BaseException], None]
) -> Outcome:
    pico = price(held.rates if held else None, usage, record.started_at, failed)
    return Outcome(usage, pico, pico, 1, final=record.status is not ABANDONED)


def used_amount(line: Line, what: Outcome, entry: Entry | None) -> int:
    """What a line counts. A price that nobody knows counts as the line assumes, else as it was held."""
    if what.charge and entry is not None:
        return entry.amount
    code = line.code
    if code == USD:
        amount = what.billed_pico if line.money == "billed" else what.list_pico
        if amount is not None:
            return amount
        if what.cached and line.money == "billed":
            return 0
        if assumed := line.budget.assumed:
            return assumed_price(assumed, what.usage.input_tokens, what.usage.output_tokens)
        return entry.amount if entry is not None else 0
    if code == REQUESTS:
        return what.requests
    if what.cached:
        return 0
    usage = what.usage
    if code == TOKENS:
        counting = line.counting
        if counting == "total":
            return usage.input_tokens + usage.output_tokens
        if counting == "work":
            return max(0, usage.input_tokens - usage.cache_read_tokens) + usage.output_tokens
        return usage.input_tokens if counting == "input" else usage.output_tokens
    return int(usage.units.get(line.limit.unit, 0))


def tool_amount(line: Line, record: ToolRecord) -> int:
    if line.code == USD:
        return record.cost_pico
    return 1 if line.code == REQUESTS and record.status is not DENIED and not record.paused else 0


def plain_price(
    rates: Rates | None, usage: TokenUsage, at: datetime, failed: Callable[[str, str, BaseException], None]
) -> int | None:
    """What the tokens would have cost without caches, modalities and fees: the measure of `Seen.dearer`."""
    return price(rates, TokenUsage(usage.input_tokens, usage.output_tokens), at, failed)
