"""`agent-meter top`: what is being spent, while it is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from .fence import Json, print_json
from .ledger import DEFAULT, VARIABLE, Since, StoreOption, ledger, span
from .report import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from ..budgets import BudgetStatus
    from ..store import Store
    from ..views.top import Moment

_CALLS = ("llm", "embedding", "rerank", "tool")


def top(
    by: Annotated[list[str] | None, typer.Option(metavar="DIMENSION", help="As --by of report takes it.")] = None,
    since: Since = "today",
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="So many rows, and half as many calls.")] = 10,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Look again after so long.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, and done; so it is in a pipe.")] = False,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """A live view, until interrupted: who spends, how fast, what is left of the budgets, the last calls."""
    dimensions = tuple(name.strip() for each in by or ["agent"] for name in each.split(",") if name.strip())
    name = store or os.environ.get(VARIABLE, "") or DEFAULT
    from ..views import terminal
    from ..views import top as view

    out = terminal.console()
    with ledger(name) as opened:

        def look() -> Moment:
            return _look(opened, name, dimensions, since, n)

        if json:
            print_json(view.document(look()))
        elif once or not out.is_terminal:
            terminal.write(view.screen(look(), width=out.width), out)
        else:
            _live(look, interval, out)


def _live(look: Callable[[], Moment], interval: float, out: Console) -> None:
    from rich.console import Group
    from rich.live import Live

    from ..errors import StoreError
    from ..views import top as view

    def shown() -> Group:
        return Group(*view.screen(look(), width=out.width))

    try:
        with Live(shown(), console=out, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                try:
                    live.update(shown(), refresh=True)
                except StoreError as error:  # it may come back
                    live.update(f"{error}", refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _look(store: Store, name: str, dimensions: tuple[str, ...], since: str, n: int) -> Moment:
    from ..views.top import Moment

    now = datetime.now(UTC)
    range = span(since)  # anew each time: "today" goes on to the next day
    return Moment(
        at=now,
        report=read(store, dimensions, range, "", n),
        minute=store.usage(now - timedelta(minutes=1)),
        last=tuple(islice(store.records(range.since, kinds=_CALLS, newest_first=True), max(1, n // 2)))[::-1],
        budgets=_budgets(name),
    )


def _budgets(name: str) -> tuple[BudgetStatus, ...]:
    """How the budgets that are counted in this store stand; none where it counts none."""
    from ..budgets.kept import KeptBudgets
    from ..errors import BudgetError

    try:
        with KeptBudgets(name) as kept:
            return tuple(kept.status())
    except (BudgetError, OSError):
        return ()
