"""What live exporters ask of a meter beside its records: how its budgets stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..meter import Meter


class Budgeted(NamedTuple):
    """One limit of a budget at one moment, in `unit` (usd, tokens, requests)."""

    name: str
    unit: str
    limit: float
    used: float
    reserved: float

    @property
    def ratio(self) -> float | None:
        return self.used / self.limit if self.limit else None


def budgets_of(meter: Meter | None) -> list[Budgeted]:
    """How the meter's budgets stand; none where it has none, or cannot say so.

    A budget that counts for each user or agent apart is shown by its tightest counter: whose that is stays inside.
    May ask a shared store, so it is not for the path of a call.
    """
    if meter is None:
        return []
    found: dict[tuple[str, str], Budgeted] = {}
    try:
        for each in meter.budgets.status():
            one = Budgeted(each.name, each.unit, float(each.limit), float(each.used), float(each.reserved))
            known = found.get((one.name, one.unit))
            if known is None or (one.ratio or 0) > (known.ratio or 0):
                found[one.name, one.unit] = one
    except Exception as error:  # a store that is down must not take the scrape with it
        meter.plugins.failed("budgets", "status", error)
    return list(found.values())
