"""Objects of the user's that were changed, to be changed back: remembered for as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any


class Touched:
    """By identity, for pydantic models cannot be hashed."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def add(self, thing: Any, before: Any = None) -> None:
        """`before` is what it is to be given back."""
        key = id(thing)
        if key not in self._kept:
            self._kept[key] = (weakref.ref(thing, lambda _: self._kept.pop(key, None)), before)

    def take(self) -> Iterator[tuple[Any, Any]]:
        """Each that still lives, once."""
        for key in list(self._kept):
            kept = self._kept.pop(key, None)
            thing = None if kept is None else kept[0]()
            if thing is not None and kept is not None:
                yield thing, kept[1]
