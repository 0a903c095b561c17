"""Rates as people write them: one table of a price file, or the value of `prices.set(name, …)`, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

from .cards import Price, RateCard
from .rates import Amount, FormError, Rates, amount, fee_prices
from .schedule import ALWAYS, DAYS, Window
from .units import CLASSES, WIDE

_OTHER = (
    "per_1k", "free", "included", "like", "multiply", "from", "until", "hours", "days", "context", "above", "fees",
    "source", "note", "context_window", "estimated", "standalone",
)  # fmt: skip
KEYS = (*CLASSES, *_OTHER)


class Entry(NamedTuple):
    """What one table says: a card, or changes to a card found elsewhere, and when they apply."""

    prices: Mapping[str, Price]
    card: RateCard | None  # complete by itself; None: the prices change what `like` or the layer below says
    rates: Rates | None = None  # rates built in code, taken whole
    like: str | None = None
    multiply: Decimal | None = None
    window: Window = ALWAYS
    context: tuple[tuple[str, str], ...] = ()
    source: str = ""
    note: str = ""
    context_window: int | None = None


def entry(value: object, where: str, source: str) -> Entry:
    """An entry from a `Rates`, a mapping, or one number: US$ for 1,000 tokens, blended. Raises `PriceError`."""
    if isinstance(value, Rates):
        if not value.known:
            raise FormError(where, f"{value!r} has no rates")
        return Entry({}, None, rates=value, source=source)
    if isinstance(value, Mapping):
        return _table(value, where, source)
    if isinstance(value, (str, int, float, Decimal)):
        return _table({"per_1k": value}, where, source)
    raise FormError(where, f"rates are a table, a Rates or one number per 1K tokens, not {value!r}")


def entries(value: object, where: str, source: str) -> tuple[Entry, ...]:
    """One entry or, from a list of tables, a history of them: of several that apply the last one counts."""
    if isinstance(value, list):
        return tuple(entry(item, f"{where}[{n}]", source) for n, item in enumerate(value))
    return (entry(value, where, source),)


def refuse_unknown(keys: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Raise `PriceError` for the first key that nobody reads, with the nearest one that is."""
    allowed = list(allowed)
    for key in keys:
        if key not in allowed:
            from difflib import get_close_matches

            near = get_close_matches(str(key), allowed, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(allowed)}"
            raise FormError(f"{where}.{key}", f"unknown key; {hint}")


def _table(table: Mapping[str, Any], where: str, source: str) -> Entry:
    refuse_unknown(table, KEYS, where)
    words = [word for word in CLASSES if word in table]
    complete = [key for key in ("per_1k", "free", "included") if table.get(key) not in (None, False)]
    if len(complete) > 1 or (complete and words):
        raise FormError(where, f"{' and '.join([*complete, *words])} contradict each other; keep one")
    for key in ("free", "included"):
        if not isinstance(table.get(key, False), bool):
            raise FormError(where, f"{key} is true or false, not {table[key]!r}")
    prices = {CLASSES[word]: Price(amount(table[word], f"{where}.{word}")) for word in words}
    prices = _tiers(prices, table.get("above"), where)
    fees = table.get("fees", {})
    if not isinstance(fees, Mapping):
        raise FormError(f"{where}.fees", f"a table of units and US$ a piece, not {fees!r}")
    prices.update(fee_prices(fees, f"{where}.fees"))
    like = table.get("like")
    if like is not None and not (isinstance(like, str) and like):
        raise FormError(f"{where}.like", f"a model's name, not {like!r}")
    multiply = amount(table["multiply"], f"{where}.multiply") if "multiply" in table else None
    card = None
    if "per_1k" in complete:
        price = Price(WIDE.scaleb(amount(table["per_1k"], f"{where}.per_1k"), 3))
        card = RateCard({"input_tokens": price, "output_tokens": price, **prices})
    elif complete:
        card = RateCard(prices, free=complete == ["free"], included=complete == ["included"])
    elif ("input" in words or table.get("standalone")) and like is None:
        card = RateCard(prices)
    if card is not None and (like is not None or multiply is not None):
        raise FormError(where, "like and multiply change other rates; they do not go with own ones")
    if card is None and like is None and multiply is None and not prices:
        raise FormError(where, "no rate; name input, output, per_1k, free, like or multiply")
    note = str(table.get("note", "")) if table.get("estimated") else ""
    if table.get("estimated") and not note:
        note = f"estimated in {source}"
    window = Window(
        _moment(table.get("from"), f"{where}.from"), _moment(table.get("until"), f"{where}.until"),
        _hours(table.get("hours"), where), _weekdays(table.get("days"), where),
    )  # fmt: skip
    if window.start and window.end and window.start >= window.end:
        raise FormError(where, f"from {window.start:%Y-%m-%d} is not before until {window.end:%Y-%m-%d}")
    context = table.get("context", {})
    if not isinstance(context, Mapping) or not all(isinstance(v, str) for v in context.values()):
        raise FormError(f"{where}.context", f'a table such as {{service_tier = "flex"}}, not {context!r}')
    if context and (like is not None or (multiply is None) == (not prices) or (card and (card.free or card.included))):
        raise FormError(where, "with a context go rates of its own or multiply, and nothing else")
    when = tuple(sorted((key.lower(), value.lower()) for key, value in context.items()))
    if when and card is not None:
        prices = dict(card.prices)
    size = table.get("context_window")
    if "source" in table:
        source = f"{source}: {table['source']}"
    return Entry(
        prices, card, None, like, multiply, ALWAYS if window == ALWAYS else window, when, source, note,
        size if isinstance(size, int) else None,
    )  # fmt: skip


def _tiers(prices: dict[str, Price], above: object, where: str) -> dict[str, Price]:
    """`above = {200000 = {input = "4", output = "15"}}`: rates for calls of more input tokens than that."""
    if above is None:
        return prices
    if not isinstance(above, Mapping):
        raise FormError(f"{where}.above", f"a table of input tokens and rates, not {above!r}")
    tiers: dict[str, list[tuple[int, Decimal]]] = {}
    for start, rates in above.items():
        if not str(start).isdigit() or not isinstance(rates, Mapping):
            raise FormError(f"{where}.above", f'a table such as {{200000 = {{input = "4"}}}}, not {above!r}')
        refuse_unknown(rates, CLASSES, f"{where}.above.{start}")
        for word, value in rates.items():
            if CLASSES[word] not in prices:
                raise FormError(f"{where}.above.{start}.{word}", f"has no rate below {start} tokens")
            tiers.setdefault(CLASSES[word], []).append((int(start), amount(value, f"{where}.above.{start}.{word}")))
    return {name: Price(price.base, tuple(sorted(tiers.get(name, ())))) for name, price in prices.items()}


def _moment(value: object, where: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise FormError(where, f"not a date: {value!r}") from None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise FormError(where, f"not a date: {value!r}")


def _hours(value: object, where: str) -> tuple[tuple[time, time], ...]:
    """`"16:30-00:30"`, or a list of such, in UTC; past midnight is allowed."""
    found = []
    for text in [] if value is None else value if isinstance(value, list) else [value]:
        start, _, end = str(text).partition("-")
        try:
            found.append((time.fromisoformat(start.strip()), time.fromisoformat(end.strip())))
        except ValueError:
            raise FormError(f"{where}.hours", f'UTC hours such as "16:30-00:30", not {value!r}') from None
    return tuple(found)


def _weekdays(value: object, where: str) -> frozenset[int]:
    if value is None:
        return ALWAYS.days
    days = value if isinstance(value, list) else [value]
    try:
        return frozenset(DAYS.index(str(day).lower()[:3]) for day in days)
    except ValueError:
        raise FormError(f"{where}.days", f'weekdays such as ["sat", "sun"], not {value!r}') from None


__all__ = ["Amount", "Entry", "entries", "entry", "refuse_unknown"]
