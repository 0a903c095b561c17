"""`agent-meter count`: how many tokens a text is to a model, and how sure that is."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .fence import Json, existing, fail, print_json, say


def count(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text in UTF-8; - is standard input.")] = "-",
    model: Annotated[str, typer.Option(metavar="NAME", help="Any vendor's model. Default: OpenAI's o200k_base.")] = "",
    json: Json = False,
) -> None:
    """Count the tokens of a text: exact, or an estimate that says how far it may be off."""
    from ..tokens import TokenCounter

    raw = sys.stdin.buffer.read() if file == "-" else existing(file, "FILE").read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "Standard input" if file == "-" else file
        fail(f"{what} is not a text in UTF-8: byte 0x{raw[error.start]:02x} at position {error.start:,}.")
    counter = TokenCounter(model=model or None)
    tokens = counter.count(text)
    if json:
        print_json(
            {
                "tokens": tokens, "exact": counter.exact, "error": counter.error, "method": counter.method,
                "encoding": counter.encoding, "model": model or None, "characters": len(text),
            }
        )  # fmt: skip
    else:
        sure = "exact" if counter.exact else f"estimated, mostly within {counter.error:.0%}"
        say(f"{tokens:,} {'token' if tokens == 1 else 'tokens'}, {sure} ({counter.method})")
