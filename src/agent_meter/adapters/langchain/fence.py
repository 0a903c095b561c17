"""What LangChain may be told: a denial, and nothing else that goes wrong in here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler

from ...errors import BudgetExceeded
from ...meter import Meter, default_meter
from ...records import Denial
from .flights import FRAMEWORK, flights_of

F = TypeVar("F", bound=Callable[..., None])


def fenced(method: F) -> F:
    """Nothing that goes wrong in here reaches the user's run, except a denial."""

    @wraps(method)
    def event(self: Fenced, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._caught(method.__name__, error)

    return event  # type: ignore[return-value]


class Fenced(BaseCallbackHandler):
    """A handler of one meter. It can refuse a call, and raises for no other reason."""

    run_inline = True
    raise_error = True

    def __init__(self, meter: Meter | None = None, *, wire: bool = False) -> None:
        self.meter = meter if meter is not None else default_meter()
        if wire:
            from ..wire import keep_on

            keep_on(self.meter)
        self._flights = flights_of(self.meter)
        self._streaming = self._flights.streaming
        self._clock = self.meter.monotonic

    # LangChain puts handlers into sets and copies configurations; a copy would be another handler of one meter.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fenced) and other.meter is self.meter

    def __hash__(self) -> int:
        return hash((Fenced, id(self.meter)))

    def __copy__(self) -> Fenced:
        return self

    def __deepcopy__(self, memo: object) -> Fenced:
        return self

    def _caught(self, event: str, error: Exception) -> None:
        if isinstance(error, BudgetExceeded):
            raise denial_for_langchain(error.denial) from None
        self.meter.plugins.failed(FRAMEWORK, event, error)
        if self.meter.plugins.strict:
            raise error


def _is_no_denial(record: logging.LogRecord) -> bool:
    told = record.args
    if not isinstance(told, tuple) or len(told) != 3:
        return True
    return not (told[0] in _OURS and str(told[2]).startswith("BudgetExceeded("))


# LangChain logs "Error in MeterCallback.on_chat_model_start callback" for every exception that it lets through. A
# denial is no error, and has its record.
_OURS = ("MeterCallback",)
logging.getLogger("langchain_core.callbacks.manager").addFilter(_is_no_denial)


def denial_for_langchain(denial: Denial) -> BudgetExceeded:
    """The denial as an exception that LangGraph lets through.

    Its retry, fallback and tool-error middleware swallow any ordinary exception; `GraphBubbleUp` passes them all.
    Only an application that has imported langgraph can meet them.
    """
    errors = sys.modules.get("langgraph.errors")
    if errors is None:
        return BudgetExceeded(denial)
    global _bubbling
    if _bubbling is None:
        members = {"__module__": BudgetExceeded.__module__, "__reduce__": _plain}
        _bubbling = type("BudgetExceeded", (BudgetExceeded, errors.GraphBubbleUp), members)
    return _bubbling(denial)


def _plain(error: BudgetExceeded) -> tuple[type[BudgetExceeded], tuple[Denial]]:
    """Pickled as the class that every process knows."""
    return (BudgetExceeded, (error.denial,))


_bubbling: type[BudgetExceeded] | None = None
