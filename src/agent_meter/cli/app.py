"""The root of the command: each subcommand is a module beside this one, and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import count, demo, prices, rules, whatif
from .fence import Commands, say

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: it fits any terminal, and rich is not imported for it
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from .._version import __version__

        say(f"agent-meter {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What model calls cost, looked up and worked out: prices, what-if sums, token counts.

    Exit codes: 0 done, 1 nothing found or refused, 2 usage error.
    """


app.add_typer(prices.app, name="prices")
app.add_typer(rules.app, name="rules")
app.command("whatif")(whatif.whatif)
app.command("count")(count.count)
app.command("demo")(demo.demo)
