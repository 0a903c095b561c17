"""`agent-meter report` and its short forms: what was spent, by whatever one asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fence import Json, print_json, say
from .ledger import Csv, Since, Span, StoreOption, Until, ledger, midnight, progress, span

if TYPE_CHECKING:
    from ..store import Store
    from ..views.report import Report

By = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIMENSION",
        help="agent, model, provider, user, session, task, step, tool, hour, day, week, month or a tag's name; "
        "repeatable, or several with commas.",
    ),
]
Sort = Annotated[str, typer.Option(metavar="COLUMN", help="cost, tokens, calls or name.")]
Limit = Annotated[int, typer.Option(metavar="N", min=0, help="At most N rows, the rest in one; 0 is all.")]
_SORTS = ("", "cost", "tokens", "calls", "name")


def report(
    by: By = None,
    since: Since = "",
    until: Until = "",
    sort: Sort = "",
    limit: Limit = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="How the cost changed against the range of the same length before.")
    ] = False,
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """What was used and what it cost, one row for each agent, model, user, day …, with totals.

    ≥ marks a sum with unpriced calls in it: they are not counted as zero. Times are UTC.
    """
    dimensions = tuple(name.strip() for each in by or ["agent"] for name in each.split(",") if name.strip())
    range = span(since, until)
    if compare and range.since is None:
        raise typer.BadParameter("needs --since, so that there is a range before", param_hint="'--compare'")
    _show(dimensions, range, store, sort=sort, limit=limit, compare=compare, json=json, csv=csv)


def daily(
    since: Since = "30d",
    until: Until = "",
    by: By = None,
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """One row a day, the last 30 days unless you say otherwise."""
    _periods("day", since, until, by, store, json, csv)


def weekly(
    since: Since = "12w",
    until: Until = "",
    by: By = None,
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """One row a week (ISO, from Monday), the last 12 weeks unless you say otherwise."""
    _periods("week", since, until, by, store, json, csv)


def monthly(
    since: Since = "all",
    until: Until = "",
    by: By = None,
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """One row a month, of all months unless you say otherwise."""
    _periods("month", since, until, by, store, json, csv)


def sessions(
    since: Since = "7d",
    until: Until = "",
    limit: Limit = 20,
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """The sessions that cost most, of the last 7 days unless you say otherwise."""
    _show(("session",), span(since, until), store, limit=limit, json=json, csv=csv)


def top_spenders(
    by: Annotated[str, typer.Argument(metavar="DIMENSION", help="As --by of report takes it.")] = "user",
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="So many.")] = 10,
    since: Since = "",
    until: Until = "",
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Who or what cost most: users, unless you name another dimension."""
    _show((by,), span(since, until), store, limit=n, sort="cost", json=json, csv=csv)


def today(store: str = "") -> None:
    """What `agent-meter` alone shows: today by agent, with the trend of the week."""
    _show(("agent",), span("today"), store, compare=True)


def _periods(period: str, since: str, until: str, by: list[str] | None, store: str, json: bool, csv: bool) -> None:
    more = tuple(name.strip() for each in by or () for name in each.split(",") if name.strip())
    _show((period, *more), span(since, until), store, sort="name", json=json, csv=csv)


def _show(
    dimensions: tuple[str, ...],
    range: Span,
    store: str,
    *,
    sort: str = "",
    limit: int = 0,
    compare: bool = False,
    json: bool = False,
    csv: bool = False,
) -> None:
    if sort not in _SORTS:
        raise typer.BadParameter(f"{sort!r} is none of cost, tokens, calls, name", param_hint="'--sort'")
    from ..views import report as view

    with ledger(store) as opened:
        found = read(opened, dimensions, range, sort, limit)
        if compare:
            found = _compared(opened, found, range)
        if json:
            print_json(view.document(found))
        elif csv:
            say(view.csv(found).rstrip("\r\n"))
        else:
            from ..views import terminal

            out = terminal.console()
            trend = _trend(opened, dimensions) if view.has_room(found, out.width) else {}
            terminal.write(view.screen(found, width=out.width, trend=trend), out)


def read(store: Store, dimensions: tuple[str, ...], range: Span, sort: str, limit: int) -> Report:
    from ..views.report import Report

    try:
        with progress("Counting records") as told:
            groups = store.usage_by(*dimensions, since=range.since, until=range.until, progress=told)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--by'") from None
    rows = {key if isinstance(key, tuple) else (key,): usage for key, usage in groups.items()}
    total = store.usage(range.since, range.until)
    unpriced: dict[str, Any] = {}
    if total.unpriced_requests:
        models = store.usage_by("model", since=range.since, until=range.until)
        unpriced = {name: usage.unpriced_requests for name, usage in models.items() if usage.unpriced_requests}
    return Report.of(dimensions, str(range), rows, total, unpriced=unpriced, sort=sort, limit=limit)


def _trend(store: Store, dimensions: tuple[str, ...]) -> dict[tuple[str, ...], list[int]]:
    """List price by key for each of the last seven days, today last."""
    start = midnight(datetime.now(UTC)) - timedelta(days=6)
    days = [f"{start + timedelta(days=number):%Y-%m-%d}" for number in range(7)]
    found: dict[tuple[str, ...], list[int]] = {}
    for key, usage in store.usage_by(*dimensions, "day", since=start).items():
        *names, day = key
        if day in days:
            found.setdefault(tuple(names), [0] * 7)[days.index(day)] = usage.totals.list_pico
    return found


def _compared(store: Store, found: Report, range: Span) -> Report:
    """The report with the usage of the range before, by key and altogether."""
    from ..views.report import Before

    previous = range.previous()
    assert previous is not None
    groups = store.usage_by(*found.dimensions, since=previous.since, until=previous.until)
    rows = {key if isinstance(key, tuple) else (key,): usage for key, usage in groups.items()}
    return found._replace(before=Before(str(previous), rows, store.usage(previous.since, previous.until)))
