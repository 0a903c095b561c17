"""Why a call cost what it cost: the card that priced it, where that comes from, and the sum."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from ..patterns import printable
from ..pricing.book import PriceBook
from ..pricing.cards import Line, plain
from ..pricing.catalog import show
from ..records import Attempt, Cost, Model, Record, ToolRecord, UsageRecord, dollars
from . import documents
from .terminal import money, pairs, per, rate, table, title, word
from .whatif import spoken


class Told(NamedTuple):
    """A record and what can be said about its price. `lines` add up to the list price where the card is at hand."""

    record: Record
    lines: tuple[Line, ...]
    source: str
    when: str
    today: Cost | None  # by the prices of this machine, where they are not those that priced the call
    known: bool  # whether the card that priced the call is at hand


_DIRECTIONS = {"input": 0, "output": 1}


def explain(record: Record, prices: PriceBook) -> Told:
    if not isinstance(record, UsageRecord) or record.usage is None:
        return Told(record, (), "", "", None, False)
    usage, cost = record.usage, record.cost
    rates = prices.find(Model(record.provider, record.model))
    pick = rates.pick(record.started_at, usage.context)
    same = pick is not None and pick.card.card_id == cost.card_id
    lines = tuple(rates.lines(usage, record.started_at, usage.context)) if same else ()
    lines = tuple(sorted(lines, key=lambda line: _DIRECTIONS.get(line.direction, 2)))
    if cost.list_pico is not None and sum(line.pico for line in lines) != cost.list_pico:
        lines = ()
    shown = show(prices, record.model, provider=record.provider, at=record.started_at)
    today = None
    if not same:
        again = rates.price(usage, record.started_at, usage.context)
        today = again if again.list_pico is not None else None
    period = shown.now if same else None
    return Told(record, lines, period.source if period else shown.source, period.when if period else "", today, same)


def screen(told: Told) -> Iterator[RenderableType]:
    record = told.record
    yield title(f"{_name(record)} · {_cost_line(record)}")
    yield pairs((label, Text(value)) for label, value in _facts(told) if value)
    if told.lines:
        yield ""
        made = table("what", "quantity", "US$", "per", "cost", right=("quantity", "US$", "per", "cost"))
        for line in told.lines:
            made.add_row(
                word(line.unit),
                f"{line.quantity:,}",
                rate(line.usd),
                per(line.per),
                money(dollars(line.pico)),
            )
        made.add_section()
        made.add_row("list price", "", "", "", money(dollars(sum(line.pico for line in told.lines))), style="bold")
        yield made
    notes = list(_notes(told))
    if notes:
        yield ""
        yield from (Text(note, style="dim") for note in notes)


def _name(record: Record) -> str:
    if isinstance(record, UsageRecord):
        return f"{record.provider}/{record.model}" if record.provider else printable(record.model) or "(no model)"
    return printable(record.name)


def _cost_line(record: Record) -> str:
    if isinstance(record, UsageRecord):
        return str(record.cost) + (f", billed {money(record.billed_cost_usd)}" if record.cached else "")
    if isinstance(record, ToolRecord):
        return f"{money(dollars(record.cost_pico))}, the tool's own"
    return "a run has no cost of its own: agent-meter runs ID shows its tree"


def _facts(told: Told) -> Iterator[tuple[str, str]]:
    record = told.record
    yield "record", record.id
    yield "at", f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    ending = record.status.value + (f", {printable(record.error_type)}" if record.error_type else "")
    yield "ended", ending + (", from a cache" if isinstance(record, UsageRecord) and record.cached else "")
    for name in ("agent", "task", "user", "session", "step", "run_id"):
        yield name.removesuffix("_id"), printable(getattr(record, name) or "")
    if not isinstance(record, UsageRecord):
        return
    if record.request_model != record.model:
        yield "asked for", printable(record.request_model)
    if record.response_model and record.response_model != record.model:
        yield "answered by", printable(record.response_model)
    yield "requests", ", then ".join(map(_attempt, record.attempts)) if len(record.attempts) > 1 else ""
    yield "usage", "not seen" if record.usage is None else spoken(record.usage)
    yield "card", record.cost.card_id or ""
    yield "source", told.source if told.known else ""
    yield "in force", told.when
    if record.cost.reported_pico is not None:
        yield "reported", f"{money(dollars(record.cost.reported_pico))} by the provider"


def _attempt(attempt: Attempt) -> str:
    said = str(attempt.status) if attempt.status is not None else printable(attempt.error_type or "no answer")
    return f"{said} ({attempt.duration:.1f} s)"


def _notes(told: Told) -> Iterator[str]:
    record = told.record
    if not isinstance(record, UsageRecord):
        return
    cost = record.cost
    if cost.reason:
        yield f"{cost.reason}"
    if cost.missing:
        yield f"a lower bound: no rate for {', '.join(cost.missing)}"
    yield from cost.assumptions
    if record.missing and record.usage is not None:
        yield f"not seen: {', '.join(record.missing)}"
    if cost.card_id and not told.known:
        yield f"the card {cost.card_id} is not among the prices of this machine"
    if told.today is not None and told.today.list_pico != cost.list_pico:
        yield f"by the prices of this machine it would cost {money(told.today.amount)} (card {told.today.card_id})"
    yield from record.notes


def document(told: Told) -> dict[str, Any]:
    from ..encoding import to_document

    return {
        "record": to_document(told.record),
        "source": told.source,
        "in_force": told.when,
        "card_known": told.known,
        "lines": [
            {
                "unit": line.unit,
                "quantity": documents.count(line.quantity),
                "rate_usd": plain(line.usd),
                "per": line.per,
                "usd": plain(dollars(line.pico)),
            }
            for line in told.lines
        ],
        "cost_usd": _usd(told.record),
        "today_usd": None if told.today is None else documents.amount(told.today.amount),
    }


def _usd(record: Record) -> str | None:
    if isinstance(record, UsageRecord):
        return documents.amount(record.cost_usd)
    return plain(dollars(record.cost_pico)) if isinstance(record, ToolRecord) else plain(Decimal(0))
