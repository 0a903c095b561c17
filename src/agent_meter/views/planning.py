"""Plans, forecasts and the budget report, as tables and as documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import RenderableType
from rich.text import Text

from .report import money as cost_of
from .terminal import line, table, title, unfolded

if TYPE_CHECKING:
    from ..budgets.forecasting import BudgetForecast
    from ..budgets.planning import Plan
    from ..forecast import Forecast
    from ..records import Alert
    from ..usage import AgentUsage

_NUMBERS = (
    "used",
    "of",
    "%",
    "expected",
    "low",
    "high",
    "tokens",
    "cost",
    "before",
    "tokens a day",
    "US$ a month",
    "cap",
)


class BudgetReport(msgspec.Struct):
    """Budget and actual of one day or week."""

    period: str  # day or week
    since: Any
    until: Any
    total: Any  # AgentUsage
    agents: Mapping[str, Any]
    before: Mapping[str, Any]  # the period before, up to the same time
    forecasts: Sequence[Any]
    alerts: Sequence[Any]
    projections: Mapping[str, Any]


# ------------------------------------------------------------------------------------------------------- forecasts


def forecasts(found: Sequence[BudgetForecast]) -> list[RenderableType]:
    """A row for each counter; * marks those that are expected to be exceeded."""
    shown = table("budget", "used", "of", "expected", "low", "high", "runs out", right=_NUMBERS)
    for one in found:
        label = f"{one.name} ({one.scope})" if one.scope else one.name
        unit = "" if one.unit == "usd" else f" {one.unit.replace('_', ' ')}"
        bound = "≥ " if one.unpriced and one.unit == "usd" else ""
        shown.add_row(
            Text(f"{label}{unit}{' *' if one.exceeds else ''}", style="red" if one.exceeds else ""),
            _amount(one.used, one.unit),
            _amount(one.limit, one.unit),
            f"{bound}{_amount(one.expected, one.unit)}" if one.until is not None else "",
            _amount(one.low, one.unit) if one.until is not None else "",
            _amount(one.high, one.unit) if one.until is not None else "",
            "already" if one.used >= one.limit else f"{one.exhausted_at:%m-%d %H:%M}" if one.exhausted_at else "",
        )
    unfolded(shown, "used", "of", "expected", "low", "high", "runs out")
    return [shown, *_notes(found)]


def _notes(found: Sequence[BudgetForecast]) -> Iterator[RenderableType]:
    if any(one.exceeds for one in found):
        yield Text("* more is expected than there is. Times are UTC.", style="dim")
    if any(one.unpriced and one.unit == "usd" for one in found):
        yield Text("≥ calls without a price are not in it.", style="dim")
    known = max((one.history_hours for one in found), default=0)
    if found and known < 24:
        yield Text(f"Only {known} hours are known: expect these figures to move.", style="dim")


def _amount(amount: Any, unit: str) -> str:
    return f"${amount:,.2f}" if unit == "usd" else f"{amount:,}"


def plain(value: Any) -> Any:
    """A struct or a value for JSON: amounts of money and times are strings."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(one) for name, one in msgspec.structs.asdict(value).items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def forecast_document(one: BudgetForecast) -> dict[str, Any]:
    return {**plain(one), "exceeds": one.exceeds}


# ------------------------------------------------------------------------------------------------------- the report


def report(found: BudgetReport) -> list[RenderableType]:
    """Actual by agent against the period before, then budgets and where they end up, then what to look at."""
    parts: list[RenderableType] = [
        title(f"Budget report: the {found.period} from {found.since:%Y-%m-%d} (UTC)"),
        line(""),
    ]
    shown = table("agent", "calls", "tokens", "cost", "before", right=(*_NUMBERS, "calls"))
    ranked = sorted(found.agents.items(), key=lambda item: (-item[1].totals.list_pico, item[0]))
    for name, usage in ranked:
        shown.add_row(name or "(none)", *_row(usage), _cost(found.before.get(name)))
    shown.add_row("total", *_row(found.total), _cost(found.before.get("\0total")), style="bold")
    unfolded(shown, "calls", "tokens", "cost", "before")
    parts += [shown, line("")]
    if found.forecasts:
        parts += [*forecasts(found.forecasts), line("")]
    else:
        parts += [line("No budgets are set: agent-meter budget plan proposes some."), line("")]
    for name, projection in found.projections.items():
        bound = "≥ " if projection.unpriced else ""
        parts.append(
            line(
                f"This {name}: {bound}${projection.used:,.2f} so far, {bound}${projection.expected:,.2f} expected "
                f"(${projection.low:,.2f} to ${projection.high:,.2f})"
            )
        )
    for alert in found.alerts:
        parts.append(line(f"! {alert.message}", "yellow"))
    return parts


def _row(usage: AgentUsage) -> tuple[str, str, str]:
    return f"{usage.requests:,}", f"{usage.total_tokens:,}", _cost(usage)


def _cost(usage: AgentUsage | None) -> str:
    if usage is None:
        return "–"
    return f"{'≥ ' if usage.unpriced_requests else ''}{cost_of(usage.totals.billed_pico)}"


def report_document(found: BudgetReport) -> dict[str, Any]:
    def usage(one: AgentUsage | None) -> dict[str, Any] | None:
        if one is None:
            return None
        return {
            "requests": one.requests,
            "total_tokens": one.total_tokens,
            "billed_cost_usd": plain(one.billed_cost_usd),
            "unpriced_requests": one.unpriced_requests,
        }

    return {
        "period": found.period,
        "since": plain(found.since),
        "until": plain(found.until),
        "total": {**(usage(found.total) or {}), "before": usage(found.before.get("\0total"))},
        "agents": {
            name: {**(usage(one) or {}), "before": usage(found.before.get(name))} for name, one in found.agents.items()
        },
        "budgets": [forecast_document(one) for one in found.forecasts],
        "alerts": [_alert(alert) for alert in found.alerts],
        "projections": {name: _projection(one) for name, one in found.projections.items()},
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {"budget": alert.name, "message": alert.message, "scope": alert.scope}


def _projection(one: Forecast) -> dict[str, Any]:
    keys = ("used", "expected", "low", "high", "until", "history_hours", "unpriced")
    return {key: plain(round(value, 6) if isinstance(value := getattr(one, key), float) else value) for key in keys}


# --------------------------------------------------------------------------------------------------------- the plan


def plans(found: Iterable[Plan], share: float) -> list[RenderableType]:
    shown = table("agent", "tokens a day", "model", "US$ a month", "cap", "", right=_NUMBERS)
    for one in found:
        says = "" if one.fits else f"lasts {one.days} day{'' if one.days == 1 else 's'}"
        shown.add_row(
            one.title,
            f"{one.daily_tokens:,}",
            one.model,
            f"{one.monthly_usd:,.2f}",
            f"{one.cap_usd:,.2f}",
            Text(says, style="" if one.fits else "red"),
        )
    unfolded(shown, "tokens a day", "model", "US$ a month", "cap", "")
    return [shown, Text(f"A month is 30 full days; {share:.0%} of the tokens are answers.", style="dim")]


def plan_document(one: Plan) -> dict[str, Any]:
    return {**plain(one), "fits": one.fits, "days": one.days}
