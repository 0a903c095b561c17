"""The price book: layers of rates, the first that knows a model answers. It is the plugin that prices calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PriceError
from ..hookspecs import hookimpl
from ..records import EMPTY, Cost, Model, TokenUsage
from .cards import Price, RateCard
from .entries import Entry, entries
from .layers import Layer, build, with_fees
from .names import local_reason, provider_key
from .policy import OnUnpriced, UnpricedGuard
from .rates import Amount, Rates

if TYPE_CHECKING:
    from .pricelist import PriceList

Given = Mapping[str, Any] | str | PathLike[str] | None

_KEPT = 4096  # models whose rates are remembered, known or not
_DEEP = 16  # `like` following `like`


class _State(NamedTuple):
    """Everything a reader needs, replaced as a whole: a reader never sees half a change."""

    layers: tuple[Layer, ...]  # what the user says, strongest first
    fees: Mapping[str, Mapping[str, Price]]
    found: dict[Model, Rates]


class PriceBook:
    """Rates by model, from what the user says down to the price list.

    Strongest first: `set(…)`; `overrides` (a mapping, or the path of a price file) and `cost_rates` (US$ per 1K
    tokens, blended); the price file of `AGENT_METER_PRICES` or `./agent_meter.toml`; `AGENT_METER_COST_RATES`;
    local models; our dated corrections; genai-prices. `use_reported=True` puts the cost that a provider reports
    in front of the last three. `price_list` (or `AGENT_METER_PRICE_LIST`) is a newer list in the JSON of
    genai-prices. `discover=False` reads neither environment nor files that were not named.

    Raises `PriceError` when something is wrong in form. Readers need no lock: changes swap the whole state.
    """

    def __init__(
        self,
        overrides: Given = None,
        *,
        cost_rates: Mapping[str, Amount] | None = None,
        on_unpriced: str = "warn",
        use_reported: bool = False,
        price_list: str | PathLike[str] | None = None,
        discover: bool = True,
    ) -> None:
        self.version = 1
        self.use_reported = use_reported
        self._lock = threading.Lock()
        self._overrides = overrides
        self._cost_rates = dict(cost_rates or {})
        self._discover = discover
        self._own: dict[str, tuple[Entry, ...]] = {}
        self._price_list = price_list
        self._list: PriceList | None = None
        self._policy = OnUnpriced(on_unpriced)
        self._files = self._read()
        self._state = self._build()
        if self._policy.blocks:
            # Only then is there a guard to ask: a book that warns costs nothing at admission.
            self.meter_admit_call = UnpricedGuard().meter_admit_call

    @classmethod
    def of(
        cls,
        prices: PriceBook | Given = None,
        *,
        cost_rates: Mapping[str, Amount] | None = None,
        on_unpriced: str = "warn",
    ) -> PriceBook:
        """What `Meter(prices=…)` takes: a book as it is, or one made from a mapping, a TOML path or nothing."""
        if not isinstance(prices, PriceBook):
            return cls(prices, cost_rates=cost_rates, on_unpriced=on_unpriced)
        for name, rate in (cost_rates or {}).items():
            prices.set(name, rate)
        return prices

    def __repr__(self) -> str:
        return f"<PriceBook version {self.version}, {len(self._own)} set, on_unpriced={self.on_unpriced!r}>"

    @property
    def on_unpriced(self) -> str:
        return self._policy.mode

    # --------------------------------------------------------------------------------------------- asking

    @hookimpl(trylast=True)
    def meter_find_rates(self, model: Model) -> Rates:
        return self.find(model)

    def find(self, model: Model | str) -> Rates:
        """The rates of a model; `known` is False when there are none, and then `reason` says why."""
        if isinstance(model, str):
            model = Model("", model)
        state = self._state
        rates = state.found.get(model)
        if rates is None:
            rates = self._policy.answer(model, self._resolve(state, model))
            if len(state.found) >= _KEPT:
                for old in list(state.found)[: _KEPT // 4]:
                    state.found.pop(old, None)
            state.found[model] = rates
        return rates

    def price(
        self, model: Model | str, usage: TokenUsage, at: datetime, context: Mapping[str, str] = EMPTY,
        rates: Rates | Mapping[str, Any] | Amount | None = None,
    ) -> Cost:  # fmt: skip
        """What one call costs; `rates` for this call alone go before everything in the book."""
        if rates is None:
            found = self.find(model)
        elif isinstance(rates, Rates):
            found = rates
        else:
            name = model if isinstance(model, str) else model.name
            found = PriceBook({name: rates}, discover=False).find(name)
        return found.price(usage, at, context)

    def card(self, card_id: str) -> RateCard | None:
        """The card behind `Cost.card_id`, of the models found since the last change."""
        for rates in list(self._state.found.values()):
            for card in rates.cards():
                if card.card_id == card_id:
                    return card
        return None

    def known(self) -> Iterator[tuple[Model, Rates]]:
        """What was resolved so far."""
        return iter(list(self._state.found.items()))

    # ------------------------------------------------------------------------------------------- changing

    def set(self, name: str, rates: Rates | Mapping[str, Any] | list[Any] | Amount) -> None:
        """Set the rates of a model (`name`, or `provider/name`): one number is US$ per 1K tokens, blended.

        A mapping is a table of a price file (`{"input": "2", "output": "8"}`, US$ per 1M). Raises `PriceError`.
        """
        if not isinstance(name, str) or not name.strip():
            raise PriceError(f"a model's name, not {name!r}")
        given = entries(rates, name, "set")
        with self._lock:
            self._own[name.strip().lower()] = given
            self._swap()

    def unset(self, name: str) -> None:
        """Forget what `set` said about a model; `KeyError` when it said nothing."""
        with self._lock:
            del self._own[name.strip().lower()]
            self._swap()

    def names_set(self) -> list[str]:
        return list(self._own)

    def reload(self) -> None:
        """Read price files and environment again. What is wrong in form raises, and the old prices stay."""
        files = self._read()
        with self._lock:
            self._files = files
            self._swap()

    def preload(self) -> PriceBook:
        """Import the price list now (0.2 s), so that the first call does not wait for it."""
        self.price_list.find(Model("openai", "gpt-4o"))
        return self

    def _swap(self) -> None:
        self._state = self._build()
        self.version += 1

    # ------------------------------------------------------------------------------------------ resolving

    def _read(self) -> tuple[Layer, ...]:
        from . import sources

        layers = sources.layers(self._overrides, self._cost_rates, discover=self._discover)
        named = self._price_list or (sources.price_list() if self._discover else None)
        if named:
            from . import listfile

            self._list = listfile.read(named)
        return layers

    def _build(self) -> _State:
        layers = (Layer(self._own, source="set"), *self._files)
        fees: dict[str, Mapping[str, Price]] = {}
        for layer in reversed(layers):
            for provider, table in layer.fees.items():
                fees[provider] = {**fees.get(provider, {}), **table}
        return _State(tuple(layer for layer in layers if layer), fees, {})

    def _resolve(self, state: _State, model: Model) -> Rates:
        rates = self._through(state, 0, model, _DEEP)
        fees = {**state.fees.get("", {}), **state.fees.get(rates.provider or provider_key(model.provider), {})}
        return with_fees(rates, fees)

    def _through(self, state: _State, first: int, model: Model, depth: int) -> Rates:
        """The rates of a model in the layers from `first` downwards."""
        if not depth:
            return Rates.unknown("like leads round in a circle", provider=model.provider, model=model.name)
        found = self._match(state, first, model)
        if found is None:
            listed = self._listed(model)
            # An entry for a listed name covers the name's other spellings: dated, prefixed, an alias.
            found = self._match(state, first, Model(listed.provider, listed.model)) if listed.known else None
            if found is None:
                return listed
        number, given = found
        return build(
            given, model,
            lambda other: self._through(state, 0, other, depth - 1),
            lambda same: self._through(state, number + 1, same, depth - 1),
        )  # fmt: skip

    def _match(self, state: _State, first: int, model: Model) -> tuple[int, tuple[Entry, ...]] | None:
        for number in range(first, len(state.layers)):
            given = state.layers[number].match(model)
            if given is not None:
                return number, given
        return None

    def _listed(self, model: Model) -> Rates:
        """What is known without the user: local models, our corrections, the price list."""
        reason = local_reason(model)
        if reason is not None:
            return Rates.free_of_charge(reason, provider=model.provider, model=model.name, source="local")
        rates = self.price_list.find(model)
        return rates.replace(reported_first=True) if self.use_reported else rates

    @property
    def price_list(self) -> PriceList:
        """The list under everything that the user says; reading it imports genai-prices."""
        if self._list is None:
            from . import pricelist

            self._list = pricelist.installed()
        return self._list
