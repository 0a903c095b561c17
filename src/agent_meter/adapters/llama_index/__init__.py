"""LlamaIndex: `MeterHandler(meter).register()`, and everything that LlamaIndex asks a model is metered.

This adapter can refuse a model call and an embedding: a denied one is never sent, and the caller sees
`BudgetExceeded`. It cannot refuse a tool: LlamaIndex swallows what a handler raises. Needs llama-index-core alone; each
name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import front_door

if TYPE_CHECKING:
    from .cache import MeteredEmbeddingCache
    from .handler import MeterHandler
    from .legacy import MeterCallbackHandler
    from .tagging import tagged

_LAZY = {
    "MeterCallbackHandler": ".legacy",
    "MeterHandler": ".handler",
    "MeteredEmbeddingCache": ".cache",
    "tagged": ".tagging",
}

__all__ = ["MeterCallbackHandler", "MeterHandler", "MeteredEmbeddingCache", "tagged"]

__getattr__, __dir__ = front_door(globals(), _LAZY, "agent-meter[llama-index]")
