"""What to do about a model that nobody can price: warn, block, or assume a rate. Never pretend that it is free."""

from __future__ import annotations

import threading

from ..errors import PriceError
from ..hookspecs import hookimpl
from ..records import Call, Denial, Kind, Model
from .rates import Rates

_WARNED = 4096  # names remembered, so that each is warned about once
_PRICED_KINDS = (Kind.LLM, Kind.EMBEDDING, Kind.RERANK)


class OnUnpriced:
    """`"warn"`, `"block"`, or `"assume:0.002"` (US$ per 1K tokens) or `"assume:2.5/10"` (US$ per 1M, in/out).

    Raises `PriceError` for anything else.
    """

    __slots__ = ("_assumed", "_lock", "_warned", "mode")

    def __init__(self, mode: str = "warn") -> None:
        self.mode = mode
        self._assumed: Rates | None = None
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.RLock()
        word, colon, rate = mode.partition(":")
        if word == "assume" and colon:
            first, slash, second = rate.partition("/")
            rates = Rates.per_million(first, second) if slash else Rates.per_1k(rate)
            text = f"${first}/${second} per 1M" if slash else f"${rate} per 1K"
            self._assumed = rates.noted(f"unknown model, assumed at {text} tokens")
        elif mode not in ("warn", "block"):
            raise PriceError(f"on_unpriced is 'warn', 'block' or 'assume:<rate>', not {mode!r}")

    @property
    def blocks(self) -> bool:
        return self.mode == "block"

    def answer(self, model: Model, rates: Rates) -> Rates:
        """The rates to use for a model: those that were found, or what the policy has in place of none."""
        if rates.known:
            return rates
        if self._assumed is not None:
            return self._assumed.replace(
                provider=model.provider, model=model.name, source=f"on_unpriced={self.mode!r}", reason=rates.reason,
                known=False, own=False,
            )  # fmt: skip
        return rates.replace(on_unpriced=lambda: self._warn(model, rates.reason)) if self.mode == "warn" else rates

    def _warn(self, model: Model, reason: str) -> None:
        key = (model.provider, model.name)
        with self._lock:
            if key in self._warned or len(self._warned) >= _WARNED:
                return
            self._warned.add(key)
        import logging

        logging.getLogger("agent_meter").warning(
            "No price for %s: %s. Its calls are recorded as unpriced; prices.set(%r, …) or a price file names one.",
            model, reason, str(model),
        )  # fmt: skip


class UnpricedGuard:
    """Denies model calls whose rates are not known, so that a budget in money cannot be passed by."""

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        rates = call.rates
        if call.kind not in _PRICED_KINDS or rates is None or getattr(rates, "known", True):
            return None
        return Denial(f"no price for {call.model}: {getattr(rates, 'reason', '') or 'unknown'}", "prices")
