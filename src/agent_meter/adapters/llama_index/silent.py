"""Calls that LlamaIndex tells nobody of: some integrations answer `structured_predict` without any event.

GoogleGenAI and OpenAIResponses ask their SDK directly, and throw the answer's usage away. What is left is the span:
it is recorded as one call, estimated and flagged. Such a call cannot be refused by itself; inside an
`as_structured_llm()` the call around it can.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from llama_index.core.llms.llm import LLM

from ... import joining
from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter
from ...records import EMPTY, ERROR, OK, Call, Kind, Status, TokenUsage
from ...tokens import estimate_prompt, estimate_tokens
from ..failing import UNSEEN, never_answered
from .asking import attribute, model_of
from .models import FRAMEWORK, ask_below
from .nodes import Flight, Node, Nodes, frame_of, runs

SILENT = "the integration asked its client directly and told nothing of the answer; tokens are estimated"


class Silent:
    """The calls of one meter that are known by their span alone."""

    def __init__(self, meter: Meter, nodes: Nodes) -> None:
        self._meter = meter
        self._nodes = nodes
        self._warned: set[str] = set()
        self._streams: dict[str, tuple[Node, Any, Any]] = {}  # what is read later, with its class and its arguments

    def entered(self, node: Node, arguments: Mapping[str, Any], instance: Any, tags: Any) -> None:
        node.tags = tags
        node.started = self._meter.monotonic()
        if not self._meter.joining.taps or not overrides(instance, node.name):
            return
        # A tap will see the request: it must be announced. A model that asks by `chat` after all takes the call over.
        around = ask_below(node)
        flight = Flight(node.id, node, None)
        if around is not None and around.call is not None:
            flight.call, around.call = around.call, None
            flight.opened, flight.denial = around.opened, around.denial
        else:
            model = model_of(instance, EMPTY, arguments.get("llm_kwargs") or EMPTY)
            flight.call = Call(Kind.LLM, model=model, parent=node.call, framework=FRAMEWORK)
            attribute(flight.call, tags)
            flight.opened = True
            try:
                self._meter.open(flight.call)
            except BudgetExceeded as error:
                flight.call, flight.denial = None, error
        node.flights = [flight]

    def answered(self, node: Node, arguments: Mapping[str, Any], instance: Any, result: Any) -> None:
        if not overrides(instance, node.name):
            return
        if frame_of(result) is not None:
            inner = self._nodes.flowing(result)
            if inner is not None and inner.id in self._streams:
                return  # made by this method's `super()`, which answers for it
            flight = node.flight()
            self._streams[node.id] = (node, instance, arguments)
            self._nodes.flows(node, result, self._read_to_its_end)
            if flight is not None and flight.call is not None:
                self._meter.detach(flight.call)
                joining.handed_over(flight.call, partial(runs, node.stream))
        elif not node.asked:
            self._record(node, arguments, instance, result, OK, None)

    def _read_to_its_end(self, node: Node) -> None:
        kept = self._streams.pop(node.id, None)
        if kept is None or node.asked:
            return
        try:
            self._record(node, kept[2], kept[1], None, OK, None)
        except Exception as error:
            self._meter.plugins.failed(FRAMEWORK, "silent stream", error)

    def failed(self, node: Node, arguments: Mapping[str, Any], instance: Any, error: BaseException | None) -> None:
        if not node.asked and error is not None and overrides(instance, node.name):
            self._record(node, arguments, instance, None, status_of(error), error)

    def _record(
        self,
        node: Node,
        arguments: Mapping[str, Any],
        instance: Any,
        result: Any,
        status: Status,
        error: BaseException | None,
    ) -> None:
        around = node.flight() or ask_below(node)
        model = model_of(instance, EMPTY, arguments.get("llm_kwargs") or EMPTY)
        usage: TokenUsage | None = None
        notes: tuple[str, ...] = ()
        if status is not ERROR:
            usage, notes = self._guess(arguments, result, model.name), (SILENT,)
            if not self._meter.joining.taps:
                self._warn(str(model))
        elif error is not None and not never_answered(error):
            notes = UNSEEN
        error_type = None if error is None else type(error).__name__
        if around is not None and around.call is not None and around.opened:
            call, around.call = around.call, None
            call.model, call.rates = model, self._meter.rates(model)
            call.error = error
            self._meter.close(call, usage, status=status, error_type=error_type, estimated=bool(notes), notes=notes)
            return
        call = Call(Kind.LLM, model=model, parent=node.call, framework=FRAMEWORK)
        attribute(call, node.tags)
        self._meter.record_call(
            call,
            usage,
            status=status,
            error_type=error_type,
            estimated=bool(notes),
            notes=notes,
            duration=self._meter.monotonic() - node.started,
        )

    def _guess(self, arguments: Mapping[str, Any], result: Any, model: str) -> TokenUsage:
        prompt: Any = arguments.get("prompt")
        asked: Any = ()
        if hasattr(prompt, "format_messages"):
            asked = prompt.format_messages(**(arguments.get("prompt_args") or {}))
        dump = getattr(result, "model_dump_json", None)
        said = dump() if callable(dump) else str(result or "")
        return TokenUsage(
            estimate_prompt(asked, model), estimate_tokens(said, model), missing=("input_tokens", "output_tokens")
        )

    def _warn(self, model: str) -> None:
        if model in self._warned or len(self._warned) > 1000:
            return
        self._warned.add(model)
        logging.getLogger("agent_meter").warning(
            "%s: LlamaIndex's integration tells nothing of its structured predictions, so their tokens and cost are "
            "estimated. MeterHandler(meter, wire=True) reads them from the wire.",
            model,
        )


def overrides(instance: Any, method: str) -> bool:
    """Whether an integration has its own way, instead of LlamaIndex's, which asks by `chat` and is heard."""
    own = getattr(getattr(type(instance), method, None), "__wrapped__", None)
    theirs = getattr(getattr(LLM, method, None), "__wrapped__", None)
    return own is not theirs
