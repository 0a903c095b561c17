"""Where the user's prices come from: arguments, price files, the environment."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from .entries import Amount, entries
from .layers import Layer


def layers(
    overrides: Mapping[str, Any] | str | PathLike[str] | None, cost_rates: Mapping[str, Amount], *, discover: bool
) -> tuple[Layer, ...]:
    found = []
    del discover
    if isinstance(overrides, Mapping):
        found.append(Layer({name: entries(v, name, "prices") for name, v in overrides.items()}, source="prices"))
    if cost_rates:
        found.append(
            Layer({name: entries(v, name, "cost_rates") for name, v in cost_rates.items()}, source="cost_rates")
        )
    return tuple(found)
