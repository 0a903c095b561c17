"""Prices on a terminal: one model's card, a list of models, two lists side by side, a list that was taken over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from shlex import quote

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..pricing.catalog import Change, Listed, Period, Rate, Shown, Update
from .terminal import indented, line, pairs, per, rate, short, table, title, word

_WIDE = 100  # columns; below, a listing leaves out what the JSON still has
_SHOWN = 20  # lines of a refusal


def shown(model: Shown, asked: str) -> Iterator[RenderableType]:
    """A model's card: the rates in force, what a request may ask for, and the rates of other times."""
    name = f"{model.provider}/{model.model}" if model.provider else model.model
    yield title(name)
    facts = [*([("asked", asked)] if asked.lower() not in (name, model.model) else []), *_facts(model)]
    yield pairs((Text(label, style="dim"), value) for label, value in facts)
    now = model.now
    if now is not None and now.rates:
        yield ""
        yield _rates(now.rates)
    if now is not None and now.variants:
        yield ""
        yield title("On request (of several that apply, the first counts)")
        yield pairs(
            (what, (_line(rates) or "every token rate") + (f"; {when}" if when != "always" else ""))
            for what, when, rates in now.variants
        )
    others = [period for period in model.periods if period is not now]
    if others:
        yield ""
        yield title("At other times (of several that apply, the last counts)")
        for period in others:
            yield from map(indented, _period(period, "" if now is None else now.note))


def _facts(model: Shown) -> Iterator[tuple[str, str]]:
    now = model.now
    yield "at", f"{model.at:%Y-%m-%d %H:%M} UTC" + (f" (rates {now.when})" if now and now.when != "always" else "")
    if now is None:
        yield "rates", "none at this date"
        return
    if now.free:
        yield "rates", f"nothing is billed{f' ({model.reason})' if model.reason else ''}"
    yield "source", now.source or model.source
    if now.note:
        yield "assumed", now.note
    yield "card", now.card_id
    if model.context_window:
        yield "context", f"{model.context_window:,} tokens"


def _rates(rates: Sequence[Rate]) -> Table:
    starts = sorted({start for each in rates for start, _ in each.above})
    tiers = [f"over {start:,} input" for start in starts]
    made = table("rate", "US$", *tiers, "per", right=("US$", *tiers, "per"))
    for each in rates:
        above = dict(each.above)
        made.add_row(word(each.unit), rate(each.usd), *(rate(above.get(start)) for start in starts), per(each.per))
    return made


def _line(rates: Sequence[Rate]) -> str:
    """Rates in a row: `input 4.25, output 17.00`."""
    return ", ".join(
        f"{word(each.unit)} {rate(each.usd)}"
        + "".join(f" ({rate(usd)} over {start:,})" for start, usd in each.above)
        + ("" if each.per == 1_000_000 else f" per {each.per:,}")
        for each in rates
    )


def _period(period: Period, note: str) -> Iterator[RenderableType]:
    yield period.when
    yield indented(_line(period.rates) or "nothing is billed")
    yield indented(Text(f"{period.card_id}, {period.source}", style="dim"))
    if period.note not in ("", note):
        yield indented(Text(period.note, style="dim"))


# ---------------------------------------------------------------------------------------------- one list


def listing(rows: Sequence[Listed], source: str, width: int) -> Iterator[RenderableType]:
    """Models and their rates; where room is scarce, without cache writes and with sizes in short."""
    count, providers = len(rows), {row.provider for row in rows}
    whose = f" of {rows[0].provider}" if len(providers) == 1 else ""
    said = f"{count:,} {'model' if count == 1 else 'models'}{whose}, US$ per 1M tokens, {source}"
    yield Text(said, style="dim")
    yield ""
    wide = width >= _WIDE
    numbers = ["input", "output", *(["cache_read", "cache_write"] if wide else ["cached"]), "context"]
    made = table(*([] if whose else ["provider"]), "model", *numbers, right=numbers)
    for row in rows:
        figures = [row.input, row.output, row.cache_read, *([row.cache_write] if wide else [])]
        name = Text(row.model)
        if row.deprecated:
            name.append(" (deprecated)", style="dim")
        size = row.context_window
        window = "–" if not size else f"{size:,}" if wide else short(size)
        made.add_row(*([] if whose else [row.provider]), name, *map(rate, figures), window)
    yield made


# --------------------------------------------------------------------------------------------- two lists


def changes(found: Sequence[Change], before: str, after: str) -> Iterator[RenderableType]:
    """Models gained and lost, rates that moved, and how many of each."""
    yield line(f"{before} → {after}")
    yield tally(found)
    if found:
        yield ""
        yield _changes(found)


def _changes(found: Iterable[Change]) -> Table:
    made = table("model", "rate", "before", "after", "change", right=("before", "after", "change"))
    for change in found:
        name = f"{change.provider}/{change.model}"
        if change.unit == "model":
            gained = change.before is None
            made.add_row(name, "", "", "", Text("new", style="green") if gained else Text("gone", style="red"))
        else:
            made.add_row(name, _spoken(change.unit), rate(change.before), rate(change.after), _moved(change))
    return made


def _spoken(unit: str) -> str:
    name, mark, rest = unit.partition(" ")
    return word(name) + mark + rest


def _moved(change: Change) -> Text:
    before, after = change.before, change.after
    if before is None or after is None:
        return Text("new" if before is None else "gone")
    if not before or not after:
        return Text("was free" if not before else "now free", style="yellow")
    if change.moved_far:
        return Text(f"× {after / before:.3g}" if after > before else f"÷ {before / after:.3g}", style="bold red")
    share = (after / before - 1) * 100
    return Text(f"{share:+.1f} %", style="red" if share > 0 else "green")


def tally(found: Sequence[Change]) -> str:
    """`2 models new, 1 gone, 3 rates changed`."""
    new = sum(1 for change in found if change.unit == "model" and change.before is None)
    gone = sum(1 for change in found if change.unit == "model" and change.after is None)
    moved = len(found) - new - gone
    parts = [
        f"{count:,} {one if count == 1 else many} {what}"
        for count, one, many, what in (
            (new, "model", "models", "new"),
            (gone, "model", "models", "gone"),
            (moved, "rate", "rates", "changed"),
        )
        if count
    ]
    return ", ".join(parts) or "no difference"


def updated(done: Update, *, replaced: bool, active: bool) -> Iterator[RenderableType]:
    yield line(f"{done.path} is in place: {done.models:,} models.")
    yield line(f"Against the {'list before it' if replaced else 'installed list'}: {tally(done.changes)}.")
    for problem in done.problems:
        yield line(f"  accepted: {problem}")
    yield line(f"sha256 {done.sha256}", style="dim")
    if not active:
        yield line(f"To price by it: export AGENT_METER_PRICE_LIST={quote(str(done.path.resolve()))}")


def refused(source: str, before: str, reasons: Sequence[str], found: Sequence[Change]) -> Iterator[str]:
    """Why a list is not taken over, line by line; `reasons` as `catalog.problems` gives them."""
    moved = [c for c in found if c.unit != "model" and c.moved_far]
    many_gone = reasons[: len(reasons) - len(moved)]
    gone = [f"{c.provider}/{c.model} is gone" for c in found if c.unit == "model" and c.after is None]
    yield f"{source} is not taken over:"
    for lines in (many_gone, gone if many_gone else [], reasons[len(many_gone) :]):
        yield from (f"  {each}" for each in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"  … and {len(lines) - _SHOWN:,} more"
    yield f"All changes: agent-meter prices diff {quote(before)} {quote(source)}"
    yield "To take it over all the same: --accept"
