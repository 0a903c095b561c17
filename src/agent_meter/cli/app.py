"""The root of the command: each subcommand is a module beside this one, and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    budget,
    controls,
    count,
    demo,
    doctor,
    export,
    history,
    ledger,
    planning,
    prices,
    report,
    repricing,
    rules,
    top,
    upkeep,
    whatif,
)
from .fence import Commands, say

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,  # plain help: it fits any terminal, and rich is not imported for it
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from .._version import __version__

        say(f"agent-meter {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What your agents used and what it cost: reports over a ledger, prices, exports.

    Without a command: today, by agent. Exit codes: 0 done, 1 nothing found or refused, 2 usage error, 3 done in part.
    """
    if context.invoked_subcommand is not None:
        return
    if not ledger.there_is_one():
        say(context.get_help())
        raise typer.Exit(2)
    report.today()


app.command("report")(report.report)
app.command("daily")(report.daily)
app.command("weekly")(report.weekly)
app.command("monthly")(report.monthly)
app.command("sessions")(report.sessions)
app.command("top")(top.top)
app.command("top-spenders")(report.top_spenders)
app.command("tools")(history.tools)
app.command("history")(history.history)
app.command("tail")(history.tail)
app.command("runs")(history.runs)
app.command("explain")(history.explain)
app.command("doctor")(doctor.doctor)
app.command("statusline")(doctor.statusline)
app.command("reprice")(repricing.reprice)
app.command("reconcile")(repricing.reconcile)
app.command("prune")(upkeep.prune)
app.command("verify")(upkeep.verify)
app.command("export")(export.export)
app.command("import")(export.import_)
budget.app.command("plan")(planning.plan)
budget.app.command("forecast")(planning.forecast)
budget.app.command("report")(planning.report)
app.add_typer(budget.app, name="budget")
app.add_typer(prices.app, name="prices")
app.add_typer(rules.app, name="rules")
app.command("pause")(controls.pause)
app.command("resume")(controls.resume)
app.command("stop")(controls.stop)
app.command("controls")(controls.listed)
app.command("whatif")(whatif.whatif)
app.command("count")(count.count)
app.command("demo")(demo.demo)
