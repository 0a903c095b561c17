"""The installed price list with our corrections on top: what a model costs when the user says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..records import Model
from . import genai
from .cards import Price
from .entries import Entry, entry
from .layers import Layer, build, with_fees
from .rates import FormError, Rates
from .resolver import Found, resolve
from .schedule import Segment, Variant

if TYPE_CHECKING:
    from genai_prices.types import Provider

CORRECTIONS = Path(__file__).with_name("corrections.toml")


class Corrections(NamedTuple):
    """Dated rates, request variants and fees that stand above a price list."""

    layer: Layer
    variants: tuple[tuple[str, Variant], ...]  # a glob over provider/name, and what it adds

    def variants_for(self, name: str) -> tuple[Variant, ...]:
        return tuple(variant for glob, variant in self.variants if fnmatchcase(name, glob))


@cache
def corrections() -> Corrections:
    """The corrections that are shipped, each with its source and date."""
    import tomllib
    from decimal import Decimal

    from .sources import document

    tables = tomllib.loads(CORRECTIONS.read_text(encoding="utf-8"), parse_float=Decimal)
    variants = []
    for table in tables.pop("variant", ()):
        rest = {key: value for key, value in table.items() if key != "models"}
        given: Entry = entry(rest, "variant", "corrections")
        if given.multiply is None or not given.context:
            raise FormError("variant", f"needs context and multiply: {table!r}")
        variants.append((table["models"], Variant(given.context, {}, given.window, given.multiply)))
    return Corrections(document(tables, "corrections"), tuple(variants))


class PriceList:
    """A price list by provider, and the corrections above it. Finding is pure: nothing is remembered here."""

    def __init__(self, providers: Mapping[str, Provider], source: str, corrected: Corrections | None) -> None:
        self.providers = dict(providers)
        self.source = source
        self.corrected = corrected

    def find(self, model: Model) -> Rates:
        """The rates of a model by the list, corrected where we know better."""
        return self._find(model, 4)

    def _find(self, model: Model, depth: int) -> Rates:
        found = resolve(model, self.providers)
        listed = self._listed(found)
        if self.corrected is None:
            return listed
        given = self.corrected.layer.match(Model(found.provider, found.ref)) if depth else None
        if given is not None:
            name = Model(found.provider, found.ref)
            built = build(given, name, lambda other: self._find(other, depth - 1), lambda _: listed)
            listed = built.replace(own=False, source=f"{self.source} and corrections", model=listed.model or found.ref)
            listed = listed.noted(*found.notes) if found.notes else listed
        if not listed.known:
            return listed
        more = self.corrected.variants_for(f"{found.provider}/{listed.model}")
        if more:
            listed = listed.replace(segments=tuple(_with(s, more) for s in listed.segments))
        return with_fees(listed, {**self._fees(""), **self._fees(found.provider)})

    def _listed(self, found: Found) -> Rates:
        if found.model is None:
            return Rates.unknown(found.reason, provider=found.provider)
        segments = genai.segments_of(found.model, self.providers[found.provider], listed_in=self.source)
        if not segments:
            return Rates.unknown("no rate in the price list", provider=found.provider, model=found.model.id)
        rates = Rates(
            segments, provider=found.provider, model=found.model.id, source=self.source,
            context_window=found.model.context_window,
        )  # fmt: skip
        return rates.noted(*found.notes) if found.notes else rates

    def _fees(self, provider: str) -> Mapping[str, Price]:
        return self.corrected.layer.fees.get(provider, {}) if self.corrected else {}


def _with(segment: Segment, variants: tuple[Variant, ...]) -> Segment:
    return segment._replace(variants=(*segment.variants, *variants))


@cache
def installed() -> PriceList:
    """The list of the installed genai-prices, corrected."""
    return PriceList(genai.bundled(), genai.source(), corrections())
