"""
MeterError
├── BudgetExceeded      a guard or a budget denied the call
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
    from .records import Denial


class MeterError(Exception):
    """The root of everything that agent_meter raises on purpose."""


class BudgetExceeded(MeterError):
    """A call was refused before it was sent; `denial` says by whom and why."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(f"{denial.by}: {denial.reason}" if denial.by else denial.reason)
        self.denial = denial

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[Denial]]:
        return (type(self), (self.denial,))


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
