"""When a rate card applies: dated segments, times of day, weekdays, and the variants that a request asks for."""

from __future__ import annotations

from bisect import bisect_right
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

    def spans(self, at: datetime) -> bool:
        """Whether a moment lies between start and end, whatever the hour."""
        return (self.start is None or at >= self.start) and (self.end is None or at < self.end)

    def recurs(self, weekday: int, now: time) -> bool:
        """Whether the window is open at that hour of that day of the week."""
        if weekday not in self.days:
            return False
        return not self.hours or any(a <= now < b if a < b else now >= a or now < b for a, b in self.hours)

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
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def state_at(segments: tuple[Segment, ...], at: datetime) -> State:
    return _state(segments, at, at.weekday(), at.time())


def _state(segments: tuple[Segment, ...], at: datetime, weekday: int, now: time) -> State:
    for index in range(len(segments) - 1, -1, -1):
        window = segments[index].window
        if window.spans(at) and window.recurs(weekday, now):
            variants = segments[index].variants
            active = (n for n, v in enumerate(variants) if v.window.spans(at) and v.window.recurs(weekday, now))
            return State(index, tuple(active))
    return NOTHING


class Timeline:
    """The state of a schedule at any moment, by two binary searches: for the stretch of time, and within the day."""

    __slots__ = ("_days", "_edges", "_moments", "_segments", "_states")

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        windows = [s.window for s in segments] + [v.window for s in segments for v in s.variants]
        self._segments = segments
        self._moments = sorted({edge for w in windows for edge in (w.start, w.end) if edge is not None})
        self._edges = sorted({0, *(_second(edge) for w in windows for pair in w.hours for edge in pair)})
        self._days: dict[tuple[int, int], list[State]] = {}
        # Where nothing depends on the day, one state holds from moment to moment.
        self._states: list[State] | None = None
        if not any(window.daily for window in windows):
            self._states = [self._state(stretch, 0, 0) for stretch in range(len(self._moments) + 1)]

    def __call__(self, at: datetime) -> State:
        stretch = bisect_right(self._moments, at)
        if self._states is not None:
            return self._states[stretch]
        weekday = at.weekday()
        day = self._days.get((stretch, weekday))
        if day is None:
            day = self._days[stretch, weekday] = [self._state(stretch, weekday, edge) for edge in self._edges]
        return day[bisect_right(self._edges, at.hour * 3600 + at.minute * 60 + at.second) - 1]

    def stretch(self, at: datetime) -> tuple[datetime, datetime] | None:
        """From when until when (exclusive) the state is that of `at`; None where it depends on the time of day."""
        if self._states is None:
            return None
        moments = self._moments
        place = bisect_right(moments, at)
        return moments[place - 1] if place else FIRST, moments[place] if place < len(moments) else LAST

    def _state(self, stretch: int, weekday: int, second: int) -> State:
        at = self._moments[stretch - 1] if stretch else FIRST
        return _state(self._segments, at, weekday, time(second // 3600, second // 60 % 60, second % 60))


def _second(moment: time) -> int:
    return moment.hour * 3600 + moment.minute * 60 + moment.second


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
