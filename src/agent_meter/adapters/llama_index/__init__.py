"""LlamaIndex: `MeterHandler(meter).register()`, and everything that LlamaIndex asks a model is metered.

This adapter can refuse a model call and an embedding: a denied one is never sent, and the caller sees
`BudgetExceeded`. It cannot refuse a tool: LlamaIndex swallows what a handler raises. Needs llama-index-core alone; each
name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    room = _LAZY.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(room, __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
