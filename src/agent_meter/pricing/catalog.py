"""Looking into prices: one model's card, a whole list, two lists side by side, a newer list, and what-if sums.

Pure functions over a price book or a price list, for the command line and for scripts. What they return are
plain tuples: `_asdict()` makes JSON of them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PriceError
from ..records import Model
from . import sources
from .book import PriceBook
from .cards import Price, plain
from .genai import segments_of
from .listfile import digest, read
from .nearest import nearest, provider_in
from .pricelist import PriceList
from .rates import Rates
from .schedule import NOTHING, Variant, state_at
from .units import MILLION, WIDE, unit
from .whatif import WhatIf, cost_of, usage_of, whatif

LOST_SHARE = Decimal("0.2")  # an update may lose so many of the models …
MOVED = 5  # … and move a rate by this factor, before it needs `accept`


class Rate(NamedTuple):
    """US$ for `per` pieces of a unit; above so many input tokens in a call, another rate for all of them."""

    unit: str
    usd: Decimal
    per: int
    above: tuple[tuple[int, Decimal], ...] = ()


class Period(NamedTuple):
    """The rates of a stretch of time, and where they come from."""

    when: str
    rates: tuple[Rate, ...]
    card_id: str
    source: str
    note: str
    free: bool
    variants: tuple[tuple[str, str, tuple[Rate, ...]], ...]  # what a request asks for, when, the rates instead


class Shown(NamedTuple):
    """Everything that is known about a model's price; `now` is the period in force at `at`."""

    model: str
    provider: str
    known: bool
    reason: str
    source: str
    at: datetime
    now: Period | None
    periods: tuple[Period, ...]
    context_window: int | None


class Listed(NamedTuple):
    """One model of a price list; US$ for 1M tokens, `None` where there is no such rate."""

    provider: str
    model: str
    name: str
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None
    context_window: int | None
    deprecated: bool


class Change(NamedTuple):
    """What differs between two lists: a model gained (`before` is `None`), lost, or a rate that moved.

    `unit` is `"model"` for a model; a rate's says what else it depends on: `input_tokens above 200,000`,
    `output_tokens (processing=batch)`.
    """

    provider: str
    model: str
    unit: str
    before: Decimal | None
    after: Decimal | None

    @property
    def moved_far(self) -> bool:
        """Whether a rate moved by more than `MOVED` times, or between nothing and something."""
        if self.before is None or self.after is None:
            return False
        low, high = sorted((self.before, self.after))
        return high > WIDE.multiply(low, Decimal(MOVED))


class Update(NamedTuple):
    """A newer price list that was put in place: its digest, what it holds, what it changes."""

    path: Path
    sha256: str
    models: int
    changes: tuple[Change, ...]
    problems: tuple[str, ...]  # what had to be accepted


class Refused(PriceError):
    """A newer price list is not taken over: `problems` says why, `changes` all that it would have changed."""

    def __init__(self, message: str, problems: tuple[str, ...], changes: tuple[Change, ...]) -> None:
        super().__init__(message)
        self.problems = problems
        self.changes = changes


class Checked(NamedTuple):
    """What a price file or a price list speaks of; `problems` are names that find no rate, each with its line."""

    path: Path
    models: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    fees: tuple[str, ...] = ()  # units, `provider.unit` where they are one provider's
    problems: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------- one model


def show(prices: PriceBook, model: str, *, provider: str = "", at: datetime | None = None) -> Shown:
    """A model's rates, past, present and dated ahead."""
    at = at or datetime.now(UTC)
    rates = prices.find(Model(provider, model))
    pick = rates.pick(at)
    periods = tuple(_period(rates, index) for index in range(len(rates.segments)))
    now = None
    if pick is not None:
        chosen = [p for p, s in zip(periods, rates.segments, strict=True) if s.card == pick.card]
        now = chosen[-1] if chosen else None
    return Shown(
        rates.model or model, rates.provider, rates.known, rates.reason, rates.source, at, now, periods,
        rates.context_window,
    )  # fmt: skip


def _period(rates: Rates, index: int) -> Period:
    segment = rates.segments[index]
    variants = []
    for variant in segment.variants:
        what = _asked_for(variant)
        if variant.factor is not None:
            what += f" (x {plain(variant.factor)})"
        if variant.prices or variant.factor is not None:
            variants.append((what, str(variant.window), _rates(variant.prices)))
    card = segment.card
    return Period(
        str(segment.window), _rates(card.prices), card.card_id, segment.source, segment.note,
        card.free or card.included, tuple(variants),
    )  # fmt: skip


def _asked_for(variant: Variant) -> str:
    return ", ".join(f"{key}={value}" for key, value in variant.when)


def _rates(prices: Mapping[str, Price]) -> tuple[Rate, ...]:
    return tuple(Rate(name, price.base, unit(name).per, price.tiers) for name, price in prices.items())


# ---------------------------------------------------------------------------------------------- one list


def listing(prices: PriceList, *, provider: str | None = None, at: datetime | None = None) -> Iterator[Listed]:
    """The models of a price list with their corrected rates, of one provider or of all. Raises `PriceError`."""
    moment = at or datetime.now(UTC)
    provider = None if provider is None else provider_in(prices, provider)
    for pid, owner in prices.providers.items():
        if provider in (None, pid):
            for model in owner.models:
                name = Model(pid, model.id)
                if prices.corrected is not None and prices.corrected.layer.match(name) is not None:
                    rates = prices.find(name)
                else:
                    rates = Rates(segments_of(model, owner, listed_in=prices.source))
                pick = rates.pick(moment)
                card = pick.card if pick else None
                read_rate = card.rate if card else lambda _: None
                own = card.prices if card else {}
                yield Listed(
                    pid, model.id, model.name or model.id, read_rate("input_tokens"), read_rate("output_tokens"),
                    read_rate("cache_read_tokens") if "cache_read_tokens" in own else None,
                    read_rate("cache_write_tokens") if "cache_write_tokens" in own else None,
                    model.context_window, bool(model.deprecated),
                )  # fmt: skip


# --------------------------------------------------------------------------------------------- two lists


def open_list(name: str | Path) -> PriceList:
    """A price list by file name; `"installed"` is that of the installed package. Raises `PriceError`."""
    return read(name)


def diff(before: PriceList, after: PriceList, *, at: datetime | None = None) -> tuple[Change, ...]:
    """What changed between two lists, by provider and model: models gained and lost, rates that moved."""
    old, new = _table(before, at), _table(after, at)
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if key not in new or key not in old:
            there, here = (Decimal(1) if key in table else None for table in (old, new))
            changes.append(Change(*key, "model", there, here))
            continue
        for name in sorted(old[key].keys() | new[key].keys()):
            a, b = old[key].get(name), new[key].get(name)
            if a != b:
                changes.append(Change(*key, name, a, b))
    return tuple(changes)


def _table(prices: PriceList, at: datetime | None) -> dict[tuple[str, str], dict[str, Decimal]]:
    table: dict[tuple[str, str], dict[str, Decimal]] = {}
    moment = at or datetime.now(UTC)
    for pid, owner in prices.providers.items():
        for model in owner.models:
            segments = segments_of(model, owner, listed_in=prices.source)
            state = state_at(segments, moment)
            figures: dict[str, Decimal] = {}
            if state != NOTHING:
                segment = segments[state.segment]
                figures |= _figures(segment.card.prices, "")
                for number in reversed(state.variants):  # of several that say the same the first counts
                    variant = segment.variants[number]
                    figures |= _figures(variant.prices, f" ({_asked_for(variant)})")
            table[pid, model.id] = figures
    return table


def _figures(prices: Mapping[str, Price], when: str) -> dict[str, Decimal]:
    figures = {}
    for name, price in prices.items():
        figures[name + when] = price.base
        figures.update({f"{name} above {start:,}{when}": usd for start, usd in price.tiers})
    return figures


def problems(changes: tuple[Change, ...], models_before: int) -> tuple[str, ...]:
    """Why a newer list should not be taken unseen: it lost many models, or a rate moved very far."""
    found = []
    lost = sum(1 for change in changes if change.unit == "model" and change.after is None)
    if lost > models_before * LOST_SHARE:
        found.append(f"{lost:,} of {models_before:,} models are gone (more than {LOST_SHARE:.0%})")
    found += [
        f"{change.provider}/{change.model} {change.unit}: {plain(change.before)} to {plain(change.after)} "
        f"(more than {MOVED}x)"
        for change in changes
        if change.unit != "model" and change.moved_far and change.before is not None and change.after is not None
    ]
    return tuple(found)


def update(
    source: str | Path, destination: str | Path, *, accept: bool = False, current: PriceList | None = None
) -> Update:
    """Put a newer price list in place, with its SHA-256 beside it (`<name>.sha256`).

    Compared with the list that is there, else with `current`, else with the installed one. Raises `PriceError`
    (`Refused`) when it lost more than 20 % of the models or moved a rate by more than 5x, unless `accept`; what
    is there then stays. Nothing is fetched: the file is yours.
    """
    destination = Path(destination)
    newer = read(source)
    older = read(destination) if destination.exists() else current or read("installed")
    changes = diff(older, newer)
    found = problems(changes, sum(len(owner.models) for owner in older.providers.values()))
    if found and not accept:
        more = f" … and {len(found) - 10} more" if len(found) > 10 else ""
        message = f"{source} is not taken over: {'; '.join(found[:10])}{more}. Accept it explicitly to use it."
        raise Refused(message, found, changes)
    raw = Path(source).read_bytes()
    sha = digest(raw)
    _replace(destination, raw)
    _replace(destination.with_name(destination.name + ".sha256"), f"{sha}  {destination.name}\n".encode())
    models = sum(len(owner.models) for owner in newer.providers.values())
    return Update(destination, sha, models, changes, found)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + f".{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(path)


# ------------------------------------------------------------------------------------------ a price file


def check(path: str | Path, *, price_list: str | Path | None = None) -> Checked:
    """Read a price file (TOML), or a price list (a name that ends in `.json`), without using it.

    What a price file builds on is looked up in `price_list`, else in the installed one. Raises `PriceError` for
    what is wrong in form, with the line of a price file and the nearest right key.
    """
    path = Path(path)
    if path.suffix == ".json":
        listed = read(path).providers
        return Checked(path, tuple(f"{pid}/{model.id}" for pid, owner in listed.items() for model in owner.models))
    sources.from_file(path, shared=path.name == sources.FILE)
    text = path.read_text(encoding="utf-8")
    tables = tomllib.loads(text, parse_float=Decimal)
    given: dict[str, Any] = {key: tables[key] for key in ("prices", "pattern", "fees") if key in tables}
    book = PriceBook(given, price_list=price_list, discover=False)
    names = tuple(tables.get("prices", {}))
    exact = [name for name in names if "*" not in name and "?" not in name]
    patterns = [name for name in names if name not in exact]
    patterns += [table.get("glob") or table["regex"] for table in tables.get("pattern", ())]
    fees = []
    for name, fee in tables.get("fees", {}).items():
        fees += [f"{name}.{unit_name}" for unit_name in fee] if isinstance(fee, Mapping) else [name]
    problems = []
    for name in exact:
        rates = book.find(name)
        if not rates.known:
            entry = tables["prices"][name]
            like = entry.get("like") if isinstance(entry, Mapping) else None
            near = nearest(book, like, count=1) if like else ()
            line = sources._line(text, f'prices."{name}".like') or 1
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"line {line}: {name}: {rates.reason.removeprefix('prices: ')}{hint}")
    return Checked(path, tuple(exact), tuple(patterns), tuple(fees), tuple(problems))


__all__ = [
    "LOST_SHARE", "MILLION", "MOVED", "Change", "Checked", "Listed", "Period", "Rate", "Refused", "Shown", "Update",
    "WhatIf", "check", "cost_of", "diff", "listing", "nearest", "open_list", "problems", "provider_in", "show",
    "update", "usage_of", "whatif",
]  # fmt: skip
