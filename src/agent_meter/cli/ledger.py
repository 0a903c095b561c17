"""What every command over a ledger shares: which store, since when, and how long work is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from ..store import Store

VARIABLE = "AGENT_METER_STORE"
DEFAULT = "meter.db"

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="STORE", help=f"A file or URL, as in Meter(store=…). Default: {VARIABLE}, else {DEFAULT}."
    ),
]
Since = Annotated[
    str,
    typer.Option(
        metavar="WHEN", help="From then on: today, yesterday, 7d (today and six days before), 12h, 2026-11, a date."
    ),
]
Until = Annotated[str, typer.Option(metavar="WHEN", help="Up to then, and not then itself. Default: now.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV; amounts are exact.")]


class Span(NamedTuple):
    """A range of time in UTC; `None` is open."""

    since: datetime | None
    until: datetime | None

    def previous(self, *, now: datetime | None = None) -> Span | None:
        """The range of the same length before; `None` for one without a beginning.

        A range that began at midnight and goes on is compared with as many days, up to the same time of day.
        """
        if self.since is None:
            return None
        until = self.until or now or datetime.now(UTC)
        length = until - self.since
        if self.since == midnight(self.since) and self.until is None:
            length = timedelta(days=-(-length // timedelta(days=1)))
        return Span(self.since - length, until - length)

    def __str__(self) -> str:
        if self.since is None:
            return "all time" if self.until is None else f"until {_said(self.until)}"
        if self.until is None:
            return "today" if self.since == midnight(datetime.now(UTC)) else f"since {_said(self.since)}"
        return f"{_said(self.since)} to {_said(self.until)}"


def _said(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if at == midnight(at) else f"{at:%Y-%m-%d %H:%M}"


def midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


_AGO = re.compile(r"(\d+)\s*(m|min|h|d|w)")
_MONTH = re.compile(r"(\d{4})-(\d{2})")


def when(text: str, option: str = "--since", *, now: datetime | None = None) -> datetime | None:
    """What `--since` says, in UTC; `None` when it says nothing or "all". A usage error for what is no time."""
    now = now or datetime.now(UTC)
    text = text.strip().lower()
    if text in ("", "all"):
        return None
    if text in ("now", "today", "yesterday"):
        return now if text == "now" else midnight(now) - timedelta(days=text == "yesterday")
    try:
        if found := _AGO.fullmatch(text):
            number, unit = int(found[1]), found[2]
            if unit in "dw":  # whole days, today is the last of them
                return midnight(now) - timedelta(days=number * (7 if unit == "w" else 1) - 1)
            return now - timedelta(**{"hours" if unit == "h" else "minutes": number})
        if found := _MONTH.fullmatch(text):
            return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)
        at = datetime.fromisoformat(text.upper())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 7d, 12h, today, 2026-11 or 2026-11-21", param_hint=f"'{option}'"
        ) from None


def span(since: str, until: str = "") -> Span:
    found = Span(when(since), when(until, "--until"))
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise typer.BadParameter(f"{until!r} is not after {since!r}", param_hint="'--until'")
    return found


def there_is_one() -> bool:
    """Whether a store is named, or is where it is by default."""
    return bool(os.environ.get(VARIABLE)) or Path(DEFAULT).is_file()


@contextmanager
def ledger(name: str, *, writing: bool = False, existing: bool = False) -> Iterator[Store]:
    """The store that is meant, open to read unless it is written to.

    A usage error when there is none to read, or none to change (`existing`).
    """
    from ..store import open_store

    name = name or os.environ.get(VARIABLE, "") or DEFAULT
    if "://" not in name and (existing or not writing) and not Path(name).is_file():
        raise typer.BadParameter(
            f"no store {name!r}; name one here or in {VARIABLE}. A program keeps one with Meter(store={name!r}).",
            param_hint="'--store'",
        )
    try:
        store = open_store(name, readonly=not writing)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint="'--store'") from None
    try:
        yield store
    finally:
        store.close()


@contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """A bar on standard error while long work goes on, where that is a terminal; told `(done)` or `(done, total)`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    out = Console(stderr=True)
    if not out.is_terminal:
        yield lambda done, total=None: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total=None: shown.update(task, completed=done, total=total)
