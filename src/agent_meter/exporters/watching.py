"""What live exporters ask of a meter beside its records: how its budgets stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..meter import Meter


class Budgeted(NamedTuple):
    """One budget at one moment, in `unit` (usd, tokens, requests)."""

    name: str
    unit: str
    limit: float
    used: float
    reserved: float

    @property
    def ratio(self) -> float | None:
        return self.used / self.limit if self.limit else None


def budgets_of(meter: Meter | None) -> list[Budgeted]:
    """How the meter's budgets stand; none where it has none, or cannot say."""
    status: Any = getattr(meter, "status", None)
    if status is None:
        return []
    return []
