"""What every subcommand shares: failures as sentences, `--json`, dates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ..errors import MeterError

Json = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are strings.")]
Provider = Annotated[
    str, typer.Option(metavar="NAME", help="Whose model it is: openai, azure, openrouter, ollama …")
]  # fmt: skip
At = Annotated[
    str, typer.Option(metavar="DATE", help="A date or time in ISO 8601, UTC unless it says otherwise. Default: now.")
]  # fmt: skip


class Commands(TyperGroup):
    """The one place where an error of ours, or of the file system, becomes a sentence and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MeterError as error:
            fail(f"Error: {error}")
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"Error: {error.filename}: {error.strerror}" if error.filename else f"Error: {error}")


def say(text: str) -> None:
    typer.echo(text)


def fail(*lines: str, quiet: bool = False) -> NoReturn:
    """Say why not, on standard error, and exit with 1; `quiet` where a JSON document has said it."""
    for line in () if quiet else lines:
        typer.echo(line, err=True)
    raise typer.Exit(1)


def print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def moment(text: str) -> datetime | None:
    """What `--at` says; `None` when it says nothing."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a date; write 2025-09-05 or 2025-09-05T16:30", param_hint="'--at'"
        ) from None  # fmt: skip


def existing(name: str, hint: str, otherwise: str = "") -> Path:
    """A file that is there; else a usage error that names the nearest one beside it."""
    path = Path(name)
    if path.is_file():
        return path
    from difflib import get_close_matches

    beside = [other.name for other in path.parent.iterdir() if other.is_file()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, 1)
    more = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else otherwise
    raise typer.BadParameter(f"no file {name!r}{more}", param_hint=f"'{hint}'")
