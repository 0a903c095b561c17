"""
MeterError
├── BudgetExceeded      a guard or a budget denied the call
├── BudgetError         a budget is wrong in form
├── PluginError         a plugin is not what the hooks expect
├── PriceError          prices are wrong in form
│   └── UnknownModel    a number was asked for, and no rate is known (also a LookupError)
├── StoreError          records could not be made durable
├── ExportError         there is no such export format, or it has no such option
└── ImportFailed        a file is in no form that can be imported

Every message names the value and the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from .records import Denial


class MeterError(Exception):
    """The root of everything that agent_meter raises on purpose."""


class BudgetExceeded(MeterError):
    """A call was refused before it was sent; `denial` says by whom and why.

    Where a budget refused it: `limit`, `used`, `reserved` and `requested` are US dollars (`Decimal`) of a budget in
    money, else counts; `fits` is the number of output tokens that would still have fitted. Where a guard did: `None`.
    """

    def __init__(self, denial: Denial) -> None:
        super().__init__(f"{denial.by}: {denial.reason}" if denial.by else denial.reason)
        self.denial = denial

    @property
    def budget(self) -> str | None:
        """The name of the budget."""
        return self.denial.budget or None

    @property
    def limit(self) -> Decimal | int | None:
        return self._amount(self.denial.limit)

    @property
    def used(self) -> Decimal | int | None:
        return self._amount(self.denial.used)

    @property
    def reserved(self) -> Decimal | int | None:
        return self._amount(self.denial.reserved)

    @property
    def requested(self) -> Decimal | int | None:
        return self._amount(self.denial.requested)

    @property
    def remaining(self) -> Decimal | int | None:
        """What is left beside what is used and held; never negative."""
        denial = self.denial
        if denial.limit is None or denial.used is None:
            return None
        return self._amount(max(0, denial.limit - denial.used - (denial.reserved or 0)))

    @property
    def resets_at(self) -> datetime | None:
        """When something of the budget is free again (aware, UTC); `None` for one that has no calendar."""
        return self.denial.resets_at

    @property
    def fits(self) -> int | None:
        return self.denial.fits

    def _amount(self, value: int | None) -> Decimal | int | None:
        if value is None or self.denial.unit != "usd_pico":
            return value
        from .records import dollars

        return dollars(value)

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[Denial]]:
        return (type(self), (self.denial,))


class BudgetError(MeterError, ValueError):
    """A budget is wrong in form; the message says what it takes."""


class PluginError(MeterError):
    """A plugin cannot be registered; the message says what to do instead."""


class PriceError(MeterError, ValueError):
    """A price, a price file or a rate is wrong in form."""


class UnknownModel(PriceError, LookupError):
    """No rate is known for a model, and the caller asked for a plain number."""


class StoreError(MeterError):
    """Records could not be made durable."""


class ExportError(MeterError, ValueError):
    """There is no such format, or it has no such option."""


class ImportFailed(MeterError, ValueError):
    """A file is in none of the forms that can be read."""
