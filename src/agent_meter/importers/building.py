"""Records of calls that others saw: an id that depends on the source, a price as of the day of the call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from ..pricing.book import PriceBook
from ..rating import NO_USAGE_SEEN
from ..records import (
    EMPTY,
    NOT_SENT,
    OK,
    Cost,
    FrozenMap,
    Kind,
    Model,
    Status,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)


class NotACall(Exception):
    """An entry that is neither a model call nor a tool call."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def stable_id(at: datetime, *source: str) -> str:
    """A UUID version 7 by its form: the time of the call, then a hash of where it comes from."""
    millis = (at - _EPOCH) // _MILLISECOND & (1 << 48) - 1
    bits = int.from_bytes(sha256("\0".join(source).encode("utf-8", "replace")).digest()[:10], "big")
    number = millis << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def moment(value: object) -> datetime | None:
    """A time as exports write it: ISO 8601, nanoseconds since 1970, or seconds since 1970. `ValueError` for others."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and not value.isdigit():
        at = datetime.fromisoformat(value.replace(" UTC", "Z"))
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    number = Decimal(str(value))
    micros = int(number // 1000) if number > 10**17 else int(number * 1_000_000)
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)


def count(value: object) -> int:
    """A number of tokens; 0 for nothing. `ValueError` for what is no whole number."""
    if value is None or value == "":
        return 0
    number = int(str(value)) if isinstance(value, str) else int(value)  # type: ignore[call-overload]
    if number < 0 or (isinstance(value, float) and number != value):
        raise ValueError(f"not a number of tokens: {value!r}")
    return number


def seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else max(0.0, (end - start).total_seconds())


def model_call(
    prices: PriceBook,
    *,
    id: str,
    at: datetime,
    source: str,
    provider: str = "",
    model: str = "",
    response_model: str | None = None,
    usage: TokenUsage | None = None,
    kind: Kind = Kind.LLM,
    duration: float | None = None,
    first_token: float | None = None,
    status: Status = OK,
    error_type: str | None = None,
    response_id: str | None = None,
    run_id: str | None = None,
    parent_id: str | None = None,
    agent: str = "",
    user: str = "",
    session: str = "",
    task: str = "",
    tags: Mapping[str, str] = EMPTY,
) -> UsageRecord:
    """A model call, priced by the name that answered where it has a price, else by the one that was asked for."""
    priced_as, cost = model, NO_USAGE_SEEN
    estimated = usage is None and status is OK
    rates = prices.find(Model(provider, response_model or model))
    if response_model and not rates.known:
        rates = prices.find(Model(provider, model))
    elif response_model:
        priced_as = response_model
    if usage is not None:
        cost = rates.price(usage, at, usage.context)
        estimated = bool(usage.missing or usage.problems)
        if cost.list_pico is None and usage.reported_pico is not None:
            cost = _reported(usage.reported_pico, priced_as)
    elif not estimated:
        cost = NOT_SENT
    return UsageRecord(
        id,
        kind,
        at,
        duration,
        first_token,
        provider or rates.provider,
        model,
        response_model,
        priced_as,
        usage,
        cost,
        status,
        error_type,
        False,
        estimated,
        first_token is not None,
        1,
        response_id,
        source,
        run_id,
        parent_id,
        agent,
        task,
        user,
        session,
        "",
        (),
        FrozenMap(tags) if tags else EMPTY,
        (f"imported from {source}",),
    )


def _reported(pico: int, model: str) -> Cost:
    """No card knows the model, its source knew what it cost."""
    from ..records import CostStatus

    return Cost(CostStatus.REPORTED, pico, pico, model=model, reported_pico=pico)


def tool_call(
    *,
    id: str,
    at: datetime,
    name: str,
    source: str,
    duration: float | None = None,
    status: Status = OK,
    error_type: str | None = None,
    call_id: str = "",
    run_id: str | None = None,
    parent_id: str | None = None,
    agent: str = "",
    user: str = "",
    session: str = "",
    tags: Mapping[str, str] = EMPTY,
) -> ToolRecord:
    return ToolRecord(
        id,
        name,
        call_id,
        at,
        duration or 0.0,
        status,
        EMPTY,
        0,
        0,
        error_type,
        source,
        run_id,
        parent_id,
        agent,
        "",
        user,
        session,
        "",
        FrozenMap(tags) if tags else EMPTY,
    )


def text(value: Any) -> str:
    """A name; "" for nothing."""
    return "" if value is None else str(value)
