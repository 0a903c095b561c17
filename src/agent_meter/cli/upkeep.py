"""`agent-meter prune` and `verify`: the size of a ledger, and whether its sums are right."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from .fence import Json, fail, print_json, say
from .ledger import StoreOption, ledger, midnight, progress, when
from .prices import price_book


def prune(
    before: Annotated[str, typer.Option(metavar="WHEN", help="Delete records that began before then: 90d, 2026-01.")],
    export: Annotated[
        str, typer.Option("--export", metavar="FILE", help="Write them to a file first: old.parquet, old.jsonl.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Delete old records. Sums by day stay for ever, so reports of whole days stay as they were.

    With --export the records are in that file before any is deleted.
    """
    at = when(before, "--before")
    if at is None:
        raise typer.BadParameter("say before when: 90d, 2026-01", param_hint="'--before'")
    limit = midnight(at)
    if limit > datetime.now(UTC):
        raise typer.BadParameter(f"{before!r} is in the future", param_hint="'--before'")
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here; add --yes", param_hint="'--yes'")
        typer.confirm(f"Delete every record before {limit:%Y-%m-%d} (UTC)?", abort=True)
    written = None
    with ledger(store, writing=True, existing=True) as opened:
        if export:
            from ..exporters import export as write

            with progress(f"Writing {export}") as told:
                try:
                    written = write(opened.records(until=limit), export, progress=told)
                except (ValueError, ImportError) as error:
                    raise typer.BadParameter(str(error), param_hint="'--export'") from None
        deleted = opened.prune(limit)
    if json:
        print_json(
            {
                "before": limit.isoformat(),
                "deleted": deleted,
                "exported": None if written is None else written.records,
                "file": None if written is None else written.path,
            }
        )
        return
    if written is not None:
        say(f"{written.path}: {written.records:,} records as {written.format}")
    say(f"{deleted:,} records before {limit:%Y-%m-%d} deleted; sums by day stay")


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Put wrong sums right.")] = False,
    prices: Annotated[bool, typer.Option("--prices", help="Compute every cost anew as well, by these prices.")] = False,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Count everything anew from the records, and compare with the sums that reports are made of.

    Exit code 0 when all is right or was repaired, 1 otherwise.
    """
    from ..pricing.past import price_again

    book = price_book()
    with ledger(store, writing=repair, existing=True) as opened, progress("Counting records") as told:
        found = opened.verify(
            repair=repair, price=(lambda record: price_again(record, book)) if prices else None, progress=told
        )
    if json:
        print_json(
            {
                "ok": found.ok,
                "records": found.records,
                "cells": found.cells,
                "dead": found.dead,
                "differences": [
                    {
                        "what": one.what,
                        "where": one.where,
                        "stored": str(one.stored),
                        "computed": str(one.computed),
                        "repaired": one.repaired,
                    }
                    for one in found.differences
                ],
            }
        )
    else:
        say(f"{found.records:,} records, {found.cells:,} sums")
        for one in found.differences[:50]:
            say(f"! {one}")
        if len(found.differences) > 50:
            say(f"! and {len(found.differences) - 50:,} more")
        if found.dead:
            say(f"! {found.dead:,} records could not be stored and wait in the dead-letter table")
        if not found.differences:
            say("✓ everything adds up")
    if not found.ok:
        fail(quiet=True)
