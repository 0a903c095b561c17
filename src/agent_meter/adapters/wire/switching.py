"""Switching taps on and off: one of each kind in the process, however many ask for it.

A library that is not imported yet is tapped when it is: nothing is imported for this.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Self

from ...installation import after_import
from ...meter import Meter
from . import operations, taps
from .taps import Owner

_lock = threading.RLock()


def _nobody() -> Sequence[Owner]:
    return ()


def _httpx(module: ModuleType) -> list[Callable[[], None]]:
    from . import httpx_tap

    undo = httpx_tap.tap(module, module.HTTPTransport, _nobody)
    return undo + httpx_tap.tap(module, module.AsyncHTTPTransport, _nobody)


def _botocore(module: ModuleType) -> list[Callable[[], None]]:
    from . import urllib3_tap

    return urllib3_tap.tap_botocore(module.URLLib3Session, _nobody)


def _requests(module: ModuleType) -> list[Callable[[], None]]:
    from . import urllib3_tap

    return urllib3_tap.tap_requests(module.HTTPAdapter, _nobody)


def _aiohttp(module: ModuleType) -> list[Callable[[], None]]:
    from . import aiohttp_tap

    return aiohttp_tap.tap(module, module.ClientSession, _nobody)


# The module that has to be there, and what is done with it: the answers undo it.
TRANSPORTS: dict[str, Callable[[Any], list[Callable[[], None]]]] = {
    "httpx": _httpx,
    "httpx2": _httpx,
    "botocore.httpsession": _botocore,
    "requests.adapters": _requests,
    "aiohttp": _aiohttp,
}


class _Patches:
    """Libraries patched while anybody wants them to be."""

    def __init__(self, patches: dict[str, Callable[[Any], list[Callable[[], None]]]]) -> None:
        self.wanted = 0
        self._patches = patches
        self._undo: dict[str, list[Callable[[], None]]] = {}
        self._waiting: list[Callable[[], None]] = []

    def on(self, complain: Callable[[str, Exception], None]) -> None:
        self.wanted += 1
        if self.wanted == 1:
            self._waiting = [after_import(name, partial(self._patch, name, complain)) for name in self._patches]

    def _patch(self, name: str, complain: Callable[[str, Exception], None], module: ModuleType) -> None:
        with _lock:
            if not self.wanted or name in self._undo:
                return
            try:
                self._undo[name] = self._patches[name](module)
            except Exception as error:  # a version that nobody knew: what it sends goes as it went
                complain(name, error)

    def off(self) -> None:
        self.wanted -= 1
        if self.wanted:
            return
        waiting, self._waiting = self._waiting, []
        undo, self._undo = self._undo, {}
        for forget in waiting:
            forget()
        for steps in undo.values():
            for step in steps:
                step()


process = _Patches(TRANSPORTS)
clients = _Patches(dict.fromkeys(operations.MODULES, operations.patch))


class Switch:
    """The taps of the process, on for one meter until `close()`; also a context manager."""

    def __init__(self, meter: Meter, ask_for_usage: bool, unannounced: bool) -> None:
        self._joining = meter.joining
        self._asks = ask_for_usage
        self._owner = Owner(meter, ask_for_usage) if unannounced else None
        self._on = True
        with _lock:
            self._joining.taps += 1
            self._joining.asking += ask_for_usage
            process.on(self._joining.failed)
            if self._owner is not None:
                clients.on(self._joining.failed)
                taps.installed.append(self._owner)

    def close(self) -> None:
        """Look at no request that is sent from now on. Twice is as good as once."""
        with _lock:
            if not self._on:
                return
            self._on = False
            self._joining.taps -= 1
            self._joining.asking -= self._asks
            if self._owner is not None:
                taps.installed.remove(self._owner)
                clients.off()
            process.off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def switch_on(meter: Meter, *, ask_for_usage: bool = True, unannounced: bool = False) -> Switch:
    """Read the HTTP answers to what this meter's adapters announce, in the whole process.

    `ask_for_usage`: add `stream_options.include_usage` to streams that do not ask, and take out what comes of it.
    `unannounced`: also admit and record model calls that no adapter announced.
    """
    return Switch(meter, ask_for_usage, unannounced)


_kept_on: weakref.WeakSet[Meter] = weakref.WeakSet()


def keep_on(meter: Meter) -> None:
    """What `wire=True` of an adapter does: on for this meter, once, until it is shut down or nobody has it any more."""
    with _lock:
        if meter in _kept_on:
            return
        _kept_on.add(meter)
    switch = switch_on(meter)
    meter.joining.at_shutdown.append(switch.close)
    weakref.finalize(meter, switch.close).atexit = False
