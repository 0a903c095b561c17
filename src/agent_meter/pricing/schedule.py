"""When a rate card applies: dated segments, times of day, weekdays, and the variants that a request asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import NamedTuple

from .cards import Price, RateCard

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(NamedTuple):
    """A half-open stretch of time in UTC; within it, the hours of day and the weekdays (Monday is 0) that count."""

    start: datetime | None = None
    end: datetime | None = None
    hours: tuple[tuple[time, time], ...] = ()
    days: frozenset[int] = frozenset(range(7))

    @property
    def daily(self) -> bool:
        return bool(self.hours) or len(self.days) < 7

    def active(self, at: datetime) -> bool:
        if (self.start is not None and at < self.start) or (self.end is not None and at >= self.end):
            return False
        if len(self.days) < 7 and at.weekday() not in self.days:
            return False
        if not self.hours:
            return True
        now = at.time()
        return any(a <= now < b if a < b else now >= a or now < b for a, b in self.hours)

    def __str__(self) -> str:
        parts = []
        if self.start:
            parts.append(f"from {self.start:%Y-%m-%d}")
        if self.end:
            parts.append(f"until {self.end:%Y-%m-%d}")
        parts += [f"{a:%H:%M}-{b:%H:%M} UTC" for a, b in self.hours]
        if len(self.days) < 7:
            parts.append("on " + " ".join(DAYS[day] for day in sorted(self.days)))
        return ", ".join(parts) or "always"


ALWAYS = Window()


class Variant(NamedTuple):
    """Rates that replace the card's when the request's context has all of `when`; or a factor on all of them."""

    when: tuple[tuple[str, str], ...]
    prices: Mapping[str, Price]
    window: Window = ALWAYS
    factor: Decimal | None = None


class Segment(NamedTuple):
    """A card and when it applies; of several active ones the last in the schedule counts."""

    card: RateCard
    window: Window = ALWAYS
    variants: tuple[Variant, ...] = ()
    source: str = ""
    note: str = ""  # an assumption that comes with the rates


class State(NamedTuple):
    """Which segment and which of its variants are active at a moment."""

    segment: int
    variants: tuple[int, ...]


NOTHING = State(-1, ())


def state_at(segments: tuple[Segment, ...], at: datetime) -> State:
    for index in range(len(segments) - 1, -1, -1):
        if segments[index].window.active(at):
            variants = segments[index].variants
            return State(index, tuple(n for n, v in enumerate(variants) if v.window.active(at)))
    return NOTHING


def timeline(segments: tuple[Segment, ...]) -> tuple[tuple[datetime, ...], tuple[State, ...]] | None:
    """The moments at which the state changes and the states between them, one more than moments.

    `None` when something depends on the time of day: then every call has to look.
    """
    windows = [s.window for s in segments] + [v.window for s in segments for v in s.variants]
    if any(window.daily for window in windows):
        return None
    moments = sorted({edge for w in windows for edge in (w.start, w.end) if edge is not None})
    first = datetime.min.replace(tzinfo=UTC)
    return tuple(moments), tuple(state_at(segments, at) for at in (first, *moments))


# What providers call the ordinary tier: no variant has to match it.
_ORDINARY = ("", "default", "standard", "auto", "on_demand", "realtime", "normal", "none", "global", "not_available")
# Context that changes prices where it is offered; anything else in a context is left alone unless a variant asks.
_PRICED_CONTEXT = ("service_tier", "processing", "speed", "inference_geo", "route")


def normalised(context: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A context in the words of the price list: lower case, and a tier called batch is batch processing."""
    words = {str(key).lower(): str(value).strip().lower() for key, value in context}
    if words.get("service_tier") in ("batch", "batches"):
        words["processing"] = "batch"
        del words["service_tier"]
    return words


def choose(segment: Segment, active: tuple[int, ...], context: dict[str, str]) -> tuple[RateCard, list[str]]:
    """The card for a request: the segment's own with matching variants laid over it, the first one first.

    A factor counts only where nothing before it has answered the same question, and ends the question.
    Second, what the context asked for and no variant offers: there the standard rate is an assumption.
    """
    prices: dict[str, Price] = {}
    answered: set[str] = set()
    settled: set[str] = set()
    factors: list[Decimal] = []
    for index in active:
        variant = segment.variants[index]
        keys = {key for key, _ in variant.when}
        if keys & settled or not all(context.get(key) == value for key, value in variant.when):
            continue
        if variant.factor is None:
            for name, price in variant.prices.items():
                prices.setdefault(name, price)
        elif not keys & answered:
            factors.append(variant.factor)
            settled |= keys
        answered |= keys
    notes = [
        f"no rates for {key}={context[key]}; standard rates used"
        for key in _PRICED_CONTEXT
        if key in context and key not in answered and context[key] not in _ORDINARY
    ]
    if segment.card.free or segment.card.included:
        notes = []
    card = segment.card.merged(prices) if prices else segment.card
    for factor in factors:
        card = card.multiplied(factor, fees=False)
    return card, notes
