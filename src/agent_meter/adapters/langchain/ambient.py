"""What is around a call: which meter is attached to it, in which run, for whom.

For calls for which LangChain fires no events. Embeddings, rerankers and cached answers of text models have no
callbacks, no config and no metadata of their own, but the chain, the graph or the tool around them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.runnables.config import var_child_runnable_config

from ...meter import Meter, default_meter
from ...records import EMPTY, Call, Kind, Model
from . import attach, install
from .asking import attribute
from .callback import MeterCallback
from .flights import FRAMEWORK, Flight, flights_of


class Ambient(NamedTuple):
    meter: Meter
    flight: Flight | None  # the LangChain run around
    metadata: Mapping[str, Any]

    @property
    def parent(self) -> Call | None:
        return None if self.flight is None else self.flight.call

    def call(self, kind: Kind, model: Model) -> Call:
        """A call of that run, with what is known of whose it is."""
        call = Call(kind, model=model, parent=self.parent, framework=FRAMEWORK)
        attribute(call, self.metadata, self.flight)
        return call


def ambient(meter: Meter | None, callbacks: Any = None) -> Ambient:
    """`callbacks` is what LangChain handed over for this call, if it did.

    Without a meter it is the one that is attached around the call, else the process's.
    """
    config: Mapping[str, Any] = var_child_runnable_config.get() or EMPTY
    managers = [manager for manager in (callbacks, config.get("callbacks")) if manager]
    if meter is None:
        meter = next(_attached(managers), None) or default_meter()
    metadata = config.get("metadata") or EMPTY
    for manager in managers:
        flight = flights_of(meter).find(getattr(manager, "parent_run_id", None))
        if flight is not None:
            return Ambient(meter, flight, {**metadata, **getattr(manager, "metadata", EMPTY)})
    return Ambient(meter, None, metadata)


def _attached(managers: list[Any]) -> Iterator[Meter]:
    for manager in managers:
        for handler in getattr(manager, "handlers", manager):
            if isinstance(handler, MeterCallback):
                yield handler.meter
    around = attach._attached.get()
    if around is not None:
        yield around.meter
    yield from install.installed()


def attached(meter: Meter) -> bool:
    """Whether what LangChain runs here is told to this meter already."""
    manager = (var_child_runnable_config.get() or EMPTY).get("callbacks")
    return any(found is meter for found in _attached([manager] if manager else []))
