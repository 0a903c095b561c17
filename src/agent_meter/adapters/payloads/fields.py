"""What every dialect needs: safe access to an answer, whatever it is made of, and the shape of a reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from agent_meter.records import EMPTY, FrozenMap, TokenUsage, pico

MOST = 2**53  # more than any count of tokens; a bigger number is not one, and would overflow what stores it
MISSING_BOTH = ("input_tokens", "output_tokens")
MISSING_INPUT = ("input_tokens",)
MISSING_OUTPUT = ("output_tokens",)
UNKNOWN = TokenUsage(missing=MISSING_BOTH)

# Set in what a stream was folded into when it ended too early: its running totals are a lower bound.
CUT = "(cut)"

Units = Mapping[str, int | Decimal]


class Pass(msgspec.Struct, frozen=True):
    """Work that the provider bills beside the answer: a compaction, an advisor's message, a picture.

    `model` is `None` when it is the model of the answer, empty when it is another one that is not named.
    """

    kind: str
    model: str | None
    usage: TokenUsage


class Reading(msgspec.Struct, frozen=True):
    """What one answer says about itself.

    `tools` are the names of the client's tools that it asks for, one entry a call. `error_type` is set when
    the body is an error, in the provider's word. `passes` are billed beside `usage`, and not part of its token
    classes: its unit `pass_tokens` counts them, so that no price of `usage` alone can look complete.
    """

    usage: TokenUsage = UNKNOWN
    response_model: str | None = None
    response_id: str | None = None
    tools: tuple[str, ...] = ()
    error_type: str | None = None
    passes: tuple[Pass, ...] = ()

    @property
    def own_usage(self) -> TokenUsage:
        """`usage` without the unit that counts its passes: what to price when each pass gets a record of its own."""
        if not self.passes:
            return self.usage
        units = {name: count for name, count in self.usage.units.items() if name != "pass_tokens"}
        return msgspec.structs.replace(self.usage, units=FrozenMap(units) if units else EMPTY)

    @property
    def billed_usage(self) -> TokenUsage:
        """`usage` and every pass of the same model: what one rate card can price.

        The tokens of other models' passes remain in its unit `pass_tokens`: they need a record of their own.
        """
        if not self.passes:
            return self.usage
        own = [p.usage for p in self.passes if p.model is None or p.model == self.response_model]
        left = sum(p.usage.total_tokens for p in self.passes) - sum(u.total_tokens for u in own)
        units = {**self.usage.units, "pass_tokens": left}
        whole = sum(own, replace(self.usage, units=frozen(units)))
        return replace(whole, context=self.usage.context)


class Fields(Protocol):
    """Something with named values: a dict, or an SDK's object seen through `fields`."""

    def get(self, name: str, /) -> Any: ...


class _Attributes:
    """An object's attributes, read as a mapping is: an absent or a raising one is `None`."""

    __slots__ = ("_owner",)

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def get(self, name: str, /) -> Any:
        try:
            return getattr(self._owner, name, None)
        except Exception:
            return None


def fields(value: object) -> Fields:
    """`value` as something to read names from; what has no names is empty."""
    if type(value) is dict:
        return value
    if value is None or isinstance(value, (str, bytes, int, float, list, tuple)):
        return EMPTY
    if isinstance(value, (Mapping, _Attributes)):
        return value
    if hasattr(type(value), "__pydantic_fields__"):  # most SDKs' objects: ten times faster than by attribute
        extra = getattr(value, "__pydantic_extra__", None)
        return {**value.__dict__, **extra} if extra else value.__dict__
    return _Attributes(value)


def items(value: object) -> Sequence[Any]:
    """`value` if it is a list or a tuple, else nothing. Never consumes an iterator."""
    return value if isinstance(value, (list, tuple)) else ()


def text(value: object) -> str | None:
    """`value` if it is a string with something in it."""
    return value if isinstance(value, str) and value else None


def number(value: object) -> int | None:
    """A count, or `None` for what is not one: absent, negative, NaN, a truth value, beyond `MOST`."""
    if type(value) is int:
        return value if 0 <= value <= MOST else None
    if value is None:  # most names that are asked for: the checks below would cost as much as everything else
        return None
    if isinstance(value, str):  # HTTP headers
        return number(int(value)) if len(value) <= 16 and value.isdecimal() else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        return int(value) if 0 <= value <= MOST else None
    except (ArithmeticError, ValueError):
        return None


def amount(value: object) -> int | Decimal | None:
    """A quantity that may be a fraction (seconds), exact; else as `number`."""
    if isinstance(value, float) and 0 <= value <= MOST and not value.is_integer():
        return Decimal(repr(value))
    return number(value)


def dollars_of(value: object) -> int | None:
    """An amount of US dollars as pico-dollars; `None` for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        exact = Decimal(repr(value) if isinstance(value, float) else value)
        # Exponents are bounded before anything is raised to their power.
        if exact.is_finite() and 0 <= exact < 10**6 and exact.adjusted() > -40:
            return pico(exact)
    except (ArithmeticError, ValueError):
        pass
    return None


def spent(u: Fields) -> int | None:
    """What the provider says the call cost, in pico-dollars.

    OpenRouter's `cost` leaves out what a key of the user's own (`is_byok`) is charged upstream; Perplexity's
    is a table with a `total_cost`; xAI counts ticks of 10⁻¹⁰ $, and gateways to its models a 0 that means
    nothing.
    """
    cost = u.get("cost")
    if cost is not None:
        if isinstance(cost, (int, float, str, Decimal)):
            own = dollars_of(cost)
            if own is not None and u.get("is_byok") is True:
                own += dollars_of(fields(u.get("cost_details")).get("upstream_inference_cost")) or 0
            return own
        return dollars_of(fields(cost).get("total_cost"))
    ticks = number(u.get("cost_in_usd_ticks"))
    return ticks * 100 if ticks else None


@lru_cache(maxsize=512)
def _context(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return FrozenMap(pairs)


@lru_cache(maxsize=64)
def tier(service_tier: str) -> Mapping[str, str]:
    """The context of a plain call: its service tier, in the vendor's word; `batch` is a way of processing."""
    word = service_tier.lower()
    return FrozenMap({"processing": "batch"} if word == "batch" else {"service_tier": word})


def context(service_tier: object = None, **more: object) -> Mapping[str, str]:
    """What a price depends on, as lower-case words; values that are not words are left out."""
    pairs = list(tier(service_tier).items()) if isinstance(service_tier, str) and service_tier else []
    pairs += [(k, v.lower()) for k, v in more.items() if isinstance(v, str) and v]
    return _context(tuple(pairs)) if pairs else EMPTY


def frozen(units: Mapping[str, int | Decimal | None]) -> Units:
    """The units that were used at all."""
    used = {name: count for name, count in units.items() if count}
    return FrozenMap(used) if used else EMPTY


class ReadErrors:
    """How often a reader of ours failed, and on what last: what was read is then unknown, and nobody's run stops."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Exception | None = None
        self.listener: Callable[[Exception], object] | None = None

    def note(self, error: Exception) -> None:
        self.count += 1
        self.last = error
        if self.listener is not None:
            try:
                self.listener(error)
            except Exception:
                self.count += 1


read_errors = ReadErrors()
