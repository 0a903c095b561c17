"""One layer of overrides: which entry a model's name picks, and the rates that it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import time
from typing import TYPE_CHECKING

from ..errors import PriceError
from ..records import EMPTY, Model
from .cards import Price, RateCard
from .entries import Entry
from .names import DIALECTS, provider_key
from .rates import Rates
from .schedule import ALWAYS, Segment, Variant, Window

if TYPE_CHECKING:
    import re

Below = Callable[[Model], Rates]


class Layer:
    """Entries by exact name, glob and regular expression, in this order; of globs the one with most letters wins.

    Names are compared in lower case, as `provider/name`, `provider:name` or the name alone.
    """

    __slots__ = ("_exact", "_globs", "_regexes", "fees", "source")

    def __init__(
        self,
        exact: Mapping[str, tuple[Entry, ...]] = EMPTY,
        globs: Mapping[str, tuple[Entry, ...]] = EMPTY,
        regexes: Mapping[str, tuple[Entry, ...]] = EMPTY,
        fees: Mapping[str, Mapping[str, Price]] = EMPTY,
        source: str = "",
    ) -> None:
        self._exact: dict[str, tuple[Entry, ...]] = {}
        for name, given in exact.items():
            for spelling in _spellings(name):
                self._exact[spelling] = given
        self._globs = sorted(globs.items(), key=lambda item: -_literal(item[0]))
        self._regexes: list[tuple[re.Pattern[str], tuple[Entry, ...]]] = []
        if regexes:
            import re

            for pattern, given in regexes.items():
                try:
                    self._regexes.append((re.compile(pattern, re.IGNORECASE), given))
                except re.error as error:
                    raise PriceError(f"{source}: not a regular expression: {pattern!r} ({error})") from None
        self.fees = fees
        self.source = source

    def __bool__(self) -> bool:
        return bool(self._exact or self._globs or self._regexes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._exact)

    def match(self, model: Model) -> tuple[Entry, ...] | None:
        """The entries for a model's name, `None` when the layer does not speak of it."""
        name = model.name.strip().lower()
        names = []
        if model.provider:
            provider = model.provider.strip().lower()
            names = [f"{provider}/{name}", f"{provider_key(provider)}/{name}"]
        # OpenRouter's "openai/gpt-4o" is not OpenAI's; without a provider the name says whose it is.
        if "/" not in name or provider_key(model.provider) in DIALECTS:
            names.append(name)
        for spelling in names:
            if spelling in self._exact:
                return self._exact[spelling]
        if self._globs:
            from fnmatch import fnmatchcase

            for pattern, given in self._globs:
                if any(fnmatchcase(spelling, pattern.lower()) for spelling in names):
                    return given
        for regex, given in self._regexes:
            if any(regex.search(spelling) for spelling in names):
                return given
        return None


def build(given: tuple[Entry, ...], model: Model, like: Below, below: Below) -> Rates:
    """The rates that entries make: a schedule on top of what lies below, where they do not cover all of it.

    `like` finds the rates of another model, `below` those of this one in the layers underneath.
    """
    if len(given) == 1 and given[0].rates is not None:
        return given[0].rates.replace(provider=model.provider, model=given[0].rates.model or model.name, own=True)
    segments: list[Segment] = []
    context_window: int | None = None
    # An entry that always applies and stands by itself hides everything below; all others build on it.
    if not any(e.window is ALWAYS and not e.context and (e.card or e.rates or e.like) for e in given):
        under = below(model)
        segments += under.segments
        context_window = under.context_window
    for item in given:
        context_window = item.context_window or context_window
        if item.context:
            variant = Variant(item.context, item.prices, item.window, item.multiply)
            segments = [s._replace(variants=(variant, *s.variants)) for s in segments]
            continue
        if item.rates is not None:
            segments += _within(item.rates.segments, item.window)
        elif item.card is not None:
            segments.append(Segment(item.card, item.window, (), item.source, item.note))
        else:
            base = like(Model("", item.like)) if item.like else below(model)
            if not base.known:
                what = f"like {item.like!r}" if item.like else "changes rates of a model that has none"
                return Rates.unknown(f"{item.source}: {what}: {base.reason}", provider=model.provider, model=model.name)
            segments += _within([_changed(s, item) for s in base.segments], item.window)
            context_window = context_window or base.context_window
    return Rates(
        tuple(segments), provider=model.provider, model=model.name, source=given[-1].source,
        reason="" if segments else "no rates for this date", context_window=context_window, own=True,
    )  # fmt: skip


def with_fees(rates: Rates, fees: Mapping[str, Price]) -> Rates:
    """Rates with default fees for units that their cards do not price themselves."""
    if not fees or not rates.known:
        return rates
    segments = tuple(
        s if s.card.free or s.card.included or not s.card.prices else s._replace(card=_add_missing(s.card, fees))
        for s in rates.segments
    )
    return rates.replace(segments=segments)


def _add_missing(card: RateCard, fees: Mapping[str, Price]) -> RateCard:
    return card.merged({name: fee for name, fee in fees.items() if name not in card.prices})


def _changed(segment: Segment, item: Entry) -> Segment:
    card, variants = segment.card, segment.variants
    if item.multiply is not None:
        card = card.multiplied(item.multiply)
        variants = tuple(
            v._replace(prices=RateCard(v.prices).multiplied(item.multiply).prices) for v in segment.variants
        )
    if item.prices:
        card = card.merged(item.prices)
    note = "; ".join(note for note in (segment.note, item.note) if note)
    return segment._replace(card=card, variants=variants, source=item.source or segment.source, note=note)


def _within(segments: tuple[Segment, ...] | list[Segment], window: Window) -> list[Segment]:
    """Segments that hold only inside a window."""
    if window is ALWAYS:
        return list(segments)
    found = []
    for segment in segments:
        own = segment.window
        start = max((m for m in (own.start, window.start) if m), default=None)
        end = min((m for m in (own.end, window.end) if m), default=None)
        if start is None or end is None or start < end:
            hours = _both(own.hours, window.hours) if own.hours and window.hours else own.hours or window.hours
            if hours or not own.hours:
                found.append(segment._replace(window=Window(start, end, hours, own.days & window.days)))
    return found


Hours = tuple[tuple[time, time], ...]


def _both(left: Hours, right: Hours) -> Hours:
    """The times of day that lie in both."""
    found = []
    for a, b in _stretches(left):
        for c, d in _stretches(right):
            if max(a, c) < min(b, d):
                found.append((_time(max(a, c)), _time(min(b, d))))
    return tuple(found)


def _stretches(hours: Hours) -> Iterator[tuple[int, int]]:
    """Hours as seconds of the day, cut at midnight."""
    for start, end in hours:
        a, b = (t.hour * 3600 + t.minute * 60 + t.second for t in (start, end))
        yield from [(a, b)] if a < b else [(a, 86400), (0, b)]


def _time(seconds: int) -> time:
    return time(seconds // 3600 % 24, seconds // 60 % 60, seconds % 60)


def _spellings(name: str) -> list[str]:
    """A key as it is looked up: `azure:x` as `azure/x`, and the provider in the price list's spelling too."""
    name = name.strip().lower()
    found = [name]
    for mark in ("/", ":"):
        head, sep, rest = name.partition(mark)
        if sep:
            found += [f"{head}/{rest}", f"{provider_key(head)}/{rest}"]
    return list(dict.fromkeys(found))


def _literal(pattern: str) -> int:
    return sum(1 for letter in pattern if letter not in "*?[]")
