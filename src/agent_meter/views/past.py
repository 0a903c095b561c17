"""The past under other prices, and beside the provider's figures: tables and documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..patterns import printable
from ..pricing.cards import plain
from ..pricing.past import Repriced, Swap
from ..records import dollars
from .reconciling import Compared
from .report import calls, money, places_for, short
from .terminal import table, title, unfolded


def swaps(found: Sequence[Swap], range: str) -> Iterator[RenderableType]:
    """What calls cost, and what they would have cost under another model with the same tokens."""
    yield title(f"what if · {range} (UTC)")
    if not found:
        return
    yield ""
    numbers = ["calls", "tokens", "was", "would be", "change"]
    made = table("model", "instead", *numbers, right=numbers)
    places = places_for(amount for one in found for amount in (one.before_pico, one.after_pico))
    for one in found:
        made.add_row(
            Text(printable(one.model)),
            Text(printable(one.instead)),
            f"{one.calls:,}",
            short(one.input_tokens + one.output_tokens),
            money(one.before_pico, places),
            money(one.after_pico, places),
            percent(one.before_pico, one.after_pico),
        )
    yield made
    notes = [
        f"! {printable(one.model)}: {calls(one.unpriced)} without a price under one of the two: in neither sum"
        for one in found
        if one.unpriced
    ]
    yield ""
    yield from (Text(note) for note in notes)
    yield Text("The same tokens are taken: another model counts and answers differently.", style="dim")


def percent(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.1f}%" if before else ""


def swaps_document(found: Sequence[Swap], range: str) -> dict[str, Any]:
    return {
        "range": range,
        "models": [
            {
                "model": one.model,
                "instead": one.instead,
                "calls": one.calls,
                "input_tokens": one.input_tokens,
                "output_tokens": one.output_tokens,
                "was_usd": _usd(one.before_pico),
                "would_be_usd": _usd(one.after_pico),
                "unpriced_calls": one.unpriced,
                "estimated_calls": one.estimated,
            }
            for one in found
        ],
    }


def repriced(found: Sequence[Repriced], range: str, *, written: bool) -> Iterator[RenderableType]:
    """Models whose calls cost something else by the prices of this machine."""
    changed = [one for one in found if one.changed]
    yield title(f"repriced · {range} (UTC)")
    yield ""
    if not changed:
        yield Text(f"{calls(sum(one.calls for one in found))}, and every one costs what the ledger says.")
        return
    numbers = ["calls", "changed", "was", "is", "change"]
    made = table("model", *numbers, right=numbers)
    places = places_for(amount for one in changed for amount in (one.before_pico, one.after_pico))
    for one in changed:
        made.add_row(
            Text(printable(f"{one.provider}/{one.model}" if one.provider else one.model)),
            f"{one.calls:,}",
            f"{one.changed:,}",
            "unpriced" if one.unpriced_before == one.calls else money(one.before_pico, places),
            money(one.after_pico, places),
            percent(one.before_pico, one.after_pico),
        )
    yield made
    yield ""
    done = "written as corrections" if written else "nothing was written; leave out --dry-run to write corrections"
    yield Text(f"{calls(sum(one.changed for one in changed))} changed: {done}.")


def repriced_document(found: Sequence[Repriced], range: str, *, written: bool) -> dict[str, Any]:
    return {
        "range": range,
        "written": written,
        "models": [
            {
                "provider": one.provider,
                "model": one.model,
                "calls": one.calls,
                "changed": one.changed,
                "was_usd": _usd(one.before_pico),
                "is_usd": _usd(one.after_pico),
                "unpriced_before": one.unpriced_before,
                "unpriced_after": one.unpriced_after,
            }
            for one in found
        ],
    }


def reconciled(found: Sequence[Compared], range: str) -> Iterator[RenderableType]:
    """Ours and theirs, the difference, and what may explain it."""
    yield title(f"ours and theirs · {range} (UTC)")
    yield ""
    money_too = any(one.theirs_pico is not None for one in found)
    tokens_too = not money_too
    numbers = [
        *(["our tokens", "theirs"] if tokens_too else []),
        *(["ours", "official", "diff"] if money_too else []),
    ]
    heads = ("day", "model") if any(len(one.what) == 2 for one in found) else ("of",)
    made = table(*heads, *numbers, "", right=numbers)
    unfolded(made, "day", *numbers)
    places = places_for(amount for one in found for amount in (one.ours_pico, one.theirs_pico or 0) if amount >= 10**10)
    for one in found:
        cells = []
        if tokens_too:
            cells += [f"{one.ours_tokens:,}", f"{one.theirs_tokens or 0:,}"]
        if money_too:
            cells += [money(one.ours_pico, places), money(one.theirs_pico or 0, places), _difference(one)]
        made.add_row(*(Text(printable(part)) for part in one.what), *cells, "ok" if one.agrees else "differs")
    yield made
    told = [one for one in found if one.reasons]
    if told:
        yield ""
        for one in told:
            yield Text(f"{' '.join(printable(part) for part in one.what)}: {'; '.join(one.reasons)}")


def _difference(one: Compared) -> str:
    return "only ours" if one.percent is None else f"{one.percent:+.2f}%"


def reconciled_document(found: Sequence[Compared], range: str) -> dict[str, Any]:
    return {
        "range": range,
        "lines": [
            {
                "of": list(one.what),
                "ours_usd": _usd(one.ours_pico),
                "official_usd": None if one.theirs_pico is None else _usd(one.theirs_pico),
                "difference_usd": None if one.theirs_pico is None else _usd(one.difference_pico),
                "our_tokens": one.ours_tokens,
                "official_tokens": one.theirs_tokens,
                "agrees": one.agrees,
                "reasons": list(one.reasons),
            }
            for one in found
        ],
    }


def _usd(amount: int) -> str:
    return plain(dollars(amount))
