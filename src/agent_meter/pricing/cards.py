"""Rate cards: one set of rates, content-addressed, compiled once to an integer dot product.

Counts overlap (cached input is a part of input), prices do not: each token is billed at the rate of the most
specific priced unit that contains it. The count that is left to a unit, its leaf, is its own count less the
leaves of its priced parts. Leaves are linear in the counts, so the sum over price x leaf equals a dot product
over counts, whose coefficients are worked out when the card is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import gcd
from typing import Any, NamedTuple

from ..errors import PriceError
from ..records import EMPTY, PICO, FrozenMap
from .units import FIELD_UNITS, WIDE, Unit, divide, unit

Count = int | Decimal

# A cached part of a modality; few replies report it, so it is inferred where a card prices it.
_JOINS = {f"cache_{m}_read_tokens": f"input_{m}_tokens" for m in ("audio", "image", "video")}

# Units whose own rate usually differs a lot from that of the unit they fall back to.
_OWN_RATE_EXPECTED = (
    "input_audio_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "input_video_tokens",
    "output_video_tokens",
)
_HOUR = "cache_write_1h_tokens"


class Price(NamedTuple):
    """US dollars for `unit.per` pieces. `tiers`: above so many input tokens in one call, all pay this instead."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    def at(self, input_tokens: Count) -> Decimal:
        price = self.base
        for start, tier in self.tiers:
            if input_tokens > start:
                price = tier
        return price


class Line(NamedTuple):
    """One unit of a bill: `quantity` pieces at `usd` for `per` of them, `pico` in all (1e-12 US$)."""

    unit: str
    quantity: Count
    usd: Decimal
    per: int
    pico: int
    direction: str


class Plan(NamedTuple):
    """Coefficients in pico-dollars for the ten token fields, exact where every one is an integer."""

    coefficients: tuple[int, ...]
    exact: bool


class RateCard:
    """One set of rates. Equal rates make equal cards: `card_id` is a hash of the canonical JSON of the rates."""

    __slots__ = (
        "_id", "_order", "_parts", "_plans", "_starts", "fees", "first_tier", "free", "included", "input_only",
        "joined", "loose", "loose_hour", "minimums", "plan", "prices", "quick",
    )  # fmt: skip

    def __init__(
        self,
        prices: Mapping[str, Price],
        *,
        free: bool = False,
        included: bool = False,
        minimums: Mapping[str, int] = EMPTY,
    ) -> None:
        self.prices: Mapping[str, Price] = FrozenMap(prices)
        self.minimums: Mapping[str, int] = FrozenMap(minimums)
        self.included = included
        zero = all(not price.base and not any(p for _, p in price.tiers) for price in prices.values())
        self.free = not included and (free or (bool(prices) and zero))
        units = [unit(name) for name in self.prices]
        self._order: tuple[Unit, ...] = tuple(sorted(units, key=lambda u: (-len(u.dimensions), u.name)))
        self._parts = tuple(
            (own, tuple(part.name for part in self._order if part is not own and own.covers(part)))
            for own in self._order
        )
        self._id: str | None = None
        self._starts = tuple(sorted({start for price in self.prices.values() for start, _ in price.tiers}))
        self._plans: dict[int, Plan] = {}
        self.first_tier: float = self._starts[0] if self._starts else float("inf")
        self.plan = self._compile(0)
        self.input_only = "output_tokens" not in self.prices
        # Fees that need no thought: whole pico-dollars a piece, and no part of anything else.
        self.fees = {
            u.name: rate
            for u in units
            if dict(u.dimensions)["family"] in ("rerank", "tool_calls", u.name)
            for rate, under in (pico_rate(self.prices[u.name].base, u.per),)
            if under == 1 and not self.prices[u.name].tiers
        }
        self.loose = any(name not in self.prices for name in _OWN_RATE_EXPECTED)
        self.loose_hour = _HOUR not in self.prices and "cache_write_tokens" in self.prices
        self.joined = any(name in self.prices for name in _JOINS)
        # Whether usage in token fields alone is priced by the dot product; everything else is itemised.
        self.quick = (
            not (self.free or included) and "input_tokens" in self.prices and "requests" not in self.prices
            and self.plan.exact and all(self._compile(start + 1).exact for start in self._starts)
        )  # fmt: skip

    def __repr__(self) -> str:
        rates = ", ".join(f"{name} {price.base:f}" for name, price in self.prices.items())
        return f"<RateCard {self.card_id} {rates or ('free' if self.free else 'no rates')}>"

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, RateCard) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.card_id)

    # ------------------------------------------------------------------------------------------ identity

    @property
    def canonical(self) -> str:
        """The rates as JSON: units sorted, prices as plain decimals, so that equal rates have equal text."""
        items = []
        for name in sorted(self.prices):
            price = self.prices[name]
            above = ",".join(f'[{start},"{plain(tier)}"]' for start, tier in price.tiers)
            above = f'"above":[{above}],' if above else ""
            items.append(f'"{name}":{{{above}"per":{unit(name).per},"usd":"{plain(price.base)}"}}')
        extra = [f'"{flag}":true' for flag in ("free", "included") if getattr(self, flag)]
        if self.minimums:
            extra.append('"minimums":{' + ",".join(f'"{k}":{v}' for k, v in sorted(self.minimums.items())) + "}")
        return "{" + ",".join([*extra, '"units":{' + ",".join(items) + "}"]) + "}"

    @property
    def card_id(self) -> str:
        if self._id is None:
            from hashlib import sha256

            self._id = sha256(self.canonical.encode()).hexdigest()[:12]
        return self._id

    @classmethod
    def from_json(cls, text: str) -> RateCard:
        """The card that `canonical` describes, so that a stored card prices again offline."""
        import json

        try:
            data: dict[str, Any] = json.loads(text)
            prices = {
                name: Price(Decimal(item["usd"]), tuple((int(s), Decimal(p)) for s, p in item.get("above", ())))
                for name, item in data["units"].items()
            }
            for name, item in data["units"].items():
                if item["per"] != unit(name).per:
                    raise PriceError(f"{name} is priced per {unit(name).per:,}, the card says {item['per']:,}")
        except (KeyError, TypeError, ArithmeticError, ValueError) as error:
            raise error if isinstance(error, PriceError) else PriceError(f"not a rate card: {error}") from None
        free, included = data.get("free", False), data.get("included", False)
        return cls(prices, free=free, included=included, minimums=data.get("minimums", EMPTY))

    # ---------------------------------------------------------------------------------------- derivation

    def merged(self, prices: Mapping[str, Price]) -> RateCard:
        """This card with some of its rates replaced or added."""
        free = self.free and not prices
        return RateCard({**self.prices, **prices}, free=free, included=self.included, minimums=self.minimums)

    def multiplied(self, factor: Decimal, *, fees: bool = True) -> RateCard:
        """This card with every rate times `factor`: a discount, a regional uplift; on request only tokens."""
        by = WIDE.multiply
        prices = {
            name: Price(by(price.base, factor), tuple((start, by(tier, factor)) for start, tier in price.tiers))
            if fees or unit(name).tokens
            else price
            for name, price in self.prices.items()
        }
        return RateCard(prices, free=self.free, included=self.included, minimums=self.minimums)

    def rate(self, name: str, input_tokens: int = 0) -> Decimal | None:
        """US$ for one million tokens (or `per` pieces) of a unit, own or inherited; `None` without one."""
        wanted = unit(name)
        covering = [candidate for candidate in self._order if candidate.covers(wanted)]
        if covering:
            return self.prices[covering[0].name].at(input_tokens)
        return Decimal(0) if self.free or self.included else None

    # ----------------------------------------------------------------------------------------- arithmetic

    def plan_for(self, input_tokens: int) -> Plan:
        """The coefficients for a call of so many input tokens."""
        tier = 0
        for start in self._starts:
            if input_tokens > start:
                tier = start + 1
        return self._plans[tier]

    def _compile(self, input_tokens: int) -> Plan:
        rows: dict[str, dict[str, int]] = {}
        sums = dict.fromkeys(FIELD_UNITS, (0, 1))
        for own in self._order:
            if not own.tokens:
                continue
            row = {own.name: 1}
            for name, part in rows.items():
                if own.covers(unit(name)):
                    for k, c in part.items():
                        row[k] = row.get(k, 0) - c
            rows[own.name] = row
            n, d = pico_rate(self.prices[own.name].at(input_tokens), own.per)
            for k, c in row.items():
                if k in sums:
                    total, under = sums[k]
                    sums[k] = (total * d + c * n * under, under * d)
        coefficients = []
        whole = True
        for total, under in sums.values():
            value, rest = divmod(total, under)
            coefficients.append(value)
            whole = whole and not rest
        plan = Plan(tuple(coefficients), whole)
        self._plans[input_tokens] = plan
        return plan

    def lines(self, counts: Mapping[str, Count]) -> tuple[list[Line], tuple[str, ...], list[str]]:
        """Counts by unit as a bill: its lines, the units without a rate, and what had to be inferred."""
        notes: list[str] = []
        counts = dict(counts)
        for name, least in self.minimums.items():
            if counts.get(name):
                counts[name] = max(counts[name], least)
        if "requests" in self.prices:
            counts.setdefault("requests", 1)
        if self.joined and counts.get("cache_read_tokens"):
            self._split_cached(counts, notes)
        self._infer_wholes(counts)
        leaves = self._leaves(counts, notes)
        input_tokens = counts.get("input_tokens", 0)
        lines = []
        for own in reversed(self._order):
            quantity = leaves[own.name]
            if not quantity:
                continue
            usd = self.prices[own.name].at(input_tokens)
            n, d = pico_rate(usd, own.per)
            count, under = quantity.as_integer_ratio()
            lines.append(Line(own.name, quantity, usd, own.per, divide(n * count, d * under), own.direction))
        missing = []
        for name, number in counts.items():
            if not number or name in self.prices:
                continue
            wanted = unit(name)
            covering = next((own.name for own in self._order if own.covers(wanted)), None)
            if covering is None:
                missing.append(name)
            elif name in _OWN_RATE_EXPECTED or (name == _HOUR and self.loose_hour):
                notes.append(f"{name} at the rate of {covering}")
        return lines, tuple(missing), notes

    def _split_cached(self, counts: dict[str, Count], notes: list[str]) -> None:
        """Where cached audio has a rate and no count: the cache is taken as text until no text is left."""
        parts = [(join, whole) for join, whole in _JOINS.items() if counts.get(whole)]
        open_joins = [(join, whole) for join, whole in parts if join in self.prices and join not in counts]
        if not open_joins:
            return
        known = sum(counts.get(join, 0) for join, _ in parts)
        text = counts.get("input_tokens", 0) - sum(counts[whole] for _, whole in parts)
        over = counts["cache_read_tokens"] - known - max(0, text)
        for join, whole in open_joins:
            take: Count = max(0, min(over, counts[whole]))
            counts[join] = take
            over -= take
            notes.append(f"{join} not seen, taken as {take:,}")

    def _infer_wholes(self, counts: dict[str, Count]) -> None:
        """A priced unit that nobody counted, though parts of it were: the sum of its largest parts."""
        for own in self._order:
            if counts.get(own.name):
                continue
            parts = [u for name, count in counts.items() if count and own.covers(u := unit(name))]
            largest = [u for u in parts if not any(v is not u and v.covers(u) for v in parts)]
            if largest:
                counts[own.name] = _sum(counts[u.name] for u in largest)

    def _leaves(self, counts: Mapping[str, Count], notes: list[str]) -> dict[str, Count]:
        leaves: dict[str, Count] = {}
        for own, within in self._parts:
            count = counts.get(own.name, 0)
            parts = [name for name in within if leaves[name]]
            leaf = _minus(count, _sum(leaves[name] for name in parts)) if parts else count
            if leaf < 0:
                notes.append(f"{' + '.join(parts)} exceed {own.name} {count:,} by {-leaf:,}; the rest of it taken as 0")
                leaf = 0
            leaves[own.name] = leaf
        return leaves


def pico_rate(usd: Decimal, per: int) -> tuple[int, int]:
    """The pico-dollars of one piece as a reduced fraction, exact whatever the decimal context is."""
    n, d = usd.as_integer_ratio()
    n, d = n * PICO, d * per
    common = gcd(n, d)
    return n // common, d // common


def plain(number: Decimal) -> str:
    """A decimal without exponent or trailing zeros; not through `normalize`, which obeys the context."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sum(counts: Any) -> Count:
    total: Count = 0
    for count in counts:
        total = total + count if isinstance(total, int) and isinstance(count, int) else WIDE.add(Decimal(total), count)
    return total


def _minus(left: Count, right: Count) -> Count:
    if isinstance(left, int) and isinstance(right, int):
        return left - right
    return WIDE.subtract(Decimal(left), Decimal(right))
