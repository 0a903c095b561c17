"""What every subcommand shares: failures as sentences, `--json`, dates."""

from __future__ import annotations

from datetime import UTC, datetime
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


def fail(*lines: str) -> NoReturn:
    """Say why not, on standard error, and exit with 1."""
    for line in lines:
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
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a date; write 2025-09-05 or 2025-09-05T16:30", param_hint="'--at'"
        ) from None  # fmt: skip
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
