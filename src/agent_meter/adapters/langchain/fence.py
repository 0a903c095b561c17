"""What LangChain may be told: a denial, and nothing else that goes wrong in here."""

from __future__ import annotations

import sys

from ...errors import BudgetExceeded
from ...records import Denial


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
