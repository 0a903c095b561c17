"""LangChain and LangGraph: `agent.invoke(question, {"callbacks": [MeterCallback(meter)]})`.

This adapter can refuse a call: a denied model or tool call is never made, and the caller sees `BudgetExceeded`.
Everything but `MeterMiddleware` needs langchain-core alone; each name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import front_door

if TYPE_CHECKING:
    from .attach import metering
    from .cache import MeteredCache
    from .callback import MeterCallback
    from .embeddings import MeteredEmbeddings
    from .middleware import MeterMiddleware
    from .rerank import MeteredCompressor

_LAZY = {
    "MeterCallback": ".callback",
    "MeterMiddleware": ".middleware",
    "MeteredCache": ".cache",
    "MeteredCompressor": ".rerank",
    "MeteredEmbeddings": ".embeddings",
    "metering": ".attach",
}

__all__ = [
    "MeterCallback",
    "MeterMiddleware",
    "MeteredCache",
    "MeteredCompressor",
    "MeteredEmbeddings",
    "metering",
]

__getattr__, __dir__ = front_door(globals(), _LAZY, "agent-meter[langchain]")
