"""One look at what is being spent: the screen of `agent-meter top`, and its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from ..encoding import to_document
from ..patterns import printable
from ..records import Record
from ..usage import AgentUsage
from . import calls, report
from .report import Report, money, places_for, short, usage_document
from .terminal import table, unfolded

if TYPE_CHECKING:
    from ..budgets import BudgetStatus

_BAR = 10


class Moment(NamedTuple):
    at: datetime
    report: Report
    minute: AgentUsage
    """What began in the last minute."""
    last: Sequence[Record]
    budgets: Sequence[BudgetStatus] = ()


def screen(moment: Moment, *, width: int = 80) -> Iterator[RenderableType]:
    """The rate of the last minute, who spent what, how the budgets stand, the last calls."""
    minute = moment.minute
    pico = minute.totals.list_pico
    spent = f"{'≥' if minute.is_lower_bound else ''}{money(pico, places_for([pico]))}"
    tokens = short(minute.total_tokens + minute.embedding_tokens)
    yield Text(f"{moment.at:%H:%M:%S} UTC · last minute: {report.calls(minute.requests)} · {tokens} tokens · {spent}")
    yield ""
    yield from report.screen(moment.report, width=width)
    if moment.budgets:
        yield ""
        yield _budgets(moment.budgets)
    if moment.last:
        yield ""
        yield from calls.history(moment.last, width=width)


def _budgets(statuses: Sequence[BudgetStatus]) -> RenderableType:
    numbers = ["used", "held", "of", "%"]
    made = table("budget", *numbers, "", right=numbers)
    unfolded(made, *numbers, "")
    for one in statuses:
        scope = f" ({printable(one.scope)})" if one.scope else ""
        full = min(_BAR, int(one.percent * _BAR / 100))
        made.add_row(
            Text(f"{printable(one.name)}{scope}"),
            *(_amount(amount, one.unit) for amount in (one.used, one.reserved, one.limit)),
            f"{one.percent:.0f}",
            "█" * full + "░" * (_BAR - full),
        )
    return made


def _amount(amount: Decimal | int, unit: str) -> str:
    return f"${amount:,.4f}".removesuffix("00") if unit == "usd" else f"{amount:,} {unit.replace('_', ' ')}"


def document(moment: Moment) -> dict[str, Any]:
    return {
        "at": moment.at.isoformat(),
        "report": report.document(moment.report),
        "last_minute": usage_document(moment.minute),
        "budgets": [
            {
                "name": one.name,
                "scope": one.scope,
                "unit": one.unit,
                "used": str(one.used),
                "held": str(one.reserved),
                "limit": str(one.limit),
                "percent": round(one.percent, 2),
            }
            for one in moment.budgets
        ],
        "last": [to_document(record) for record in moment.last],
    }
