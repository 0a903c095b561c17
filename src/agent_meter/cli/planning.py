"""`agent-meter budget plan | forecast | report`: what to allow, where it ends up, how it went."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .budget import OptionalName, StoreOption, budgets
from .fence import Json, fail, print_json, say
from .ledger import VARIABLE, ledger, midnight

if TYPE_CHECKING:
    from ..budgets.forecasting import BudgetForecast, UsageBy
    from ..budgets.kept import KeptBudgets
    from ..store import Store

Confidence = Annotated[
    float, typer.Option(metavar="FRACTION", min=0.5, max=0.999, help="How sure low and high are.")
]  # fmt: skip
_SIZES = {"": 1, "k": 1_000, "m": 1_000_000}


def plan(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...",
            help="customer-support, research, code-generation, data-analysis, "
            "internal-tooling; with --tokens a name of yours. Default: all.",
        ),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="At whose price. Repeatable.")] = None,
    output_share: Annotated[float, typer.Option(metavar="FRACTION", help="How much of the tokens is output.")] = 0.25,
    call_tokens: Annotated[int, typer.Option(metavar="NUMBER", help="Input and output of one call.")] = 4_000,
    tokens: Annotated[str, typer.Option(metavar="NUMBER", help="Tokens a day, such as 750K, instead.")] = "",
    usd: Annotated[str, typer.Option(metavar="AMOUNT", help="What a month may cost instead.")] = "",
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the limits as a budgets.yaml.")] = False,
    json: Json = False,
) -> None:
    """Suggested limits for kinds of agents, what they cost with a model, and whether the cap holds a month.

    Exit code 1 when a cap is reached before the month is over.
    """
    from ..budgets import planning
    from ..errors import BudgetError

    models = model or ["gpt-4o"]
    try:
        presets = _presets(kinds or [], tokens, usd)
        if yaml:
            say(planning.snippet(presets).rstrip("\n"))
            return
        priced = [planning.plan(presets, name, output_share=output_share, call_tokens=call_tokens) for name in models]
    except BudgetError as error:
        raise typer.BadParameter(str(error)) from None
    found = [one for row in zip(*priced, strict=True) for one in row]
    from ..views import planning as view

    if json:
        print_json([view.plan_document(one) for one in found])
    else:
        from ..views.terminal import write

        write(view.plans(found, output_share))
    raise typer.Exit(0 if all(one.fits for one in found) else 1)


def forecast(
    name: OptionalName = "", confidence: Confidence = 0.9, store: StoreOption = "", json: Json = False
) -> None:
    """Where budgets end up when their windows end, and when they run out. * marks those that will not last.

    Exit code 1 when a budget is expected to be exceeded, or there is none.
    """
    from ..views import planning as view

    with budgets(store) as kept, _usage(store) as (usage_by, _):
        found = _forecasts(kept, usage_by, name, confidence)
    if json:
        print_json([view.forecast_document(one) for one in found])
    elif not found:
        fail("No budgets to forecast here; agent-meter budget set NAME --usd 5 sets one.")
    else:
        from ..views.terminal import write

        write(view.forecasts(found))
    raise typer.Exit(1 if not found or any(one.exceeds for one in found) else 0)


def report(
    daily: Annotated[bool, typer.Option("--daily", help="Today. This is the default.")] = False,
    weekly: Annotated[bool, typer.Option("--weekly", help="This week, from Monday.")] = False,
    threshold: Annotated[float, typer.Option(metavar="FRACTION", help="Name budgets of which so much is used.")] = 0.8,
    confidence: Confidence = 0.9,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Budget and actual: what agents used today or this week, the period before, where budgets end up, alerts.

    For cron: exit code 1 when a budget is used up, or expected to be before its window ends.
    """
    if daily and weekly:
        raise typer.BadParameter("--daily or --weekly", param_hint="'--weekly'")
    from ..budgets.dashboard import alerts_of
    from ..views import planning as view

    with budgets(store) as kept, _usage(store) as (usage_by, opened):
        if opened is None:
            raise typer.BadParameter("a report needs the ledger: a file or postgresql://…", param_hint="'--store'")
        made = _report(
            opened, usage_by, _forecasts(kept, usage_by, "", confidence), "week" if weekly else "day", confidence
        )
        made.alerts = alerts_of(kept.status(), threshold)
    if json:
        print_json(view.report_document(made))
    else:
        from ..views.terminal import write

        write(view.report(made))
    raise typer.Exit(1 if any(one.exceeds for one in made.forecasts) else 0)


def _report(store: Store, usage_by: UsageBy, found: list[BudgetForecast], period: str, confidence: float) -> Any:
    from ..budgets.forecasting import project
    from ..views.planning import BudgetReport

    now = store.now()
    since = midnight(now)
    if period == "week":
        since -= timedelta(days=since.weekday())
    length = timedelta(days=7 if period == "week" else 1)
    before: Mapping[str, Any] = store.usage_by("agent", since=since - length, until=now - length)
    return BudgetReport(
        period,
        since,
        now,
        store.usage(since),
        store.usage_by("agent", since=since),
        {**before, "\0total": store.usage(since - length, now - length)},
        found,
        (),
        {per: project(usage_by, now, per, "usd", confidence, {}) for per in ("week", "month")},
    )


def _forecasts(kept: KeptBudgets, usage_by: UsageBy, name: str, confidence: float) -> list[BudgetForecast]:
    from ..budgets.forecasting import forecasts

    return forecasts(kept, usage_by, name or None, confidence)


@contextmanager
def _usage(name: str) -> Iterator[tuple[UsageBy, Store | None]]:
    """The hours of the ledger that is meant; none where only budgets are kept (Redis)."""
    name = name or os.environ.get(VARIABLE, "")
    if name.startswith(("redis://", "rediss://", "unix://")):
        yield lambda dimensions, since: {}, None
        return
    with ledger(name) as store:
        yield lambda dimensions, since: store.usage_by(*dimensions, since=since), store


def _presets(kinds: list[str], tokens: str, usd: str) -> list[Any]:
    from ..budgets.planning import PRESETS, Preset, preset

    if not tokens and not usd:
        return [preset(kind) for kind in kinds] if kinds else list(PRESETS.values())
    if len(kinds) != 1:
        raise typer.BadParameter("--tokens and --usd are for one kind of agent: name it", param_hint="'KIND'")
    if tokens and usd:
        return [Preset(kinds[0], kinds[0], _size(tokens), _dollars(usd))]
    known = preset(kinds[0])
    return [
        Preset(known.name, known.title, _size(tokens) if tokens else known.tokens, _dollars(usd) if usd else known.usd)
    ]


def _size(text: str) -> int:
    found = re.fullmatch(r"([\d_,]+(?:\.\d+)?)\s*([km]?)", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no number of tokens; write 750K or 2M", param_hint="'--tokens'")
    return int(Decimal(re.sub("[_,]", "", found[1])) * _SIZES[found[2]])


def _dollars(text: str) -> Decimal:
    try:
        return Decimal(text.lstrip("$").replace(",", ""))
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is no amount; write 200", param_hint="'--usd'") from None
