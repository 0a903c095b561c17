"""A price list from a file, in the JSON of genai-prices, for those who keep it newer than the installed package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

from genai_prices import types

from ..errors import PriceError
from . import genai
from .pricelist import PriceList, corrections

_CLAUSES = {
    "starts_with": types.ClauseStartsWith,
    "ends_with": types.ClauseEndsWith,
    "contains": types.ClauseContains,
    "regex": types.ClauseRegex,
    "equals": types.ClauseEquals,
}


def read(path: str | PathLike[str]) -> PriceList:
    """The price list of a file; `"installed"` is that of the installed package. Raises `PriceError`."""
    if str(path) == "installed":
        return PriceList(genai.bundled(), genai.source(), corrections())
    try:
        raw = Path(path).read_bytes()
        tables = json.loads(raw, parse_float=Decimal, parse_int=Decimal)
    except (OSError, ValueError) as error:
        raise PriceError(f"{path}: not a price list: {error}") from None
    source = f"{Path(path).name} sha256:{digest(raw)[:12]}"
    try:
        providers = {table["id"]: _provider(table) for table in tables}
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PriceError(f"{path}: not a price list: {type(error).__name__} {error}") from None
    if not providers:
        raise PriceError(f"{path}: a price list without providers")
    return PriceList(providers, source, corrections())


def digest(raw: bytes) -> str:
    return sha256(raw).hexdigest()


def _provider(table: Mapping[str, Any]) -> types.Provider:
    return types.Provider(
        id=table["id"],
        name=table["name"],
        api_pattern=table["api_pattern"],
        model_match=_clause(table.get("model_match")),
        provider_match=_clause(table.get("provider_match")),
        fallback_model_providers=table.get("fallback_model_providers"),
        models=[_model(model) for model in table["models"]],
    )


def _model(table: Mapping[str, Any]) -> types.ModelInfo:
    match = _clause(table["match"])
    if match is None:
        raise ValueError(f"{table['id']}: no match")
    prices = table["prices"]
    size = table.get("context_window")
    return types.ModelInfo(
        id=table["id"],
        match=match,
        name=table.get("name"),
        context_window=None if size is None else int(size),
        deprecated=table.get("deprecated"),
        prices=[
            types.ConditionalPrice(_constraint(item.get("constraint")), prices=_prices(item["prices"]))
            for item in prices
        ]
        if isinstance(prices, list)
        else _prices(prices),
        price_variants=[
            types.PriceVariant(dict(item["when"]), _prices(item["prices"]), _constraint(item.get("constraint")))
            for item in table.get("price_variants") or ()
        ],
    )


def _prices(table: Mapping[str, Any]) -> types.ModelPrice:
    return types.ModelPrice(**{key: _price(value) for key, value in table.items() if value is not None})


def _price(value: Any) -> Decimal | types.TieredPrices:
    if isinstance(value, Mapping):
        tiers = [types.Tier(int(tier["start"]), Decimal(tier["price"])) for tier in value["tiers"]]
        return types.TieredPrices(Decimal(value["base"]), tiers)
    return Decimal(value)


def _constraint(table: Mapping[str, Any] | None) -> types.StartDateConstraint | types.TimeOfDateConstraint | None:
    if table is None:
        return None
    if "start_date" in table:
        return types.StartDateConstraint(date.fromisoformat(table["start_date"]))
    return types.TimeOfDateConstraint(time.fromisoformat(table["start_time"]), time.fromisoformat(table["end_time"]))


def _clause(table: Mapping[str, Any] | None) -> Any:
    if table is None:
        return None
    ((kind, value),) = table.items()
    if kind in ("or", "and"):
        parts = [_clause(part) for part in value]
        return types.ClauseOr(or_=parts) if kind == "or" else types.ClauseAnd(and_=parts)
    return _CLAUSES[kind](value)
