"""Front doors whose names load their module on first use: a framework is imported by who asks for its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def front_door(
    module: dict[str, Any], rooms: Mapping[str, str], install: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's `__getattr__` and `__dir__`: `rooms` says which submodule has which name. Once loaded, it stays.

    `install` is what brings a package that is not there, and is said.
    """
    package = module["__name__"]

    def load(name: str) -> Any:
        room = rooms.get(name)
        if room is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = module[name] = getattr(import_module(room, package), name)
        except ModuleNotFoundError as error:
            if not install or not error.name or error.name.startswith("agent_meter"):
                raise
            needed = error.name.partition(".")[0]
            raise ModuleNotFoundError(f"{name} needs {needed}: pip install '{install}'", name=error.name) from error
        return value

    return load, lambda: list(module["__all__"])
