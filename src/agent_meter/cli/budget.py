"""`agent-meter budget`: set, list, look at, take away and reset the budgets of a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fence import Commands, Json, existing, fail, print_json, say
from .ledger import DEFAULT, VARIABLE

if TYPE_CHECKING:
    from ..budgets import Budget, BudgetStatus
    from ..budgets.kept import KeptBudgets

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Budgets: set, list, status, rm, reset; plan, forecast, report.",
    rich_markup_mode=None,
)
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="STORE",
        help=f"Where they are kept: a file, postgresql://… or redis://…. Default: {VARIABLE}, else {DEFAULT}.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the budget.")]
OptionalName = Annotated[str, typer.Argument(metavar="[NAME]", help="The name of the budget. Default: all.")]
Scope = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Whom it counts; '*' for each. Repeatable.")]


@contextmanager
def budgets(name: str, *, new: bool = False) -> Iterator[KeptBudgets]:
    """The budgets of the store that is meant; a usage error where there is none to read."""
    from ..budgets.kept import KeptBudgets
    from ..errors import BudgetError
    from ..store import open_store

    name = name or os.environ.get(VARIABLE, "") or DEFAULT
    if "://" not in name and not new and not Path(name).is_file():
        raise typer.BadParameter(f"no store {name!r}; name one here or in {VARIABLE}", param_hint="'--store'")
    try:
        if new and "://" not in name and not Path(name).exists():
            open_store(name).close()  # a whole store, so that `report`, `stop` and the rest can read it too
        found = KeptBudgets(name)
    except BudgetError as error:
        raise typer.BadParameter(str(error), param_hint="'--store'") from None
    with found:
        yield found


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The name of the budget.")] = "",
    usd: Annotated[str, typer.Option(metavar="AMOUNT", help="The limit in US dollars.")] = "",
    tokens: Annotated[int | None, typer.Option(metavar="NUMBER", help="The limit in tokens.")] = None,
    requests: Annotated[int | None, typer.Option(metavar="NUMBER", help="The limit in model calls.")] = None,
    per: Annotated[
        str, typer.Option(metavar="WINDOW", help="run, total, minute … year, 'rolling 1h'. Default: day.")
    ] = "",
    mode: Annotated[str, typer.Option(metavar="MODE", help="hard, soft, shadow or wait. Default: hard.")] = "",
    agent: Scope = None,
    task: Scope = None,
    user: Scope = None,
    session: Scope = None,
    model: Scope = None,
    provider: Scope = None,
    tool: Scope = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag of its calls. Repeatable.")] = None,
    tz: Annotated[str, typer.Option(metavar="ZONE", help="The zone of its days, such as Europe/Berlin.")] = "",
    alert_at: Annotated[str, typer.Option(metavar="LIST", help="Fractions to tell of. Default: 0.5,0.8,1.0.")] = "",
    grace: Annotated[float | None, typer.Option(metavar="FRACTION", help="Let through above the limit.")] = None,
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="Set all budgets of a YAML file instead.")] = "",
    store: StoreOption = "",
) -> None:
    """Set a budget, or change the one of that name. Programs that run take it over within seconds."""
    from ..errors import BudgetError

    options: dict[str, Any] = {
        "usd": usd, "tokens": tokens, "requests": requests, "per": per, "mode": mode, "tz": tz, "grace": grace,
        "agent": agent, "task": task, "user": user, "session": session, "model": model, "provider": provider,
        "tool": tool, "tags": dict(map(_pair, tag)) if tag else None,
        "alert_at": [_number(part) for part in alert_at.split(",")] if alert_at else None,
    }  # fmt: skip
    options = {key: value for key, value in options.items() if value not in (None, "", [])}
    if bool(name) == bool(file) or (file and options):
        raise typer.BadParameter("name a budget and its limits, or a --file", param_hint="'NAME'")
    with budgets(store, new=True) as kept:
        if file:
            from ..budgets.files import load

            for budget in load(existing(file, "--file")):
                say(_line(kept.set(budget)))
            return
        try:
            say(_line(kept.set(name, **options)))
        except BudgetError as error:
            raise typer.BadParameter(str(error)) from None


@app.command("list")
def list_(store: StoreOption = "", json: Json = False) -> None:
    """The budgets of a store: those set by hand, and those of the programs that use it."""
    with budgets(store) as kept:
        if json:
            print_json([{**budget.to_dict(), "set": _source(kept, budget)} for budget in kept])
            return
        for budget in kept:
            say(f"{_line(budget)}  [{_source(kept, budget)}]")
        for problem in kept.problems:
            say(f"unreadable: {problem}")
        if not len(kept):
            fail("no budgets here; agent-meter budget set NAME --usd 5 sets one")


@app.command("status")
def status(name: OptionalName = "", store: StoreOption = "", json: Json = False) -> None:
    """How much of each budget is used, held and left, and when it resets."""
    with budgets(store) as kept:
        found = list(kept.statuses(name) if name else kept.status())
    if json:
        import msgspec

        print_json([{key: _plain(value) for key, value in msgspec.structs.asdict(one).items()} for one in found])
        return
    if not found:
        fail("no budgets here; agent-meter budget set NAME --usd 5 sets one")
    from ..views.terminal import table, unfolded, write

    shown = table("budget", "used", "of", "%", "held", "left", "resets", right=("used", "of", "%", "held", "left"))
    for one in found:
        resets = "" if one.resets_at is None else f"{one.resets_at:%Y-%m-%d %H:%M} UTC"
        label = f"{one.name} ({one.scope})" if one.scope else one.name
        unit = "" if one.unit == "usd" else f" {one.unit.replace('_', ' ')}"
        shown.add_row(label + unit, *map(_amount(one), _columns(one)), resets)
    unfolded(shown, "budget")
    write([shown])


@app.command("rm")
def rm(name: Name, store: StoreOption = "") -> None:
    """Take a budget away. One that a program sets comes back with the program, unless its code changes."""
    with budgets(store) as kept:
        by_hand = kept.by_hand(name)
        say(f"removed {_line(kept.remove(name))}")
        if not by_hand:
            say("a program sets it: it is there again when the program starts")
        elif name in kept:
            say(f"a program's own counts again: {_line(kept[name])}")


@app.command("reset")
def reset(name: OptionalName = "", store: StoreOption = "") -> None:
    """Forget what was used of a budget, or of all; what calls in flight hold stays held."""
    with budgets(store) as kept:
        kept.reset(name or None)
        for budget in [kept[name]] if name else kept:
            say(f"reset {budget.name}")


def _line(budget: Budget) -> str:
    """`research: $5.00 per day, agent=researcher`."""
    from ..budgets.budget import written

    limits = " and ".join(written(limit.amount, limit.unit) for limit in budget.limits)
    window = budget.window.name
    says = [f"{limits} {'in ' if window == 'total' or window.startswith('rolling') else 'per '}{window}"]
    says += [f"{key}={','.join(value)}" for key, value in (*budget.scope.items(), *budget.tags.items())]
    if budget.mode != "hard":
        says.append(budget.mode)
    return f"{budget.name}: {', '.join(says)}"


def _source(kept: KeptBudgets, budget: Budget) -> str:
    return "by hand" if kept.by_hand(budget.name) else "by a program"


def _columns(one: BudgetStatus) -> Iterable[Decimal | int | float]:
    return one.used, one.limit, one.percent, one.reserved, one.remaining


def _amount(one: BudgetStatus) -> Any:
    def said(value: Decimal | float) -> str:
        if isinstance(value, float):
            return f"{value:.0f}"
        return f"${value:,.4f}".removesuffix("00") if one.unit == "usd" else f"{value:,}"

    return said


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is no tag; write team=search", param_hint="'--tag'")
    return name, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number; write 0.5,0.8,1.0", param_hint="'--alert-at'") from None
