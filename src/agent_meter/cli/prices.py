"""`agent-meter prices`: look a price up, list prices, compare lists, take a newer one over, check a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..records import Model
from .fence import At, Json, Provider, existing, fail, moment, print_json, say

if TYPE_CHECKING:
    from ..pricing import PriceBook, catalog
    from ..pricing.pricelist import PriceList

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look prices up, compare lists, check a file.")

_LIST_FILE = "agent_meter_prices.json"
_LIST_VARIABLE = "AGENT_METER_PRICE_LIST"


def price_book() -> PriceBook:
    """The prices that a `Meter()` started here would use. Unknown models are reported by the command, not logged."""
    from ..pricing import PriceBook

    return PriceBook(on_unpriced="block")


class Unknown(NamedTuple):
    """A model without a price, and the names that may have been meant; as text, a sentence."""

    model: str
    reason: str
    nearest: tuple[str, ...]

    def __str__(self) -> str:
        near = " or ".join(filter(None, [", ".join(self.nearest[:-1]), *self.nearest[-1:]]))
        stop = "" if self.reason.endswith("…") else "."
        return f"No price for {self.model!r}: {self.reason}{stop}{f' Did you mean {near}?' if near else ''}"


def unknown(book: PriceBook, model: str, provider: str) -> Unknown:
    from ..pricing.nearest import nearest

    return Unknown(model, book.find(Model(provider, model)).reason, nearest(book, model, provider=provider))


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A model as your code calls it: gpt-4o, openrouter/openai/gpt-4o …")],
    provider: Provider = "",
    at: At = "",
    json: Json = False,
) -> None:
    """One model's rate card: every rate, its tiers, variants and dates, and where it comes from.

    Your own rates count: AGENT_METER_PRICES, agent_meter.toml, AGENT_METER_COST_RATES.
    """
    when = moment(at)
    from ..pricing import catalog

    book = price_book()
    found = catalog.show(book, model, provider=provider, at=when)
    miss = None if found.known else unknown(book, model, provider)
    if json:
        from ..views import documents

        print_json(documents.shown(found, asked=model, nearest=miss.nearest if miss else ()))
        if found.now is None:
            fail()
    elif miss is not None:
        fail(str(miss))
    else:
        from ..views import prices, terminal

        terminal.write(prices.shown(found, model))
        if found.now is None:
            fail(f"{found.model} has no rates on {found.at:%Y-%m-%d}.")


@app.command("list")
def list_(
    provider: Provider = "",
    match: Annotated[str, typer.Option(metavar="TEXT", help="Only models whose name contains TEXT.")] = "",
    at: At = "",
    json: Json = False,
) -> None:
    """The models of the price list in force, corrections included, in US$ per 1M tokens."""
    when = moment(at)
    from ..pricing import catalog

    book = price_book()
    wanted = match.strip().lower()
    rows = [
        row
        for row in catalog.listing(book.price_list, provider=provider or None, at=when)
        if wanted in f"{row.provider}/{row.model}".lower() or wanted in row.name.lower()
    ]
    if json:
        from ..views import documents

        print_json(documents.listing(rows, book.price_list.source))
    elif rows:
        from ..views import prices, terminal

        out = terminal.console()
        terminal.write(prices.listing(rows, book.price_list.source, out.width), out)
    if not rows:
        fail(_no_match(book, match, provider), quiet=json)


def _no_match(book: PriceBook, match: str, provider: str) -> str:
    from ..pricing.nearest import nearest

    near = ", ".join(nearest(book, match, provider=provider))
    whose = f"{provider} model" if provider else "model"
    return f"No {whose} has {match!r} in its name.{f' Near it: {near}.' if near else ''}"


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A price list: a JSON file, a version, or `installed`.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The list to compare it with.")],
    at: At = "",
    json: Json = False,
) -> None:
    """What changed from price list A to B: models gained and lost, rates that moved."""
    when = moment(at)
    from ..pricing import catalog

    old, new = _open(before, "A"), _open(after, "B")
    found = catalog.diff(old, new, at=when)
    if json:
        from ..views import documents

        print_json({"before": old.source, "after": new.source, **documents.changes(found)})
    else:
        from ..views import prices, terminal

        terminal.write(prices.changes(found, old.source, new.source))


def _open(name: str, hint: str) -> PriceList:
    from ..pricing import catalog

    installed = catalog.open_list("installed")
    if name in ("installed", installed.source, installed.source.rpartition(" ")[2]):
        return installed
    otherwise = f"; at hand without one is `installed`, which is {installed.source}"
    return catalog.open_list(existing(name, hint, otherwise))


@app.command("update")
def update(
    file: Annotated[str, typer.Option(metavar="FILE", help="A newer price list, as JSON.")],
    to: Annotated[
        str,
        typer.Option(metavar="PATH", help=f"Where to put it. Default: AGENT_METER_PRICE_LIST, else ./{_LIST_FILE}"),
    ] = "",
    accept: Annotated[bool, typer.Option("--accept", help="Take it over whatever it changes.")] = False,
    json: Json = False,
) -> None:
    """Put a newer price list in place, with its SHA-256 beside it. Nothing is fetched: the file is yours.

    Refused, unless --accept: a list that lost more than 20 % of the models, or moved a rate more than 5 times.
    """
    from ..pricing import catalog

    newer = existing(file, "--file")
    active = os.environ.get(_LIST_VARIABLE, "")
    path = Path(to or active or _LIST_FILE)
    before = str(path) if path.exists() else "installed"  # what `update` compares with
    try:
        done = catalog.update(newer, path, accept=accept)
    except catalog.Refused as no:
        if json:
            from ..views import documents

            print_json(documents.refused(no.problems, no.changes))
            fail()
        from ..views import prices

        fail(*prices.refused(file, before, no.problems, no.changes))
    if json:
        from ..views import documents

        print_json(documents.updated(done))
    else:
        from ..views import prices, terminal

        in_use = bool(active) and Path(active).resolve() == path.resolve()
        terminal.write(prices.updated(done, replaced=before != "installed", active=in_use))


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A price file (TOML) or a price list (JSON).")],
    json: Json = False,
) -> None:
    """Check a price file: what is wrong is shown with its line and the nearest right key."""
    from ..errors import PriceError
    from ..pricing import catalog

    path = existing(file, "FILE")
    try:
        found = catalog.check(path, price_list=os.environ.get(_LIST_VARIABLE) or None)
    except PriceError as error:
        if not json:
            raise
        found = catalog.Checked(path, (), problems=(str(error),))
    if json:
        from ..views import documents

        print_json(documents.checked(found))
    elif not found.problems:
        say(f"{file} is in order: {_counted(found)}.")
    if found.problems:
        fail(*(f"Error: {file}, {problem}" for problem in found.problems), quiet=json)


def _counted(found: catalog.Checked) -> str:
    counts = ((found.models, "model"), (found.patterns, "pattern"), (found.fees, "fee"))
    return ", ".join(f"{len(n):,} {what}{'' if len(n) == 1 else 's'}" for n, what in counts if n) or "nothing in it"
