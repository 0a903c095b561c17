"""`agent-meter doctor` and `statusline`: is the ledger well, and what does the day cost so far?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from .fence import Json, fail, print_json, say
from .ledger import Since, StoreOption, Until, ledger, midnight, span, there_is_one
from .prices import price_book


def doctor(
    since: Since = "30d",
    until: Until = "",
    coverage: Annotated[
        float, typer.Option(metavar="PERCENT", help="How much of the calls must have the provider's own usage.")
    ] = 95.0,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """What is wrong with the figures: unpriced models, calls without usage, old prices, records that were lost.

    Exit code 0 when nothing is, 1 when something needs a look.
    """
    from ..views import doctoring, terminal

    range = span(since, until)
    with ledger(store) as opened:
        found = doctoring.examine(opened, range.since, range.until, price_book(), coverage)
    if json:
        print_json({"range": str(range), "findings": [one._asdict() for one in found]})
    else:
        terminal.write(doctoring.screen(found, str(range)))
    if any(not one.ok for one in found):
        fail(quiet=True)


def statusline(
    store: StoreOption = "",
    agent: Annotated[str, typer.Option(metavar="NAME", help="Only this agent's.")] = "",
    json: Json = False,
) -> None:
    """One line for a prompt or a status bar: today, the last seven days, the calls. Without a ledger, nothing."""
    from ..usage import AgentUsage
    from ..views.report import money, places_for, short, usage_document

    if not store and not there_is_one():
        return
    today = midnight(datetime.now(UTC))
    with ledger(store) as opened:
        spans = []
        for start in (today, today - timedelta(days=6)):
            if agent:
                spans.append(opened.usage_by("agent", since=start).get(agent) or AgentUsage())
            else:
                spans.append(opened.usage(start))
    day, week = spans
    if json:
        print_json({"today": usage_document(day), "week": usage_document(week)})
        return

    def said(usage: AgentUsage) -> str:
        pico = usage.totals.list_pico
        return f"{'≥' if usage.is_lower_bound else ''}{money(pico, places_for([pico]))}"

    say(f"{said(day)} today · {said(week)} 7d · {day.requests:,} calls · {short(day.total_tokens)} tokens")
