"""The older callback manager, for programs that cannot use instrumentation.

`MeterHandler` hears everything that these callbacks do and more: agents, tools and steps fire none of them. Beside a
`MeterHandler` of the same meter this handler keeps silent, so that nothing is counted twice. It can refuse a call.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler

from ...errors import BudgetExceeded
from ...meter import Meter, default_meter
from ...records import EMBEDDING, EMPTY, LLM, OK, RUN, STEP, Call, Kind, Model, TokenUsage
from ...tokens import estimate_tokens
from .embeddings import GUESSED
from .handler import metered
from .models import FRAMEWORK, Models
from .nodes import Flight, Node, Nodes, Role

_KINDS = {
    CBEventType.LLM: LLM,
    CBEventType.EMBEDDING: EMBEDDING,
    CBEventType.QUERY: RUN,
    CBEventType.RETRIEVE: STEP,
}
_WRAPPERS = "llama_index.core.llms.callbacks"  # what fires the events, and holds their ids
# Class names that say more or less than who answers; the rest are the provider's, and `_llm`.
_PROVIDERS = {"genai": "google_genai", "openailike": "openai_like", "openai_responses": "openai"}


class MeterCallbackHandler(BaseCallbackHandler):
    """`Settings.callback_manager = CallbackManager([MeterCallbackHandler(meter)])`, before any model is made."""

    def __init__(self, meter: Meter | None = None) -> None:
        super().__init__([], [])
        self.meter = meter if meter is not None else default_meter()
        self._models = Models(self.meter, Nodes())
        self._nodes: dict[str, Node] = {}

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None: ...

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        try:
            kind = _KINDS.get(event_type)
            if kind is not None and not metered(self.meter):
                self._start(kind, event_type, payload or {}, event_id, parent_id)
        except BudgetExceeded:
            raise
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "on_event_start", error)
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        try:
            node = self._nodes.pop(event_id, None)
            if node is not None:
                self._end(node, payload or {})
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "on_event_end", error)

    def _start(
        self, kind: Kind, event_type: CBEventType, payload: Mapping[str, Any], event_id: str, parent_id: str
    ) -> None:
        parent = self._nodes.get(parent_id)
        role = Role.ASK if kind is LLM else Role.EMBED if kind is EMBEDDING else Role.QUERY
        node = Node(event_id, parent, role, call=None if parent is None else parent.call)
        if kind is RUN or kind is STEP:
            if kind is RUN and node.call is not None:
                kind = STEP
            node.call, node.own = Call(kind, str(event_type.value), parent=node.call, framework=FRAMEWORK), True
            self.meter.open(node.call)
        else:
            told = payload.get(EventPayload.SERIALIZED) or {}
            self._ask(node, kind, told, payload)
        self._nodes[event_id] = node

    def _ask(self, node: Node, kind: Kind, told: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
        params = payload.get(EventPayload.ADDITIONAL_KWARGS) or EMPTY
        name = params.get("model") or told.get("model_name") or told.get("model") or ""
        flight = Flight(node.id, node, None)
        flight.params = params
        flight.asked = payload.get(EventPayload.MESSAGES) or payload.get(EventPayload.PROMPT) or ""
        around = self._around() if kind is LLM else None
        model = Model(_provider(told), str(name))
        if around is not None and around.call is not None:
            flight.call, flight.opened, around.call = around.call, around.opened, None
        else:
            flight.call = Call(kind, model=model, parent=node.call, framework=FRAMEWORK)
        node.flights = [flight]
        self._models.fly(flight)
        self._models.admit(flight)

    def _around(self) -> Flight | None:
        """The model whose method is being run: these events do not say what is inside of what, the call stack does."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame.f_globals.get("__name__") == _WRAPPERS:
                node = self._nodes.get(frame.f_locals.get("event_id") or "")
                if node is not None:
                    return node.flight()
            frame = frame.f_back
        return None

    def _end(self, node: Node, payload: Mapping[str, Any]) -> None:
        error = payload.get(EventPayload.EXCEPTION)
        if node.own and node.call is not None:
            self.meter.close(node.call)
            return
        flight = node.flight()
        if flight is None:
            return
        if node.role is Role.EMBED:
            self._embedded(flight, [text for text in payload.get(EventPayload.CHUNKS) or () if isinstance(text, str)])
        elif error is not None:
            self._models.dropped(node, error)
        else:
            self._models.finish(flight, payload.get(EventPayload.RESPONSE) or payload.get(EventPayload.COMPLETION))

    def _embedded(self, flight: Flight, texts: list[str]) -> None:
        call, flight.ended = flight.call, True
        if call is not None:
            name = call.model.name if call.model is not None else ""
            usage = TokenUsage(sum(estimate_tokens(text, name) for text in texts), missing=("input_tokens",))
            self.meter.close(call, usage, status=OK, notes=(GUESSED,))


def _provider(told: Mapping[str, Any]) -> str:
    name = str(told.get("class_name") or "").lower()
    return _PROVIDERS.get(name, name.removesuffix("_llm").removesuffix("embedding"))
