"""What a meter records while an answer is on its way: these are the calls that were paid for it."""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..hookspecs import hookimpl
from ..records import DENIED, OK, Record, UsageRecord

if TYPE_CHECKING:
    from ..meter import Meter

PLUGIN = "ReplayCache"
_registering = threading.Lock()


class Heard:
    """Model calls of one meter, in the context in which it was made and what that context starts."""

    __slots__ = ("meter", "outer", "records")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.records: list[UsageRecord] = []
        self.outer = _heard.get()

    def add(self, record: UsageRecord) -> None:
        old = record.corrects
        if old is not None:
            self.records = [other for other in self.records if other is not old]
        self.records.append(record)

    @property
    def answered(self) -> bool:
        """Whether this is an answer: nothing was denied, and the last call did not fail. A retry may have."""
        records = self.records
        return not records or (records[-1].status is OK and all(r.status is not DENIED for r in records))

    @property
    def paid(self) -> tuple[UsageRecord, ...]:
        return tuple(record for record in self.records if record.status is OK)


_heard: ContextVar[Heard | None] = ContextVar("agent_meter_heard", default=None)


class listen:  # noqa: N801 - used as a function
    """`with listen(meter) as heard:`."""

    __slots__ = ("_heard", "_meter", "_token")

    def __init__(self, meter: Meter, heard: Heard | None = None) -> None:
        self._meter = meter
        self._heard = heard

    def __enter__(self) -> Heard:
        heard = self._heard or Heard(self._meter)
        self._token = _heard.set(heard)
        return heard

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # a coroutine that nobody goes on with ends in whatever context
            _heard.reset(self._token)


class _Listener:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        heard = _heard.get()
        while heard is not None:
            if heard.meter is self._meter and type(record) is UsageRecord:
                heard.add(record)
            heard = heard.outer


def attach(meter: Meter) -> None:
    """Let a meter be heard."""
    with _registering:
        if PLUGIN not in meter.plugins.names():
            meter.register(_Listener(meter), PLUGIN)
