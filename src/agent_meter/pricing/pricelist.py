"""The installed price list with our corrections on top: what a model costs when the user says nothing."""

from __future__ import annotations

from ..records import Model
from . import genai
from .rates import Rates
from .resolver import resolve


def find(model: Model) -> Rates:
    """The rates of a model by the price list, corrected where we know better."""
    found = resolve(model, genai.bundled())
    if isinstance(found, str):
        return Rates.unknown(found, provider=model.provider, model=model.name)
    segments = genai.segments_of(found.model, found.provider)
    if not segments:
        return Rates.unknown("no rate in the price list", provider=found.provider.id, model=found.model.id)
    rates = Rates(
        segments, provider=found.provider.id, model=found.model.id, source=genai.source(),
        context_window=found.model.context_window,
    )  # fmt: skip
    return rates.replace(note="; ".join(found.notes)) if found.notes else rates
