"""FOCUS 1.4 (FinOps Open Cost and Usage Specification): what finance loads beside the bills of other clouds.

One row for each period, provider, model, rate and attribution, so that list price x quantity is the list cost.
What has no price cannot be a charge: such calls are left out and written to a side file, so that nothing is lost
in silence. Replayed answers are no charge and are left out too. The figures are metered, not invoiced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, BinaryIO, NamedTuple

from ..pricing.book import PriceBook
from ..pricing.cards import plain
from ..pricing.units import WIDE, unit
from ..records import Model, Record, ToolRecord, UsageRecord, dollars
from ..spreadsheets import cell
from .csv import Csv
from .providers import Vendor, vendor
from .sinks import Beside, Sink, json_bytes

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "HostProviderName", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory",
    "PricingQuantity", "PricingUnit", "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "Tags", "x_Calls", "x_CardId", "x_CostStatus",
    "x_MeteredCost", "x_Model",
)  # fmt: skip
MAX_ROWS = 100_000  # rows that are added up at a time; beyond them a charge may take several rows
DIMENSIONS = ("agent", "task", "user", "session", "step")

_WORDS = {
    "input_tokens": "Input Tokens",
    "output_tokens": "Output Tokens",
    "cache_read_tokens": "Cache Read Tokens",
    "cache_write_tokens": "Cache Write Tokens",
    "cache_write_1h_tokens": "Cache Write Tokens (1 h)",
}
_FAMILIES = {"durations": "Seconds", "characters": "Characters", "pixels": "Pixels", "document_pages": "Pages"}


class _Key(NamedTuple):
    """What one row is about. `usd` is the price of `per` pieces; None where only the cost is known."""

    start: datetime
    end: datetime
    vendor: Vendor
    model: str
    meter: str
    card: str
    usd: Decimal | None
    per: int
    pieces: str
    status: str
    who: tuple[str, ...]


class _Charge:
    __slots__ = ("billed", "calls", "pico", "quantity")

    def __init__(self) -> None:
        self.quantity: int | Decimal = 0
        self.pico = self.billed = self.calls = 0


class Focus(Sink):
    """Adds charges up by `period` ("day" or "hour") and by the attribution named in `by`, which become tags.

    `account` is the BillingAccountId. `prices` split a call's cost into its units; where they no longer are the
    card that priced the call, its cost stands without unit prices. `skipped` counts what is in the side file.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        beside: Beside | None = None,
        account: str = "default",
        account_name: str = "",
        period: str = "day",
        by: Iterable[str] = ("agent",),
        prices: PriceBook | None = None,
    ) -> None:
        if period not in ("day", "hour"):
            raise ValueError(f"a charge period is 'day' or 'hour', not {period!r}")
        self._by = tuple(by)
        for name in self._by:
            if name not in DIMENSIONS:
                raise ValueError(f"charges are told apart by {', '.join(DIMENSIONS)}, not by {name!r}")
        self._file = file
        self._account = account, account_name
        self._period = period
        self._prices = prices or PriceBook(on_unpriced="block")
        self._charges: dict[_Key, _Charge] = {}
        self._beside = beside
        self._side: Csv | None = None
        self._open = ExitStack()
        self._file.write(f"{','.join(COLUMNS)}\r\n".encode())

    # ------------------------------------------------------------------------------------------- adding up

    def write(self, record: Record) -> None:
        if type(record) is UsageRecord:
            self._add(record)
        elif type(record) is ToolRecord and record.cost_pico:
            seller = Vendor(record.name, f"{record.name} (tool)")
            who = self._key(record, seller, record.name, "Tool Calls", "", None, 1, "Calls", "priced")
            self._charge(who, 1, record.cost_pico, record.cost_pico)
        if len(self._charges) >= MAX_ROWS:
            self._flush()

    def _add(self, record: UsageRecord) -> None:
        cost = record.cost
        if cost.list_pico is None or cost.missing:
            self._set_aside(record)
        if record.cached or (not cost.list_pico and (record.usage is None or not record.usage.total_tokens)):
            return
        if cost.list_pico is None:
            return
        model = record.model or record.request_model
        seller = vendor(record.provider or self._prices.find(Model("", model)).provider)
        status = cost.status.value
        billed_left, pico_left = cost.billed_pico or 0, cost.list_pico
        for meter, quantity, usd, per, pieces, pico in self._lines(record):
            # Shares of what is billed add up to it: each takes its part of what is left.
            billed = billed_left * pico // pico_left if pico_left else 0
            billed_left, pico_left = billed_left - billed, pico_left - pico
            card = cost.card_id or ""
            key = self._key(record, seller, model, meter, card, usd, per, pieces, status)
            self._charge(key, quantity, pico, billed)

    def _lines(self, record: UsageRecord) -> Iterator[tuple[str, int | Decimal, Decimal | None, int, str, int]]:
        """The bill of one call by unit; without quantities where the card that priced it is no longer at hand."""
        usage, cost = record.usage, record.cost
        if usage is not None and cost.card_id and cost.list_pico:
            rates = self._prices.find(Model(record.provider, record.model))
            pick = rates.pick(record.started_at, usage.context)
            if pick is not None and pick.card.card_id == cost.card_id:
                lines = rates.lines(usage, record.started_at, usage.context)
                if sum(line.pico for line in lines) == cost.list_pico:
                    for line in lines:
                        yield _word(line.unit), line.quantity, line.usd, line.per, _pieces(line.unit), line.pico
                    return
        rest = (cost.list_pico or 0) - cost.input_pico - cost.output_pico
        for meter, pico in (("Input", cost.input_pico), ("Output", cost.output_pico), ("Fees", rest)):
            if pico or (meter == "Input" and not cost.list_pico):
                yield meter, 0, None, 1, "", pico

    def _key(
        self,
        record: UsageRecord | ToolRecord,
        vendor: Vendor,
        model: str,
        meter: str,
        card: str,
        usd: Decimal | None,
        per: int,
        pieces: str,
        status: str,
    ) -> _Key:
        at = record.started_at.astimezone(UTC)
        start = at.replace(minute=0, second=0, microsecond=0)
        if self._period == "day":
            start = start.replace(hour=0)
        end = start + (timedelta(days=1) if self._period == "day" else timedelta(hours=1))
        who = tuple(getattr(record, name) for name in self._by)
        return _Key(start, end, vendor, model, meter, card, usd, per, pieces, status, who)

    def _charge(self, key: _Key, quantity: int | Decimal, pico: int, billed: int) -> None:
        charge = self._charges.get(key)
        if charge is None:
            charge = self._charges[key] = _Charge()
        charge.quantity = _sum(charge.quantity, quantity)
        charge.pico += pico
        charge.billed += billed
        charge.calls += 1

    def _set_aside(self, record: UsageRecord) -> None:
        """What has no price, or not for every unit, to the side file."""
        self.skipped += 1
        if self._side is None and self._beside is not None:
            self._side = Csv(self._open.enter_context(self._beside("unpriced")))
        if self._side is not None:
            self._side.write(record)

    # --------------------------------------------------------------------------------------------- writing

    def close(self) -> None:
        self._flush()
        self._open.close()

    def discard(self, error: BaseException) -> None:
        self._open.__exit__(type(error), error, error.__traceback__)

    def _flush(self) -> None:
        for key, charge in sorted(self._charges.items(), key=lambda item: item[0][:2] + item[0][3:6]):
            row = self._row(key, charge)
            self._file.write((",".join(_written(row.get(name)) for name in COLUMNS) + "\r\n").encode())
        self._charges.clear()

    def _row(self, key: _Key, charge: _Charge) -> dict[str, Any]:
        metered = dollars(charge.pico)
        row: dict[str, Any] = {
            "BilledCost": dollars(charge.billed),
            "BillingAccountId": self._account[0],
            "BillingAccountName": self._account[1] or None,
            "BillingCurrency": "USD",
            "BillingPeriodStart": _month(key.start),
            "BillingPeriodEnd": _month(key.start, 1),
            "ChargeCategory": "Usage",
            "ChargeDescription": f"{key.model} {key.meter.lower()} (metered, not an invoice)",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": key.start,
            "ChargePeriodEnd": key.end,
            "ContractedCost": metered,
            "EffectiveCost": dollars(charge.billed),
            "HostProviderName": key.vendor.company,
            "InvoiceIssuerName": key.vendor.company,
            "ListCost": metered,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceSubcategory": "Generative AI",
            "ServiceName": key.vendor.service,
            "ServiceProviderName": key.vendor.company,
            "SkuId": key.model or "unknown",
            "SkuMeter": key.meter,
            "Tags": {name: who for name, who in zip(self._by, key.who, strict=True) if who},
            "x_Calls": charge.calls,
            "x_CardId": key.card or None,
            "x_CostStatus": key.status,
            "x_MeteredCost": metered,
            "x_Model": key.model,
        }
        if key.usd is not None:
            price, quantity, pricing_unit = _priced(key, charge.quantity)
            row |= {
                "ConsumedQuantity": charge.quantity,
                "ConsumedUnit": key.pieces,
                "ContractedUnitPrice": price,
                "ListUnitPrice": price,
                "PricingCategory": "Standard",
                "PricingQuantity": quantity,
                "PricingUnit": pricing_unit,
                "SkuPriceDetails": {"x_CardId": key.card, "x_Meter": key.meter},
                "SkuPriceId": f"{key.card}/{key.meter}/{plain(key.usd)}",
            }
            # Each call is rounded to the pico-dollar; list price x quantity is not, and FOCUS asks for the product.
            row["ListCost"] = row["ContractedCost"] = WIDE.multiply(price, quantity)
        return row


def _priced(key: _Key, quantity: int | Decimal) -> tuple[Decimal, Decimal, str]:
    """Unit price, how many such units, and the unit. What does not divide evenly is priced by the piece."""
    usd, zeros = key.usd or Decimal(0), _ZEROS.get(key.per)
    if zeros is None:
        return _DIGITS.divide(usd, Decimal(key.per)), Decimal(quantity), key.pieces
    return usd, Decimal(quantity).scaleb(-zeros, WIDE), f"{key.per} {key.pieces}" if zeros else key.pieces


_ZEROS = {10**zeros: zeros for zeros in range(13)}
_DIGITS = Context(prec=34)


def _word(name: str) -> str:
    return _WORDS.get(name) or name.replace("_", " ").title()


def _pieces(name: str) -> str:
    """What is counted, as FOCUS writes a unit: a plural."""
    of = unit(name)
    family = dict(of.dimensions)["family"]
    return "Tokens" if of.tokens else _FAMILIES.get(family) or name.removesuffix("s").replace("_", " ").title() + "s"


def _month(at: datetime, later: int = 0) -> datetime:
    return datetime(at.year + (at.month - 1 + later) // 12, (at.month - 1 + later) % 12 + 1, 1, tzinfo=UTC)


def _sum(left: int | Decimal, right: int | Decimal) -> int | Decimal:
    if type(left) is int and type(right) is int:
        return left + right
    return WIDE.add(Decimal(left), Decimal(right))


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dict):
        return cell(json_bytes(value).decode())
    return cell(value) if isinstance(value, str) else str(value)
