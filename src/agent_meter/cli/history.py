"""`agent-meter history`, `tail`, `tools`, `runs`, `explain`: single calls, tools and runs of a ledger."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fence import Json, fail, print_json, say
from .ledger import Csv, Since, StoreOption, Until, ledger, span
from .prices import price_book

if TYPE_CHECKING:
    from ..records import Record
    from ..store import Store

Agent = Annotated[str, typer.Option(metavar="NAME", help="Only this agent's.")]
User = Annotated[str, typer.Option(metavar="NAME", help="Only this user's.")]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="Only of this model.")]
_CALLS = ("llm", "embedding", "rerank")


def history(
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="So many, the newest.")] = 20,
    since: Since = "",
    until: Until = "",
    agent: Agent = "",
    user: User = "",
    model: ModelName = "",
    status: Annotated[str, typer.Option(metavar="STATUS", help="ok, error, denied, cancelled or abandoned.")] = "",
    run: Annotated[str, typer.Option(metavar="ID", help="Only of this run.")] = "",
    tools: Annotated[bool, typer.Option("--tools", help="Tool calls as well.")] = False,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """The last calls, newest last: when, whose, which model, tokens, cost, how it ended."""
    range = span(since, until)
    given = {"agent": agent, "user": user, "model": model, "status": status, "run_id": run}
    filters: dict[str, Any] = {name: value for name, value in given.items() if value}
    kinds = (*_CALLS, "tool") if tools else _CALLS
    with ledger(store) as opened:
        found = opened.records(range.since, range.until, kinds=kinds, newest_first=True, **filters)
        records = list(islice(found, n))[::-1]
    if json:
        _print_lines(records)
        return
    from ..views import calls, terminal

    out = terminal.console()
    terminal.write(calls.history(records, width=out.width), out)


def tail(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until interrupted.")] = False,
    n: Annotated[int, typer.Option("-n", metavar="N", min=0, help="Begin with so many of the last.")] = 10,
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """What was recorded last, a line a call; with -f also what comes, from every process."""
    from ..views import calls

    def show(records: list[Record]) -> None:
        for record in records:
            _print_lines([record]) if json else say(calls.one_line(record))

    with ledger(store) as opened:
        position = opened.end()
        last = islice(opened.records(kinds=(*_CALLS, "tool"), newest_first=True), n)
        show(list(last)[::-1])
        try:
            while follow:
                records, position = opened.changes(position)
                show([record for record in records if record.kind in (*_CALLS, "tool")])
                if not records:
                    time.sleep(0.3)
        except KeyboardInterrupt:
            raise typer.Exit from None


def tools(
    since: Since = "",
    until: Until = "",
    store: StoreOption = "",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """How the tools do: calls, success, duration at the 50th, 95th and 99th percentile, what they cost."""
    from ..views import calls, terminal

    range = span(since, until)
    with ledger(store) as opened:
        metrics = opened.tools(range.since, range.until)
        turns = opened.usage_by("tool", since=range.since, until=range.until)
    if json:
        print_json([calls.tool_document(one, turns.get(name)) for name, one in metrics.items()])
    elif csv:
        say(calls.tools_csv(metrics, turns).rstrip("\r\n"))
    else:
        out = terminal.console()
        terminal.write(calls.tools(metrics, turns, str(range), width=out.width), out)


def runs(
    run: Annotated[str, typer.Argument(metavar="[ID]", help="A run, or the beginning of its id: its tree.")] = "",
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="So many, the newest.")] = 20,
    since: Since = "",
    until: Until = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """The last runs; with an ID, the run's tree: what each part cost itself and with all below it."""
    from ..views import calls, terminal

    range = span(since, until)
    with ledger(store) as opened:
        if run:
            tree = opened.tree(_found(opened, run).id)
            if json:
                print_json(calls.tree_document(tree))
            else:
                terminal.write(calls.tree(tree))
            return
        found = [(record, opened.tree(record.id).usage) for record in opened.runs(n, range.since, range.until)]
    if json:
        print_json([calls.run_document(record, usage) for record, usage in found])
    else:
        terminal.write(calls.runs(found))


def explain(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="A record's id, or the beginning of it.")],
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Why a call cost what it cost: the rate card, where it comes from, the arithmetic."""
    from ..views import explaining, terminal

    with ledger(store) as opened:
        found = _found(opened, record)
    told = explaining.explain(found, price_book())
    if json:
        print_json(explaining.document(told))
    else:
        terminal.write(explaining.screen(told))


def _found(store: Store, id: str) -> Record:
    try:
        return store.find(id)
    except LookupError as error:
        fail(f"Error: {error.args[0] if error.args else error}")


def _print_lines(records: list[Record]) -> None:
    """One document a line, as `export --format jsonl` has it."""
    from ..encoding import to_document
    from ..exporters.sinks import json_bytes

    for record in records:
        say(json_bytes(to_document(record)).decode())
