"""The rates of one model: what `meter_find_rates` answers with, and the path that prices a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec.structs import astuple

from ..errors import PriceError
from ..records import EMPTY, TOKEN_CLASSES, Cost, CostStatus, TokenUsage
from .cards import Count, Line, Price, RateCard
from .schedule import ALWAYS, FIRST, LAST, NOTHING, Segment, State, Timeline, choose, normalised
from .units import CLASSES, FIELD_UNITS, WIDE, exact, unit

_UNPRICED, _FREE, _PRICED = CostStatus.UNPRICED, CostStatus.FREE, CostStatus.PRICED
_PICKS = 256  # cards kept per model, by moment and request context

Amount = Decimal | int | float | str


class _Pick(NamedTuple):
    """A card chosen for a moment and a context, and what choosing it assumed."""

    card: RateCard
    notes: tuple[str, ...]
    status: CostStatus


class Rates:
    """What one model costs: rate cards by date, time of day and kind of request.

    `known` is False when nothing is known: then `price` answers unpriced, with the reason, or what the policy for
    unpriced calls assumes. `own` is True where the user said what it costs. Built by the price book, or by a
    plugin through `per_million` and `per_1k`. Immutable; safe to share between threads.
    """

    __slots__ = (
        "_name", "_now", "_pick", "_picks", "_reported_first", "_state_at", "context_window", "known", "model",
        "on_unpriced", "own", "provider", "reason", "segments", "source",
    )  # fmt: skip

    def __init__(
        self,
        segments: tuple[Segment, ...] = (),
        *,
        provider: str = "",
        model: str = "",
        source: str = "",
        reason: str = "",
        reported_first: bool = False,
        context_window: int | None = None,
        known: bool | None = None,
        own: bool = False,
        on_unpriced: Callable[[], None] | None = None,
    ) -> None:
        self.segments = segments
        self.provider = provider
        self.model = model
        self._name = model or None
        self.source = source
        self.reason = reason
        self.context_window = context_window
        self.known = bool(segments) if known is None else known
        self.own = own
        self.on_unpriced = on_unpriced  # called for every call that has no price
        self._reported_first = reported_first
        self._picks: dict[tuple[State, tuple[tuple[str, str], ...]], _Pick] = {}
        self._state_at = Timeline(segments)
        # The usual case, rates that never change and have no variants, needs no choosing at all.
        only = len(segments) == 1 and segments[0].window is ALWAYS and not segments[0].variants
        self._pick = self._choose(State(0, ()), ()) if only else None
        # Else the card of plain calls at present, with the time from when until when it is that.
        self._now: tuple[datetime, datetime, _Pick | None] = (LAST, FIRST, None)

    @classmethod
    def per_million(
        cls,
        input: Amount | None = None,
        output: Amount | None = None,
        *,
        cache_read: Amount | None = None,
        cache_write: Amount | None = None,
        cache_write_1h: Amount | None = None,
        reasoning: Amount | None = None,
        input_audio: Amount | None = None,
        output_audio: Amount | None = None,
        input_image: Amount | None = None,
        output_image: Amount | None = None,
        fees: Mapping[str, Amount] = EMPTY,
        model: str = "",
        source: str = "own rates",
    ) -> Rates:
        """Rates in US$ for 1M tokens of each class, and `fees` in US$ a piece (`{"web_searches": "0.01"}`).

        Amounts are strings, Decimals or numbers; a float is read by its shortest decimal form. A class without
        a rate of its own is billed at the rate of the class that contains it. Raises `PriceError`.
        """
        given = {
            "input": input, "output": output, "cache_read": cache_read, "cache_write": cache_write,
            "cache_write_1h": cache_write_1h, "reasoning": reasoning, "input_audio": input_audio,
            "output_audio": output_audio, "input_image": input_image, "output_image": output_image,
        }  # fmt: skip
        prices = {CLASSES[word]: Price(amount(value, word)) for word, value in given.items() if value is not None}
        prices.update(fee_prices(fees))
        if not prices:
            raise PriceError("no rate given: name at least input=… or output=…")
        return cls((Segment(RateCard(prices), source=source),), model=model, source=source, own=True)

    @classmethod
    def per_1k(cls, blended: Amount, *, model: str = "", source: str = "own rates") -> Rates:
        """One blended rate in US$ for 1,000 tokens, input and output alike. Raises `PriceError`."""
        price = Price(amount(blended, "per_1k").scaleb(3, WIDE))
        card = RateCard({"input_tokens": price, "output_tokens": price})
        return cls((Segment(card, source=source),), model=model, source=source, own=True)

    @classmethod
    def free_of_charge(cls, reason: str, *, provider: str = "", model: str = "", source: str = "") -> Rates:
        card = RateCard({}, free=True)
        return cls((Segment(card, source=source),), provider=provider, model=model, source=source, reason=reason)

    @classmethod
    def unknown(cls, reason: str, *, provider: str = "", model: str = "", reported_first: bool = False) -> Rates:
        return cls((), provider=provider, model=model, reason=reason, reported_first=reported_first)

    def replace(self, **changes: Any) -> Rates:
        """These rates with some arguments of the constructor changed."""
        given: dict[str, Any] = {
            "segments": self.segments, "provider": self.provider, "model": self.model, "source": self.source,
            "reason": self.reason, "reported_first": self._reported_first, "context_window": self.context_window,
            "known": self.known, "own": self.own, "on_unpriced": self.on_unpriced,
        }  # fmt: skip
        return Rates(**{**given, **changes})

    def noted(self, *notes: str) -> Rates:
        """These rates with assumptions added, so that what they price counts as estimated."""
        return self.replace(
            segments=tuple(s._replace(note="; ".join(n for n in (s.note, *notes) if n)) for s in self.segments)
        )

    def __repr__(self) -> str:
        name = f"{self.provider}/{self.model}" if self.provider else self.model
        if not self.known:
            return f"<Rates {name} unknown: {self.reason}>"
        return f"<Rates {name} {self.source} {self.card!r}>"

    # --------------------------------------------------------------------------------------------- prices

    def price(self, usage: TokenUsage, at: datetime, context: Mapping[str, str] = EMPTY) -> Cost:
        """The list price of one call made at `at` (naive means UTC). Never raises, whatever the usage says."""
        try:
            pick = self._pick
            if pick is None or context:
                since, until, pick = self._now
                if context or at.tzinfo is not UTC or not since <= at < until:
                    pick = self.pick(at, context)
            if pick is None or not pick.card.quick or self._reported_first:
                return self._itemised(pick, usage)
            i, o, r, w, h, s, ia, oa, ii, oi, units, missing, _, reported = astuple(usage)
            card = pick.card
            if missing or (o and card.input_only):
                return self._itemised(pick, usage)
            fees = 0
            if units:
                for name, count in units.items():
                    fee = card.fees.get(name)
                    if fee is None or type(count) is not int or count < 0:
                        return self._itemised(pick, usage)
                    fees += fee * count
            ci, co, cr, cw, ch, cs, cia, coa, cii, coi = (
                card.plan if i <= card.first_tier else card.plan_for(i)
            ).coefficients
            parts = r | w | h | s | ia | oa | ii | oi
            if not parts:
                spent_in, spent_out = i * ci, o * co
            elif (
                parts < 0 or i < r + w + ia + ii or w < h or o < s + oa + oi
                or (card.loose and (ia or oa or oi)) or (h and card.loose_hour)
                or (card.joined and r and (ia or ii))
            ):  # fmt: skip
                return self._itemised(pick, usage)
            else:
                spent_in = i * ci + r * cr + w * cw + h * ch + ia * cia + ii * cii
                spent_out = o * co + s * cs + oa * coa + oi * coi
            total = spent_in + spent_out + fees
            if not total or i < 0 or o < 0 or type(total) is not int:
                return self._itemised(pick, usage)
            return Cost(
                pick.status, total, total, spent_in, spent_out, card.card_id, self._name, (), pick.notes, None, reported
            )  # fmt: skip
        except Exception:
            # Counts that are not numbers at all: what can be read of them is priced, and said to be an estimate.
            return self._salvaged(usage, at, context)

    def _salvaged(self, usage: TokenUsage, at: datetime, context: Mapping[str, str]) -> Cost:
        try:
            return self._itemised(self.pick(at, context), usage)
        except Exception as error:
            return Cost(_UNPRICED, model=self._name, reason=f"invalid usage: {type(error).__name__}: {error}")

    def pick(self, at: datetime, context: Mapping[str, str] = EMPTY) -> _Pick | None:
        """The card for a moment and a request, with what choosing it assumed; `None` when no rates apply."""
        if at.tzinfo is not UTC:
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        state = self._state_at(at)
        key = (state, tuple(context.items()))
        pick = self._picks.get(key)
        if pick is None and state != NOTHING:
            pick = self._choose(*key)
            if len(self._picks) >= _PICKS:
                self._picks.clear()
            self._picks[key] = pick
        if not context and (stretch := self._state_at.stretch(at)) is not None:
            self._now = (*stretch, pick)
        return pick

    def _choose(self, state: State, context: tuple[tuple[str, str], ...]) -> _Pick:
        segment = self.segments[state.segment]
        card, notes = choose(segment, state.variants, normalised(context))
        if segment.note:
            notes.insert(0, segment.note)
        return _Pick(card, tuple(notes), CostStatus.ESTIMATED if notes else _PRICED)

    def lines(self, usage: TokenUsage, at: datetime, context: Mapping[str, str] = EMPTY) -> list[Line]:
        """The bill behind `price`, one line for each unit that was billed; the lines add up to the list price."""
        pick = self.pick(at, context)
        return pick.card.lines(_counts(usage)[0])[0] if pick else []

    def _itemised(self, pick: _Pick | None, usage: TokenUsage) -> Cost:
        """The same price the long way: for fees, partial rates, and usage that contradicts itself."""
        reported = usage.reported_pico
        name = self._name
        if self._reported_first and reported is not None:
            return Cost(CostStatus.REPORTED, reported, reported, model=name, reported_pico=reported)
        if pick is None:
            reason = self.reason or "no rates for this date"
            if self.on_unpriced is not None:
                self.on_unpriced()
            return Cost(_UNPRICED, model=name, reason=reason, reported_pico=reported)
        card = pick.card
        if card.free or card.included:
            status = CostStatus.INCLUDED if card.included else _FREE
            return Cost(status, 0, 0, 0, 0, card.card_id, name, (), pick.notes, self.reason or None, reported)
        counts, notes = _counts(usage)
        lines, missing, inferred = card.lines(counts)
        notes += inferred or usage.problems
        unseen = [c for c in usage.missing if _matters(c, card)]
        notes += [f"{c} not seen" for c in unseen]
        total = sum(line.pico for line in lines)
        if not total and (missing or unseen):
            reason = f"no rate for {', '.join(missing)}" if missing else f"{', '.join(unseen)} not seen"
            if not card.prices:
                reason = "no rates in the price list"
            return Cost(_UNPRICED, None, None, 0, 0, card.card_id, name, missing, (), reason, reported)
        assumptions = (*pick.notes, *notes)
        if missing:
            status = CostStatus.PARTIAL
        elif lines and not total:
            status = _FREE
        else:
            status = CostStatus.ESTIMATED if assumptions else _PRICED
        spent_in = sum(line.pico for line in lines if line.direction == "input" and unit(line.unit).tokens)
        spent_out = sum(line.pico for line in lines if line.direction == "output" and unit(line.unit).tokens)
        return Cost(status, total, total, spent_in, spent_out, card.card_id, name, missing, assumptions, None, reported)

    # ------------------------------------------------------------------------------------------ reading

    @property
    def card(self) -> RateCard | None:
        """The card of this moment for an ordinary request."""
        pick = self._pick or self.pick(datetime.now(UTC))
        return pick.card if pick else None

    def cards(self) -> Iterator[RateCard]:
        """Every card that may price a call of this model, variants of requests seen so far included."""
        yield from (segment.card for segment in self.segments)
        yield from (pick.card for pick in list(self._picks.values()))

    def rate(self, word: str) -> Decimal | None:
        """US$ for 1M tokens of a class today, own or inherited (`"cache_read"`); `None` without one."""
        card = self.card
        return card.rate(CLASSES.get(word, word)) if card else None

    @property
    def input(self) -> Decimal | None:
        return self.rate("input")

    @property
    def output(self) -> Decimal | None:
        return self.rate("output")

    @property
    def cache_read(self) -> Decimal | None:
        return self.rate("cache_read")

    @property
    def cache_write(self) -> Decimal | None:
        return self.rate("cache_write")

    @property
    def reasoning(self) -> Decimal | None:
        return self.rate("reasoning")

    @property
    def free(self) -> bool:
        card = self.card
        return card is not None and card.free

    @property
    def blended_per_1k(self) -> Decimal | None:
        """US$ for 1,000 tokens, half of them input and half output; the input rate where output has none."""
        rates = [rate for rate in (self.input, self.output) if rate is not None]
        if not rates:
            return None
        return WIDE.divide(sum(rates, Decimal(0)), Decimal(1000 * len(rates)))


class FormError(PriceError):
    """Something written is wrong in form; `where` is the path to it, so that a file's reader can name the line."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where


def amount(value: Amount, where: str) -> Decimal:
    """A price as a Decimal. Raises `PriceError` for what is no number, negative or not finite."""
    try:
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except (ArithmeticError, TypeError, ValueError):
        raise FormError(where, f"not an amount: {value!r}") from None
    if isinstance(value, bool) or not number.is_finite() or number < 0:
        raise FormError(where, f"not an amount: {value!r}")
    return number


def fee_prices(fees: Mapping[str, Amount], where: str = "fees") -> dict[str, Price]:
    """Fees in US$ a piece as prices by unit."""
    prices = {}
    for name, fee in fees.items():
        of = unit(name)
        prices[of.name] = Price(WIDE.multiply(amount(fee, f"{where}.{name}"), Decimal(of.per)))
    return prices


def _matters(missing: str, card: RateCard) -> bool:
    """Whether a class that nobody saw could have changed the price."""
    return missing not in TOKEN_CLASSES or unit(missing).name in card.prices


def _counts(usage: TokenUsage) -> tuple[dict[str, Count], list[str]]:
    """The counts by unit, positive ones only, and a note for each that was not."""
    counts: dict[str, Count] = {}
    notes: list[str] = []
    for name, value in zip(FIELD_UNITS, astuple(usage), strict=False):
        if type(value) is int and value > 0:
            counts[name] = value
        elif value != 0 or type(value) is not int:
            _count(name, value, counts, notes)
    for name, value in usage.units.items():
        _count(name, value, counts, notes)
    for billed, name in _BILLED:
        # Cohere counts what it processed and what it bills; the price goes by the latter.
        if billed in counts:
            counts[name] = counts.pop(billed)
    return counts, notes


_BILLED = (("billed_input_tokens", "input_tokens"), ("billed_output_tokens", "output_tokens"))


def _count(name: str, value: object, counts: dict[str, Count], notes: list[str]) -> None:
    name = unit(name).name
    count = exact(value)
    if count is None or count < 0:
        notes.append(f"{name} {value!r} is not a count, taken as 0")
    else:
        counts[name] = max(count, counts.get(name, 0))
