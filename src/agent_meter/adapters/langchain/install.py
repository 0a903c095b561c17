"""Process-wide: every LangChain run has the meter attached, on every thread, with nothing passed to it.

Imports nothing of LangChain: `attach` is called in the moment in which LangChain's hooks are loaded, when the rest
of it may not be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from ...meter import Meter
    from .callback import MeterCallback


class Slot:
    """LangChain asks it for a handler when a run begins, as it asks a context variable.

    It is none, because a context variable's value does not reach a thread that was started without a context, and
    its default cannot be taken back.
    """

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self._handler: MeterCallback | None = None

    def fill(self, meter: Meter | None) -> None:
        self.meter, self._handler = meter, None

    def get(self) -> MeterCallback | None:
        handler, meter = self._handler, self.meter
        if handler is None and meter is not None:
            try:
                from .callback import MeterCallback

                handler = self._handler = MeterCallback(meter)
            except Exception as error:  # the adapter does not fit this LangChain: the user's run goes on without it
                self.meter = None
                meter.plugins.failed("langchain", "install", error)
        return handler


# A hook that was registered stays registered: a slot that is free again is used again.
_slots: list[Slot] = []
_lock = threading.Lock()


def attach(hooks: ModuleType, meter: Meter) -> Callable[[], None]:
    """Meter every LangChain run of the process from now on; the answer undoes it.

    `hooks` is `langchain_core.tracers.context`: LangChain loads it when a run begins, at the latest.
    """
    with _lock:
        slot = next((slot for slot in _slots if slot.meter is None), None)
        if slot is None:
            slot = Slot()
            hooks.register_configure_hook(slot, inheritable=True)
            _slots.append(slot)
        slot.fill(meter)
    return partial(slot.fill, None)


def installed() -> list[Meter]:
    """The meters that are attached to the whole process."""
    return [slot.meter for slot in _slots if slot.meter is not None]
