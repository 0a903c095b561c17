"""MeterHandler: one event handler and one span handler on LlamaIndex's root dispatcher, for the whole process."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from ... import joining
from ...meter import Meter, default_meter
from . import gate, probe, requesting, tap
from .collecting import watch_collector
from .listener import Listener

if TYPE_CHECKING:
    from ..wire import Switch


class _Events(BaseEventHandler):
    """LlamaIndex's base class is a pydantic model; `handle` is the listener's own, for it runs with every chunk."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.__dict__["handle"] = listener.handle

    @classmethod
    def class_name(cls) -> str:
        return "AgentMeterEvents"

    def handle(self, event: Any, **kwargs: Any) -> None: ...


class _Spans(BaseSpanHandler[Any]):
    """LlamaIndex keeps every open span of a handler that uses its own methods; these keep what is needed."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        for name in ("span_enter", "span_exit", "span_drop"):
            self.__dict__[name] = getattr(listener, name)

    @classmethod
    def class_name(cls) -> str:
        return "AgentMeterSpans"

    def new_span(self, *args: Any, **kwargs: Any) -> None: ...

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None: ...

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None: ...


class _Registered:
    """The handlers of one meter, for as long as somebody wants them."""

    def __init__(self, meter: Meter) -> None:
        self.listener = Listener(meter)
        self.events = _Events(self.listener)
        self.spans = _Spans(self.listener)
        self.wanted = 0

    def take_away(self) -> None:
        """Called when nothing is under way any more."""
        with _lock:
            if self.wanted or _registered.pop(id(self.listener.meter), None) is None:
                return
            dispatcher = get_dispatcher()
            # New lists, for the dispatcher may be going through the old ones. By identity: all handlers of a class are
            # equal to pydantic.
            dispatcher.event_handlers = [h for h in dispatcher.event_handlers if h is not self.events]
            dispatcher.span_handlers = [h for h in dispatcher.span_handlers if h is not self.spans]
            _tell_the_doors()


_registered: dict[int, _Registered] = {}
_lock = threading.RLock()


class MeterHandler:
    """Meters every model call, embedding, reranking, tool, agent, workflow and query of LlamaIndex in this process.

        MeterHandler(meter).register()

    or, for a block, `with MeterHandler(meter):`. Registering a meter twice counts once. Without a meter it is the
    process's `default_meter()`. With `wire=True`, what the provider's HTTP answers say is joined to each call, and
    counts, for as long as the handler is registered.
    """

    def __init__(self, meter: Meter | None = None, *, wire: bool = False) -> None:
        self.meter = meter if meter is not None else default_meter()
        self._wire = wire
        self._switches: list[Switch] = []
        self._here = 0

    def register(self) -> Self:
        """Meter what begins from now on, on every thread."""
        with _lock:
            entry = _registered.get(id(self.meter))
            if entry is None:
                entry = _registered[id(self.meter)] = _Registered(self.meter)
                dispatcher = get_dispatcher()
                dispatcher.add_event_handler(entry.events)
                dispatcher.add_span_handler(entry.spans)
                _tell_the_doors()
            entry.listener.stay()
            entry.wanted += 1
            self._here += 1
            if self._wire:
                from ..wire import switch_on  # on first use: most handlers have no tap

                self._switches.append(switch_on(self.meter))
        return self

    def unregister(self) -> None:
        """Meter nothing that begins from now on; what runs already ends as it began.

        Without a `register()` before it, it does nothing.
        """
        with _lock:
            entry = _registered.get(id(self.meter))
            if entry is None or not self._here:
                return
            self._here -= 1
            entry.wanted -= 1
            if self._switches:
                self._switches.pop().close()
            if not entry.wanted:
                entry.listener.leave(entry.take_away)

    @property
    def registered(self) -> bool:
        return self._here > 0

    def __enter__(self) -> Self:
        return self.register()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unregister()


def metered(meter: Meter) -> bool:
    """Whether what LlamaIndex does is told to this meter already."""
    entry = _registered.get(id(meter))
    return entry is not None and entry.wanted > 0


def _tell_the_doors() -> None:
    """Who is asked before a call is sent, and who is told of what clients answer."""
    listeners = [entry.listener for entry in _registered.values()]
    gate.guards = tuple(listeners)
    tap.ears = tuple(listener.embeddings for listener in listeners)
    joining.readers = tuple(listener.sending for listener in listeners)
    probe.ears = tuple(listener.embeddings.hit for listener in listeners)
    watch_collector(bool(listeners))
    if not listeners:
        gate.detach_all()
        tap.detach_all()
        probe.detach_all()
        requesting.withdraw_all()
