"""Where budgets end up: what their windows will have used, and when nothing is left.

The hours of the last four weeks say how much is used at which hour; what the window has used so far, by the budget's
own counters, is where the forecast begins. Hours are those of the ledger, or of this process without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from ..forecast import Forecast, forecast
from ..records import PICO
from .budget import EACH, Budget
from .windows import Calendar, Rolling, moment, window

if TYPE_CHECKING:
    from ..meter import Meter
    from ..usage import AgentUsage
    from .view import BudgetList, BudgetStatus

UsageBy = Callable[[tuple[str, ...], datetime], Mapping[Any, "AgentUsage"]]  # of dimensions, since
LOOK_BACK = timedelta(days=28)
MEASURES = ("usd", "tokens", "requests")


class BudgetForecast(msgspec.Struct, frozen=True):
    """Where one counter of a budget is expected to be when its window ends; amounts as in `BudgetStatus`.

    `expected` lies between `low` and `high` with the asked confidence. `until` is the end of the window; of a rolling
    one, its length from now. For a window without an end, they are what is used now, and `exhausted_at` says when the
    limit is reached. `unpriced` calls of the last four weeks are in no amount of US dollars: those are lower bounds.
    """

    name: str
    unit: str
    scope: str
    per: str
    limit: Decimal | int
    used: Decimal | int
    expected: Decimal | int
    low: Decimal | int
    high: Decimal | int
    percent: float  # `expected` of `limit`, 0–100 and more
    per_hour: Decimal | int
    until: datetime | None
    exhausted_at: datetime | None
    history_hours: int
    unpriced: int = 0

    @property
    def exceeds(self) -> bool:
        """Whether more than the limit is expected to be asked for before the window ends."""
        return self.expected > self.limit or (self.exhausted_at is not None and self.until is not None)

    def __str__(self) -> str:
        label = f"{self.name} ({self.scope})" if self.scope else self.name
        bound = "≥ " if self.unpriced and self.unit == "usd" else ""
        if self.until is None:
            if self.exhausted_at is None:
                return f"{label}: not used up within a year at {self._said(self.per_hour)} an hour"
            return f"{label}: used up on {self.exhausted_at:%Y-%m-%d} at {bound}{self._said(self.per_hour)} an hour"
        unit = "" if self.unit == "usd" else f" {self.unit.replace('_', ' ')}"
        text = (
            f"{label}: {bound}{self._bare(self.expected)} of {self._bare(self.limit)}{unit} expected by "
            f"{self.until:%Y-%m-%d %H:%M} UTC ({self._bare(self.low)} to {self._bare(self.high)})"
        )
        if self.exhausted_at is None:
            return text
        return f"{text}, used up {'already' if self.used >= self.limit else f'{self.exhausted_at:%Y-%m-%d %H:%M}'}"

    def _bare(self, amount: Decimal | int) -> str:
        return f"${amount:,.2f}" if self.unit == "usd" else f"{amount:,}"

    def _said(self, amount: Decimal | int) -> str:
        return self._bare(amount) if self.unit == "usd" else f"{amount:,} {self.unit.replace('_', ' ')}"


def forecasts(
    budgets: BudgetList, usage_by: UsageBy, name: str | None = None, confidence: float = 0.9
) -> list[BudgetForecast]:
    """One for each counter of one budget, or of all; none for windows of a run or a minute, which end too soon."""
    now = moment(budgets.engine.now())  # the clock of the windows
    asked: dict[tuple[str, ...], Mapping[Any, AgentUsage]] = {}

    def once(dimensions: tuple[str, ...], since: datetime) -> Mapping[Any, AgentUsage]:
        if dimensions not in asked:
            asked[dimensions] = usage_by(dimensions, since)
        return asked[dimensions]

    found = []
    for budget in [budgets[name]] if name is not None else budgets:
        if budget.window.name not in ("run", "minute"):
            found += [_one(budget, status, once, now, confidence) for status in budgets.statuses(budget.name)]
    return found


def _one(budget: Budget, status: BudgetStatus, usage_by: UsageBy, now: datetime, confidence: float) -> BudgetForecast:
    used, limit = float(status.used), float(status.limit)
    hours, unpriced = _hours(budget, status, usage_by, now)
    start, until = _bounds(budget, status, now)
    rolls = isinstance(budget.window, Rolling)
    if not hours and used and status.starts_at is not None:
        hours, start = _as_so_far(used, status.starts_at, now)
    begun = min(hours, default=now) if start is None else start
    told = forecast(
        hours, used=0.0 if rolls else used, start=begun, until=until, now=now, limit=limit, confidence=confidence
    )
    exhausted = told.exhausted_at if not rolls else now if used >= limit else None
    expected, low, high = (used, used, used) if until is None else (told.expected, told.low, told.high)
    money = status.unit == "usd"
    return BudgetForecast(
        name=status.name,
        unit=status.unit,
        scope=status.scope,
        per=status.per,
        limit=status.limit,
        used=status.used,
        expected=_amount(expected, money),
        low=_amount(low, money),
        high=_amount(high, money),
        percent=expected * 100 / limit if limit else 100.0,
        per_hour=_amount(_rate(told, hours), money),
        until=until,
        exhausted_at=exhausted,
        history_hours=told.history_hours,
        unpriced=unpriced,
    )


def _rate(told: Forecast, hours: Mapping[datetime, float]) -> float:
    """Per hour; over all that is known, where there is no end to look at."""
    if told.until is not None:
        return told.rate
    return sum(hours.values()) / told.history_hours if told.history_hours else 0.0


def _bounds(budget: Budget, status: BudgetStatus, now: datetime) -> tuple[datetime | None, datetime | None]:
    if isinstance(budget.window, Rolling):
        return now, now + timedelta(milliseconds=budget.window.length)
    if isinstance(budget.window, Calendar):
        return status.starts_at, status.resets_at
    return None, None


def _as_so_far(used: float, since: datetime, now: datetime) -> tuple[dict[datetime, float], datetime]:
    """A single hour, as busy as the window was so far: what is known where no hours are, and it says little."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    share = max((now - hour) / timedelta(hours=1), 1 / 60)
    elapsed = max((now - since) / timedelta(hours=1), share)
    return {hour: used / elapsed * share}, max(hour, since)


# ------------------------------------------------------------------------------------------------------- the hours


def _hours(budget: Budget, status: BudgetStatus, usage_by: UsageBy, now: datetime) -> tuple[dict[datetime, float], int]:
    """What was used in each hour of what the counter counts; nothing where usage cannot be told by that."""
    if "tool" in budget.scope:  # which calls were made in a tool is not kept
        return {}, 0
    wanted: dict[str, tuple[str, ...]] = {**budget.scope, **budget.tags}
    wanted |= {name: (value,) for name, value in _each(budget, status.scope).items()}
    dimensions = tuple(wanted)
    by_provider = "model" in wanted and "provider" not in wanted
    if by_provider:
        dimensions = (*dimensions, "provider")

    def counts(key: tuple[str, ...]) -> bool:
        values = dict(zip(dimensions, key, strict=True))
        for name, names in wanted.items():
            value = values[name]
            if value not in names and not (name == "model" and f"{values['provider']}/{value}" in names):
                return False
        return True

    try:
        groups = usage_by((*dimensions, "hour"), now - LOOK_BACK)
    except ValueError:  # a tag that nobody has set so far
        return {}, 0
    return _sum(groups, lambda usage: _measure(usage, status.unit, budget), counts)


def _each(budget: Budget, scope: str) -> dict[str, str]:
    """What a counter of a budget "for each" is about: "agent=alice, team=red"."""
    names = [name for name, wanted in (*budget.scope.items(), *budget.tags.items()) if wanted[0] == EACH]
    found = re.fullmatch(", ".join(f"{re.escape(name)}=(.*)" for name in names), scope, re.DOTALL) if names else None
    return dict(zip(names, found.groups(), strict=True)) if found else {}


def _sum(
    groups: Mapping[Any, AgentUsage], measure: Callable[[AgentUsage], float], counts: Callable[[tuple[str, ...]], bool]
) -> tuple[dict[datetime, float], int]:
    hours: dict[datetime, float] = {}
    unpriced = 0
    for key, usage in groups.items():
        *values, label = key if isinstance(key, tuple) else (key,)
        if not counts(tuple(values)) or not (at := _moment(label)):
            continue
        hours[at] = hours.get(at, 0.0) + measure(usage)
        unpriced += usage.unpriced_requests
    return hours, unpriced


def _moment(label: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{label}:00:00+00:00")
    except ValueError:  # "(other)", or what has no hour
        return None


def _measure(usage: AgentUsage, unit: str, budget: Budget | None = None) -> float:
    totals = usage.totals
    if unit == "usd":
        return (totals.list_pico if budget is not None and budget.money == "list" else totals.billed_pico) / PICO
    if unit == "requests":
        return totals.api_calls
    if unit != "tokens":
        return float((totals.units or {}).get(unit, 0))
    counting = "total" if budget is None else budget.counting
    if counting == "work":
        return totals.input_tokens - totals.cache_read_tokens + totals.output_tokens
    return {"input": totals.input_tokens, "output": totals.output_tokens}.get(counting, usage.total_tokens)


def _amount(value: float, money: bool) -> Decimal | int:
    return round(Decimal(value), 6) if money else round(value)


# ------------------------------------------------------------------------------------------------- the whole meter


def asking(meter: Meter) -> UsageBy:
    """A meter's own answers: of its ledger, once what is on its way there has come in, else of this process."""
    store = meter.store
    if store is None:
        return lambda dimensions, since: meter.accounts.usage_by(dimensions)
    meter.flush(5.0)
    return lambda dimensions, since: store.usage_by(*dimensions, since=since)


def project(
    usage_by: UsageBy, now: datetime, per: str, measure: str, confidence: float, scope: Mapping[str, str]
) -> Forecast:
    """What will have been used in the calendar window (UTC) that `now` is in, by everybody or by a scope."""
    if measure not in MEASURES:
        raise ValueError(f"measure is one of {', '.join(MEASURES)}, not {measure!r}")
    calendar = window(per)
    if not isinstance(calendar, Calendar):
        raise ValueError(f"a forecast is for the hour, day, week, month or year, not {per!r}")
    start, until = (moment(at) for at in calendar.interval(int(now.timestamp() * 1000)))
    groups = usage_by((*scope, "hour"), min(start, now - LOOK_BACK))
    wanted = tuple(scope.values())
    hours, unpriced = _sum(groups, lambda usage: _measure(usage, measure), lambda values: values == wanted)
    used = sum(value for at, value in hours.items() if start <= at < until)
    told = forecast(hours, used=used, start=start, until=until, now=now, confidence=confidence)
    return msgspec.structs.replace(told, unpriced=unpriced)


def exceeding(found: Iterable[BudgetForecast]) -> Iterator[BudgetForecast]:
    """Those of which more is expected than there is."""
    return (one for one in found if one.exceeds)
