"""The ledger: where every record is kept, and who answers for the past."""

from __future__ import annotations

from .base import Audit, Difference, Price, Progress, Settlement, SharedStore, Store
from .memory import MemoryStore

__all__ = ["Audit", "Difference", "MemoryStore", "Price", "Progress", "Settlement", "SharedStore", "Store"]
