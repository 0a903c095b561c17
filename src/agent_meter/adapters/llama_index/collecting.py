"""Whether a finalizer runs because the last name of a thing went, or inside a garbage collection.

The first is an ordinary place in a program. A collection may begin anywhere, with any lock held.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

_collecting: set[int] = set()


def collecting() -> bool:
    """Whether this thread is inside a garbage collection."""
    return threading.get_ident() in _collecting


def _watch(phase: str, info: dict[str, Any]) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())
    else:
        _collecting.discard(threading.get_ident())


def watch_collector(on: bool) -> None:
    if on and _watch not in gc.callbacks:
        gc.callbacks.append(_watch)
    elif not on and _watch in gc.callbacks:
        gc.callbacks.remove(_watch)
