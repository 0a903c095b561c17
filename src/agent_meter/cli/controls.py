"""`agent-meter pause | resume | stop | controls`: reach into a program that runs, through the store that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fence import Json, fail, print_json, say
from .ledger import StoreOption, ledger

if TYPE_CHECKING:
    from ..controls import Control, Controls
    from ..store import Store

Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; the refused call says it.")]
_LOOKED_AT = 100_000  # records that are looked through for a run whose id was not given whole
_UUID = 36


@contextmanager
def _controls(name: str) -> Iterator[tuple[Controls, Store]]:
    from ..controls import Controls
    from ..shelf import shelf_of

    with ledger(name) as store:
        controls = Controls(shelf_of(store))
        try:
            yield controls, store
        finally:
            controls.meter_shutdown()


def pause(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Whose calls are refused from now on.")] = "",
    all: Annotated[bool, typer.Option("--all", help="Every agent that is not critical.")] = False,
    reason: Reason = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Refuse the calls of an agent until `resume`. Seen by running programs at their next call."""
    from ..controls import EVERY

    if bool(agent) == all:
        raise typer.BadParameter("name an agent, or say --all", param_hint="'AGENT'")
    with _controls(store) as (controls, _):
        _told([controls.pause(EVERY if all else agent, reason=reason, by="agent-meter")], json)


def resume(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="An agent, a run or a task. Default: all.")] = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Let what was paused or stopped go on. Exit code 1 when there was nothing of that name."""
    from ..controls import EVERY

    with _controls(store) as (controls, _):
        freed = controls.resume(name or EVERY)
        left = list(controls)
    if json:
        print_json([_document(one) for one in freed])
    for one in () if json else freed:
        say(f"{_whose(one)}: goes on")
    if not freed:
        more = [f"  {one}" for one in left]
        fail(f"Nothing{f' called {name!r}' if name else ''} is paused or stopped.", *more, quiet=json)


def stop(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="The id of a run, or the beginning of it.")] = "",
    task: Annotated[str, typer.Option(metavar="TASK", help="A task instead of a run.")] = "",
    agent: Annotated[str, typer.Option(metavar="NAME", help="Of the task: only this agent's.")] = "",
    reason: Reason = "",
    store: StoreOption = "",
    json: Json = False,
) -> None:
    """Refuse every further call of a run, with the runs inside it, or of a task. Seen at the next call."""
    if bool(run) == bool(task):
        raise typer.BadParameter("name a run, or --task", param_hint="'RUN'")
    if agent and not task:
        raise typer.BadParameter("is for a --task; to hold an agent: agent-meter pause", param_hint="'--agent'")
    with _controls(store) as (controls, opened):
        if task:
            control = controls.stop(task=task, agent=agent, reason=reason, by="agent-meter")
        else:
            control = controls.stop(_run(opened, run), reason=reason, by="agent-meter")
        _told([control], json)


def listed(store: StoreOption = "", json: Json = False) -> None:
    """What is paused and stopped, and since when."""
    with _controls(store) as (controls, _):
        held = list(controls)
    if json:
        print_json([_document(one) for one in held])
        return
    for one in held:
        say(str(one))
    if not held:
        say("Nothing is paused or stopped.")


def _run(store: Store, told: str) -> str:
    """The run that the beginning of an id means; a run that has recorded nothing yet is taken at its word."""
    if len(told) >= _UUID:
        return told
    found: dict[str, None] = {}
    since = datetime.now(UTC) - timedelta(days=7)
    for number, record in enumerate(store.records(since=since, newest_first=True)):
        for id in (record.run_id, record.id if record.kind in ("run", "step") else None):
            if id and id.startswith(told):
                found[id] = None
        if number >= _LOOKED_AT or len(found) > 5:
            break
    if len(found) > 1 and told not in found:
        raise typer.BadParameter(f"{told!r} is the beginning of several: {', '.join(found)}", param_hint="'RUN'")
    return told if told in found or not found else next(iter(found))


def _told(controls: list[Control], json: bool) -> None:
    if json:
        print_json([_document(one) for one in controls])
        return
    for one in controls:
        say(str(one))


def _whose(control: Control) -> str:
    from ..controls import EVERY

    return "every agent" if control.name == EVERY else f"{control.kind} {control.name}"


def _document(control: Control) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.structs.asdict(control))
