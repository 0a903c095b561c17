"""What is plugged into every meter. Built-ins enter through the same door as a stranger's plugin."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from .accounts import Accounts
from .hookspecs import hookimpl
from .records import Alert, Record, ToolRecord, UsageRecord, dollars, pico

if TYPE_CHECKING:
    from .analytics import AgentAnalytics
    from .meter import Meter
    from .pricing import PriceBook
    from .store import Store
    from .store.keeper import Keeper


class Defaults(msgspec.Struct, frozen=True):
    """The built-ins of one meter, by name, in the order of registration."""

    accounts: Accounts
    prices: PriceBook
    analytics: AgentAnalytics | None
    plugins: tuple[tuple[str, object], ...]
    keeper: Keeper | None = None

    @classmethod
    def make(
        cls,
        *,
        prices: Mapping[str, Any] | str | PriceBook | None,
        cost_rates: Mapping[str, Any] | None,
        on_unpriced: str,
        analytics: bool,
        keep: int,
        cost_warning_threshold: float | Decimal | None,
        store: str | os.PathLike[str] | Store | None,
        durability: str,
    ) -> Defaults:
        from .pricing import PriceBook

        book = PriceBook.of(prices, cost_rates=cost_rates, on_unpriced=on_unpriced)
        accounts = Accounts(keep)
        plugins: list[tuple[str, object]] = [("prices", book), ("log", RequestLog())]
        tools: AgentAnalytics | None = None
        if cost_warning_threshold is not None:
            plugins.append(("cost warning", CostWarning(accounts, cost_warning_threshold)))
        if analytics:
            from .analytics import AgentAnalytics

            tools = AgentAnalytics()
            plugins.append(("analytics", ToolMeter(tools)))
        keeper: Keeper | None = None
        if store is not None:
            from .store import open_store
            from .store.keeper import Keeper

            opened = open_store(store, durability)
            keeper = Keeper(opened, accounts, keep, owned=opened is not store)
            plugins.append(("store", keeper))
        plugins.append(("usage", accounts))
        return cls(accounts, book, tools, tuple(plugins), keeper)


class ToolMeter:
    """Feeds finished tool calls to the analytics."""

    def __init__(self, analytics: AgentAnalytics) -> None:
        self._add = analytics.record

    @hookimpl(tryfirst=True)
    def meter_record(self, record: Record) -> None:
        if type(record) is ToolRecord and not record.paused:
            self._add(record)


class RequestLog:
    """`INFO agent_meter: Request completed: 45 tokens, $0.0001 (gpt-4o, 412 ms)`.

    Nothing is logged, and `logging` is not even imported, unless the application configures logging.
    """

    def __init__(self) -> None:
        self._logger: Any = None

    @hookimpl
    def meter_record(self, record: Record) -> None:
        logger = self._logger
        if logger is None:
            logging = sys.modules.get("logging")
            if logging is None:
                return
            logger = self._logger = logging.getLogger("agent_meter")
        if type(record) is not UsageRecord or not logger.isEnabledFor(20):
            return
        amount = record.cost.list_pico
        price = "unpriced" if amount is None else f"${dollars(amount):.4f}"
        how = record.model or record.request_model or "?"
        if record.duration is not None:
            how += f", {record.duration * 1000:.0f} ms"
        if record.cached:
            how += ", cached"
        elif record.status != "ok":
            how += f", {record.status}"
        logger.info("Request completed: %d tokens, %s (%s)", record.total_tokens, price, how)


class CostWarning:
    """Warns once when the total cost has crossed a threshold (in US dollars)."""

    def __init__(self, accounts: Accounts, threshold: float | Decimal) -> None:
        self._accounts = accounts
        self._threshold = pico(threshold)
        self._lock = threading.RLock()
        self._last = 0  # the total that was seen last: it falls when the meter is reset
        self._meter: Meter | None = None

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if type(record) is not UsageRecord or not record.cost.list_pico:
            return
        with self._lock:
            total, last = self._accounts.list_pico(), self._last
            self._last = total
        if total > self._threshold and (last <= self._threshold or total < last) and self._meter is not None:
            import logging

            message = (
                f"Cost Warning: Total cost ${dollars(total):.6f} exceeds threshold ${dollars(self._threshold):.6f}"
            )
            logging.getLogger("agent_meter").warning("⚠️  %s", message)
            self._meter.plugins.alert(Alert("cost_warning_threshold", message, 1.0, total, self._threshold, "usd_pico"))
