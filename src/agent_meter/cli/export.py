"""`agent-meter export` and `agent-meter import`: the ledger as files that others read, and back."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .fence import Json, existing, fail, print_json, say
from .ledger import Since, StoreOption, Until, ledger, progress, span

_FORMATS = "csv, json, jsonl, parquet, focus, cloudevents, prometheus"
_SOURCES = "records, cloudevents, langfuse, otel"


def export(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The file to write; - is standard output.")],
    format: Annotated[str, typer.Option(metavar="NAME", help=f"One of {_FORMATS}. Default: as OUT ends.")] = "",
    store: StoreOption = "",
    since: Since = "",
    until: Until = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only llm, embedding, rerank, tool, run, step; repeatable."),
    ] = None,
    agent: Annotated[str, typer.Option(metavar="NAME", help="Only this agent's.")] = "",
    user: Annotated[str, typer.Option(metavar="NAME", help="Only this user's.")] = "",
    account: Annotated[str, typer.Option(metavar="ID", help="focus: the billing account.")] = "",
    period: Annotated[str, typer.Option(metavar="day|hour", help="focus: how long a charge period is.")] = "",
    by: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="focus: agent, task, user, session or step; repeatable.")
    ] = None,
    source: Annotated[str, typer.Option(metavar="URI", help="cloudevents: the source of the events.")] = "",
    json: Json = False,
) -> None:
    """Write the records of the store to a file for others to read. The file appears when it is whole.

    FOCUS has no place for calls without a price: they go to a file beside OUT, and the exit code is 3.
    """
    from .. import exporters
    from ..records import Kind

    kinds = [each.value for each in Kind]
    for one in kind or ():
        if one not in kinds:
            raise typer.BadParameter(f"{one!r} is none of {', '.join(kinds)}", param_hint="'--kind'")
    options: dict[str, Any] = {"account": account, "period": period, "by": by, "source": source}
    options = {name: value for name, value in options.items() if value}
    filters: dict[str, Any] = {name: value for name, value in (("agent", agent), ("user", user)) if value}
    range = span(since, until)
    target: Any = sys.stdout.buffer if out == "-" else out
    try:
        with ledger(store) as opened, progress(f"Writing {out}") as told:
            records = opened.records(range.since, range.until, kinds=tuple(kind or ()), **filters)
            done = exporters.export(records, target, format or None, progress=told, **options)
    except ImportError as error:
        fail(f"Error: {error}")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if out == "-":
        sys.stdout.buffer.flush()
    elif json:
        print_json(done._asdict())
    else:
        say(f"{done.path}: {_counted(done.records, 'record')} as {done.format}")
    if done.skipped:
        where = f", see {done.side_file}" if done.side_file else ""
        typer.echo(f"{_counted(done.skipped, 'call')} without a full price: not charges{where}", err=True)
        raise typer.Exit(3)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON or JSON Lines, whoever wrote it.")],
    format: Annotated[str, typer.Option(metavar="NAME", help=f"One of {_SOURCES}. Default: by what is in it.")] = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Put history from elsewhere into the store; what it has already is left as it is.

    Reads exports of agent_meter, CloudEvents, observations of Langfuse, OpenTelemetry spans with GenAI attributes.
    Exit code 3 when some entries could not be read.
    """
    from ..importers import import_file
    from .prices import price_book

    path = existing(file, "FILE")
    with ledger(store, writing=True) as opened, progress(f"Reading {file}") as told:
        done = import_file(path, opened, format or None, prices=price_book(), progress=told)
    if json:
        print_json({**done._asdict(), "problems": list(done.problems)})
    else:
        say(f"{file}: {_counted(done.records, 'record')}, {done.stored:,} new, {done.duplicates:,} known already")
        if done.others:
            say(f"{_counted(done.others, 'other entry', 'other entries')} left aside: no model call, no tool call")
    if done.unreadable:
        if not json:
            for problem in done.problems:
                typer.echo(f"  {problem}", err=True)
        typer.echo(f"{_counted(done.unreadable, 'entry', 'entries')} could not be read", err=True)
        raise typer.Exit(3)


def _counted(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"
