"""The past under other prices: `whatif --model a=b`, `reprice`, and the bill beside the ledger, `reconcile`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .fence import Json, existing, fail, print_json
from .ledger import Since, Span, StoreOption, Until, ledger, progress, span
from .prices import price_book

if TYPE_CHECKING:
    from ..pricing import PriceBook
    from ..records import UsageRecord
    from ..store import Store

_CALLS = ("llm", "embedding", "rerank")
PriceList = Annotated[str, typer.Option(metavar="FILE", help="Prices of this list, in the JSON of genai-prices.")]


def whatif_ledger(
    swaps: dict[str, str], store: str, since: str, until: str, price_list: str, provider: str, json: bool
) -> None:
    """The ledger's own calls under other models: what they cost, what they would have cost."""
    from ..pricing.past import swapped
    from ..views import past, terminal

    range = span(since, until)
    with ledger(store) as opened, progress("Pricing records") as told:
        found = swapped(_counted(_calls(opened, range), told), _book(price_list), swaps, provider=provider)
    if json:
        print_json(past.swaps_document(found, str(range)))
    else:
        terminal.write(past.swaps(found, str(range)))
    if not found:
        fail(f"No calls of {' or '.join(swaps)} in this range.", quiet=json)
    if any(one.unpriced for one in found):
        fail(quiet=True)


def reprice(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change; without it, corrections are written.")
    ] = False,
    since: Since = "",
    until: Until = "",
    price_list: PriceList = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """The ledger by the prices of this machine, each call as of its own day: what differs, by model.

    Without --dry-run every difference is written as a correcting record (the old one stays readable), for the whole
    store. Exit code 0 when nothing differs, 1 when something does (and is only shown).
    """
    from ..pricing.past import price_again, repriced
    from ..views import past, terminal

    book = _book(price_list)
    if not dry_run and (since or until):
        raise typer.BadParameter(
            "corrections are for the whole store; a range goes with --dry-run", param_hint="'--since'"
        )
    range = span(since, until)
    with ledger(store, writing=not dry_run) as opened, progress("Pricing records") as told:
        found = repriced(_counted(_calls(opened, range), told), book)
        if not dry_run and any(one.changed for one in found):
            opened.verify(repair=True, price=lambda record: price_again(record, book), progress=told)
            opened.flush()
    if json:
        print_json(past.repriced_document(found, str(range), written=not dry_run))
    else:
        terminal.write(past.repriced(found, str(range), written=not dry_run))
    if dry_run and any(one.changed for one in found):
        fail(quiet=True)


def reconcile(
    official: Annotated[
        list[str] | None,
        typer.Option(metavar="PROVIDER=USD", help="What the provider says is owed: OpenAI=41.20. Repeatable."),
    ] = None,
    usage: Annotated[
        str, typer.Option(metavar="FILE", help="A provider's usage or cost export (CSV): compared by model and day.")
    ] = "",
    since: Since = "",
    until: Until = "",
    tolerance: Annotated[float, typer.Option(metavar="PERCENT", min=0, help="A difference that is none.")] = 1.0,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Our sums beside the provider's, and what in the ledger may explain the difference.

    Exit code 0 when each difference is within the tolerance, 1 otherwise.
    """
    from ..views import past, terminal
    from ..views.reconciling import by_provider, by_usage, read_usage

    if bool(official) == bool(usage):
        raise typer.BadParameter("give --official PROVIDER=USD, or --usage FILE", param_hint="'--official'")
    range = span(since, until)
    with ledger(store) as opened:
        if usage:
            path = existing(usage, "--usage")
            try:
                theirs = read_usage(path)
            except ValueError as error:
                fail(f"Error: {usage}: {error}")
            found = by_usage(opened, theirs, range.since, range.until, tolerance)
        else:
            amounts = dict(_amount(text) for text in official or ())
            found = by_provider(opened, amounts, range.since, range.until, tolerance, price_book())
    if json:
        print_json(past.reconciled_document(found, str(range)))
    else:
        terminal.write(past.reconciled(found, str(range)))
    if not all(one.agrees for one in found):
        fail(quiet=True)


def _book(price_list: str) -> PriceBook:
    from ..pricing import PriceBook

    if not price_list:
        return price_book()
    return PriceBook(on_unpriced="block", price_list=Path(existing(price_list, "--price-list")))


def _calls(store: Store, range: Span) -> Iterator[UsageRecord]:
    from ..records import UsageRecord

    for record in store.records(range.since, range.until, kinds=_CALLS):
        assert isinstance(record, UsageRecord)
        yield record


def _counted(records: Iterable[UsageRecord], told: Callable[..., None]) -> Iterator[UsageRecord]:
    for number, record in enumerate(records, 1):
        if number % 1000 == 0:
            told(number)
        yield record


def _amount(text: str) -> tuple[str, Decimal]:
    name, _, amount = (part.strip() for part in text.rpartition("="))
    try:
        usd = Decimal(amount.removeprefix("$").replace(",", ""))
    except InvalidOperation:
        usd = Decimal(-1)
    if not name or not usd.is_finite() or usd < 0:
        raise typer.BadParameter(f"{text!r} is not written like OpenAI=41.20", param_hint="'--official'")
    return name, usd
