"""`agent_meter.install()`: meter the whole process, whichever framework it uses, with nothing passed to anything.

No framework is imported for it. One that is imported already is metered at once, any other from the moment in which
the program imports it: a finder in front of `sys.meta_path` waits for the one module that an adapter attaches to.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any, Self

from .meter import Meter, default_meter

# The module that an adapter waits for, and the adapter's module with `attach(module, meter) -> undo`.
ADAPTERS = {
    "langchain_core.tracers.context": ".adapters.langchain.install",
    "llama_index.core": ".adapters.llama_index.install",
}

_lock = threading.RLock()


class Installation:
    """What `install()` did. `close()` undoes it; also a context manager."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._undo: list[Callable[[], None]] = []
        self._closed = False

    def _attach(self, name: str, module: ModuleType) -> None:
        """Never raises: what fails here would otherwise fail the program's own import."""
        try:
            adapter = import_module(ADAPTERS[name], __package__)
            with _lock:
                if not self._closed:
                    self._undo.append(adapter.attach(module, self.meter))
        except Exception as error:
            self.meter.plugins.failed("install", name, error)

    def close(self) -> None:
        """Meter no run that begins from now on. What runs already ends as it began. Twice is as good as once."""
        with _lock:
            self._closed = True
            undo, self._undo = self._undo, []
        for step in undo:
            step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def install(meter: Meter | None = None, *, wire: bool = False) -> Installation:
    """Meter every framework of the process that agent_meter knows, on every thread, until `close()`.

    Beside callbacks that are passed explicitly, `metering()` and other installations of the same meter it counts
    once. Two installed meters both count. Without a meter it is the process's `default_meter()`.

    With `wire=True` HTTP answers are read as well: what the provider said counts, and a model call that no framework
    announced is admitted, or refused, and recorded, too.
    """
    installation = Installation(meter if meter is not None else default_meter())
    if wire:
        from .adapters.wire import switch_on

        installation._undo.append(switch_on(installation.meter, unannounced=True).close)
    for name in ADAPTERS:
        forget = after_import(name, partial(installation._attach, name))
        installation._undo.append(forget)
    return installation


def after_import(name: str, then: Callable[[ModuleType], None]) -> Callable[[], None]:
    """Call `then` with the module: at once where it is imported already, else when it is. The answer calls it off.

    `then` must not raise: it would fail the program's own import.
    """
    with _lock:
        waits = name not in sys.modules
        if waits:
            _imports.wait(name, then)
    if not waits:
        # A module that another thread is importing right now is whole when this returns.
        then(import_module(name))
    return partial(_imports.forget, name, then)


class _Imports:
    """Finds nothing itself: lets the other finders find a module that is waited for, and tells when it is loaded."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Callable[[ModuleType], None]]] = {}

    def wait(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._waiting.setdefault(name, []).append(then)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self, name: str, then: Callable[[ModuleType], None]) -> None:
        with _lock:
            waiting = [other for other in self._waiting.get(name, ()) if other is not then]
            if waiting:
                self._waiting[name] = waiting
            else:
                self._waiting.pop(name, None)
            if not self._waiting and self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._waiting:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                self._listen(name, spec.loader)
                return spec
        return None

    def _listen(self, name: str, loader: Any) -> None:
        """Hear of the end of a load from this one loader; it may load other modules too, as that of a zip file does."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if module.__name__ != name:
                return
            with _lock:
                waiting = self._waiting.pop(name, [])
                if not self._waiting and self in sys.meta_path:
                    sys.meta_path.remove(self)
            for then in waiting:
                then(module)

        loader.exec_module = exec_module


_imports = _Imports()
