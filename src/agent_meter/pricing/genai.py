"""The price list of genai-prices as rate cards.

Its data and its matching are used, its calculator is not: that takes 40-120 µs a call, obeys the decimal context
of the caller, and answers 0 for units it has no rate for. Importing this module imports genai-prices (0.2 s),
so only the price book does, when it first has to look a model up.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from genai_prices.data_units import unit_data
from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from .cards import Price, RateCard
from .schedule import ALWAYS, Segment, Variant, Window
from .units import WIDE

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_UNIT_OF: dict[str, str] = {raw.get("price_key", name): name for name, raw in unit_data.items()}
_GRAIN = Decimal(1).scaleb(-12)  # finer digits than these are float noise of the list's own sources

# Groq bills at least ten seconds of a transcription; the list's own calculator has this as code, not as data.
_WHISPER = {"audio_seconds": 10, "input_audio_seconds": 10}
_LEAST = {("groq", "whisper-large-v3"): _WHISPER, ("groq", "whisper-large-v3-turbo"): _WHISPER}


@cache
def bundled() -> dict[str, Provider]:
    """The providers of the installed price list by id, in its order, untouched by genai-prices' own updater."""
    from genai_prices.data import providers

    return {provider.id: provider for provider in providers}


@cache
def source() -> str:
    return f"genai-prices {version('genai-prices')}"


def segments_of(model: ModelInfo, provider: Provider, *, listed_in: str = "") -> tuple[Segment, ...]:
    """A model of the list as a schedule; empty when the list has no price and does not say that it is free.

    A model borrowed from another provider (Azure's from OpenAI's list) comes without its variants: what the
    lender asks for batch or priority says nothing about the borrower.
    """
    own = any(model is candidate for candidate in provider.models)
    variants = tuple(
        Variant(_lower(variant.when), _prices(variant.prices), _window(variant.constraint))
        for variant in (model.price_variants or () if own else ())
    )
    given = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    least = _LEAST.get((provider.id, model.id), {})
    said_free = model.id.endswith(":free")
    segments = []
    for index, item in enumerate(given):
        prices = _prices(item.prices)
        # Where no condition holds, the list takes its first price.
        window = _window(item.constraint) if index else ALWAYS
        card = RateCard(prices, free=said_free and not prices, minimums=least)
        segments.append(Segment(card, window, variants, listed_in or source()))
    return tuple(segments) if said_free or any(segment.card.prices for segment in segments) else ()


def _prices(given: ModelPrice) -> dict[str, Price]:
    prices = {}
    for key, value in given.__dict__.items():
        name = _UNIT_OF.get(key)
        if value is None or name is None:
            continue
        if isinstance(value, TieredPrices):
            prices[name] = Price(_clean(value.base), tuple((tier.start, _clean(tier.price)) for tier in value.tiers))
        else:
            prices[name] = Price(_clean(value))
    return prices


def _lower(when: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key.lower(), value.lower()) for key, value in when.items()))


def _clean(number: Decimal) -> Decimal:
    exponent = number.as_tuple().exponent
    return number.quantize(_GRAIN, context=WIDE) if isinstance(exponent, int) and exponent < -12 else number


def _window(constraint: StartDateConstraint | TimeOfDateConstraint | None) -> Window:
    if isinstance(constraint, StartDateConstraint):
        return Window(start=datetime.combine(constraint.start_date, time(), UTC))
    if isinstance(constraint, TimeOfDateConstraint):
        return Window(hours=((_utc(constraint.start_time), _utc(constraint.end_time)),))
    return ALWAYS


def _utc(moment: time) -> time:
    if moment.tzinfo is None:
        return moment
    return datetime.combine(date(1970, 1, 1), moment).astimezone(UTC).time()
