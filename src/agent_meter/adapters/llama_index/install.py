"""Process-wide: LlamaIndex is metered from the moment in which its core is imported, and not loaded for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from ...meter import Meter


def attach(core: ModuleType, meter: Meter) -> Callable[[], None]:
    """Register a handler; the answer takes it away. `core` is `llama_index.core`, whole by now."""
    from .handler import MeterHandler

    return MeterHandler(meter).register().unregister
