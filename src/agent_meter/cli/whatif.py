"""`agent-meter whatif`: what the same calls would cost with one model or another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from ..records import FrozenMap, TokenUsage
from .fence import At, Json, Provider, fail, moment, print_json
from .ledger import Since, StoreOption, Until
from .prices import Unknown, price_book, unknown
from .repricing import PriceList, whatif_ledger

if TYPE_CHECKING:
    from ..pricing.whatif import WhatIf


def _tokens(what: str) -> Any:
    return typer.Option(metavar="N", help=what, show_default=False, parser=_number)


def _number(text: str) -> int:
    """`4000`, `4_000` or `4,000`."""
    try:
        number = int(str(text).replace(",", ""))
    except ValueError:
        number = -1
    if number < 0:
        raise typer.BadParameter(f"{text!r} is not a count; write 4000 or 4,000")
    return number


def whatif(
    model: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A model; repeat it to compare. OLD=NEW: the ledger's calls of OLD by NEW."),
    ],
    input: Annotated[int | None, _tokens("Input tokens of a call, cached ones included.")] = None,
    output: Annotated[int | None, _tokens("Output tokens of a call, reasoning included.")] = None,
    cache_read: Annotated[int, _tokens("Of the input: read from the prompt cache.")] = 0,
    cache_write: Annotated[int, _tokens("Of the input: written to the prompt cache.")] = 0,
    cache_write_1h: Annotated[int, _tokens("Of the cache writes: kept for an hour.")] = 0,
    reasoning: Annotated[int, _tokens("Of the output: reasoning.")] = 0,
    input_audio: Annotated[int, _tokens("Of the input: audio.")] = 0,
    output_audio: Annotated[int, _tokens("Of the output: audio.")] = 0,
    input_image: Annotated[int, _tokens("Of the input: images.")] = 0,
    output_image: Annotated[int, _tokens("Of the output: images.")] = 0,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="What is not a token: web_searches=3. Repeatable.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What the request asks for: processing=batch. Repeatable."),
    ] = None,
    tasks: Annotated[int, _tokens("So many such calls. Default: 1.")] = 1,
    tokens: Annotated[int | None, _tokens("In place of --input and --output: tokens of a call, both together.")] = None,
    output_share: Annotated[str, typer.Option(metavar="SHARE", help="How much of --tokens is output.")] = "0.125",
    cached_share: Annotated[str, typer.Option(metavar="SHARE", help="How much of its input is read from cache.")] = "0",
    provider: Provider = "",
    at: At = "",
    store: StoreOption = "",
    since: Since = "",
    until: Until = "",
    price_list: PriceList = "",
    json: Json = False,
) -> None:
    """What calls would cost: the tokens of one call given, the models side by side.

    Either --input and --output, or --tokens with --output-share. With --model OLD=NEW, the past instead: what the
    calls in the store cost, and what they would have cost with another model.
    """
    if any("=" in name for name in model):
        whatif_ledger(
            _named(model, "--model", str, "gpt-4o=gpt-4o-mini"), store, since, until, price_list, provider, json
        )
        return
    when = moment(at)
    parts = (cache_read, cache_write, cache_write_1h, reasoning, input_audio, output_audio, input_image, output_image)
    if tokens is not None:
        if input is not None or output is not None or any(parts):
            raise typer.BadParameter("stands in place of --input, --output and their parts", param_hint="'--tokens'")
        usage = _shared_out(tokens, output_share, cached_share)
    elif input is None and output is None and not unit:
        raise typer.BadParameter("say how many tokens: --input and --output, or --tokens", param_hint="'--input'")
    else:
        usage = TokenUsage(input or 0, output or 0, *parts)
        if usage.problems:
            raise typer.BadParameter(f"a part exceeds its whole: {'; '.join(usage.problems)}", param_hint="'--input'")
    units = _named(unit, "--unit", _quantity, "web_searches=3")
    asked = _named(context, "--context", str, "processing=batch")
    usage = replace(usage, units=FrozenMap(units), context=FrozenMap(asked))
    _print(model, usage, tasks, provider, when, json)


def _print(models: list[str], usage: TokenUsage, tasks: int, provider: str, when: datetime | None, json: bool) -> None:
    from ..errors import UnknownModel
    from ..pricing.whatif import cost_of

    book = price_book()
    sums: list[WhatIf] = []
    misses: list[Unknown] = []
    for name in models:
        try:
            sums.append(cost_of(book, name, usage, tasks=tasks, provider=provider, at=when))
        except UnknownModel:
            misses.append(unknown(book, name, provider))
    if json:
        from ..views import documents

        print_json(documents.whatif(sums, [miss._asdict() for miss in misses]))
    elif sums:
        from ..views import terminal
        from ..views import whatif as view

        terminal.write(view.whatif(sums))
    if misses or any(each.total is None for each in sums):
        fail(*map(str, misses), quiet=json)


def _shared_out(tokens: int, output_share: str, cached_share: str) -> TokenUsage:
    from ..errors import PriceError
    from ..pricing.whatif import usage_of

    try:
        return usage_of(tokens, output_share, cached_share)
    except PriceError as error:
        raise typer.BadParameter(str(error), param_hint="'--output-share' / '--cached-share'") from None


def _named(given: list[str] | None, option: str, read: Callable[[str], Any], example: str) -> dict[str, Any]:
    """`name=value` pairs. Raises a usage error for what is not one."""
    found = {}
    for pair in given or ():
        name, _, value = (part.strip() for part in pair.partition("="))
        try:
            found[name] = read(value)
        except (ValueError, ArithmeticError):
            value = ""
        if not name or not value:
            raise typer.BadParameter(f"{pair!r} is not written like {example}", param_hint=f"'{option}'")
    return found


def _quantity(text: str) -> int | Decimal:
    number = Decimal(text)
    if not number.is_finite() or number < 0:
        raise ValueError
    return int(number) if number == int(number) else number
