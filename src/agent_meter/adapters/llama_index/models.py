"""Model calls: from LlamaIndex's start event to the end of the answer, or of the stream.

A call is opened where LlamaIndex asks its rate limiter, after the start event and before the request: there, and
nowhere else, a denial reaches the caller. A model inside a model takes over the call of the one around it, so that
wrappers are asked about once and counted once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter
from ...records import ABANDONED, CANCELLED, DENIED, EMPTY, ERROR, LLM, OK, Call, Status
from ..asking import Prompt, output_limit
from .answering import UNREAD, Answer, answer, failed, tells
from .asking import attribute, model_of
from .nodes import Flight, Node, Nodes, Role

FRAMEWORK = "llama_index"
MOST_TOLD = 512
LOST = "nobody read the stream; whether it was sent, and billed, was not seen"
WARNED_MOST = 1000


class Models:
    """The model calls of one meter."""

    def __init__(self, meter: Meter, nodes: Nodes) -> None:
        self.meter = meter
        self._nodes = nodes
        self._flights: dict[str, Flight] = {}
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self._flights)

    # ------------------------------------------------------------------------------------------------ begin

    def start(self, event: Any) -> None:
        """`LLMChatStartEvent`, `LLMCompletionStartEvent`."""
        span_id: str = event.span_id
        node = self._nodes.find(span_id)
        if node is None:  # it began before anybody listened, or after everybody stopped
            return
        if node.id != span_id:
            node = Node(span_id, node, Role.ASK, call=node.call)
            self._nodes.open[span_id] = node
        around = ask_below(node)
        params: Mapping[str, Any] = event.additional_kwargs
        asked = getattr(event, "messages", None)
        if asked is None:
            asked = event.prompt
        model = model_of(node.instance, event.model_dict, params)
        flight = Flight(span_id, node, None)
        flight.asked, flight.params = asked, params
        if around is not None and around.call is not None and not around.ended:
            call = flight.call = around.call
            flight.opened, around.call = around.opened, None
            flight.denial = around.denial
            if call.model != model:
                call.model = model
                if flight.opened:
                    call.rates = self.meter.rates(model)
            attribute(call, event.tags)
        else:
            call = flight.call = Call(LLM, model=model, parent=node.call, framework=FRAMEWORK)
            attribute(call, event.tags)
        if self.meter.has_budgets:
            made_with = getattr(node.instance, "__dict__", EMPTY)
            call.prompt = Prompt(asked, model.name, params.get("tools"))
            call.max_output_tokens = output_limit(params, made_with, made_with.get("additional_kwargs"))
        if self.meter.wants_content:
            call.content = asked
        node.flights = [flight]
        self.fly(flight)

    def fly(self, flight: Flight) -> None:
        self._flights[flight.span_id] = flight

    def finish(self, flight: Flight, response: Any) -> None:
        """It was answered, whole."""
        self._flights.pop(flight.span_id, None)
        self._close(flight, response, OK, None)

    def admit(self, flight: Flight) -> None:
        """Ask the guards, once. Raises `BudgetExceeded`, and then the call is over."""
        call = self._asking(flight)
        if call is not None:
            try:
                self.meter.open(call)
            except BudgetExceeded:
                self._denied(flight)
                raise

    async def aadmit(self, flight: Flight) -> None:
        """`admit` where a budget may wait."""
        call = self._asking(flight)
        if call is not None:
            try:
                await self.meter.aopen(call)
            except BudgetExceeded:
                self._denied(flight)
                raise

    def _asking(self, flight: Flight) -> Call | None:
        if flight.denial is not None:
            self._denied(flight)
            raise flight.denial
        call = flight.call
        if flight.opened or call is None or flight.ended:
            return None
        flight.opened = True
        return call

    def _denied(self, flight: Flight) -> None:
        flight.ended = True
        self._flights.pop(flight.span_id, None)

    def _open_late(self, flight: Flight) -> None:
        """No rate limiter was asked, so nobody could refuse: what is sent is counted, whatever the guards say."""
        try:
            self.admit(flight)
        except BudgetExceeded as error:
            self.meter.plugins.failed(FRAMEWORK, "a denied call was sent", error)

    # ----------------------------------------------------------------------------------------------- answer

    def chunk(self, event: Any) -> None:
        # Called for every chunk: nothing here may cost more than a look-up.
        flight = self._flights.get(event.span_id)
        if flight is None:
            return
        response = flight.last = event.response
        call = flight.call
        if call is None:  # a wrapper, told of the chunks of the model inside of it
            return
        if call.first_token_at is None:
            self._first(flight, call, response)
        raw = response.raw
        if raw is not None and tells(raw):
            told = flight.told
            told.append(raw)
            if len(told) > MOST_TOLD:
                del told[1 : MOST_TOLD // 2]

    def _first(self, flight: Flight, call: Call, response: Any) -> None:
        flight.streamed = call.streamed = True
        if not flight.opened:
            self._open_late(flight)
        if response.delta or _asks_for_tools(response):
            call.first_token_at = self.meter.monotonic()

    def end(self, event: Any) -> None:
        """`LLMChatEndEvent`, `LLMCompletionEndEvent`: of a stream it has the last chunk, `None` of an empty one."""
        flight = self._flights.pop(event.span_id, None)
        if flight is None or flight.ended:
            return
        if flight.node.stream is not None:
            self._nodes.dry(flight.node)
            flight.streamed = True
        response = event.response
        if response is None:
            response = flight.last
        self._close(flight, response, OK, None)

    def failed(self, event: Any) -> None:
        """`ExceptionEvent`: the stream was closed, or failed."""
        flight = self._flights.get(event.span_id)
        if flight is not None:
            flight.streamed = True
            self._nodes.dry(flight.node)
            self._fail(flight, event.exception)

    def dropped(self, node: Node, error: BaseException | None) -> None:
        """The span ended in an error."""
        for flight in node.flights or ():
            if not flight.ended and flight.span_id in self._flights:
                self._fail(flight, error)

    def _fail(self, flight: Flight, error: BaseException | None) -> None:
        self._flights.pop(flight.span_id, None)
        if not flight.opened:  # never sent: somebody's callback or rate limiter said no
            flight.ended = True
            return
        status = DENIED if isinstance(error, BudgetExceeded) else status_of(error) if error is not None else ERROR
        self._close(flight, None, status, error)

    def lost(self, node: Node) -> None:
        """Its generator was collected: nobody will read on."""
        for flight in node.flights or ():  # at most one
            if flight.ended or self._flights.pop(flight.span_id, None) is None:
                continue
            flight.streamed = True
            status = ABANDONED if flight.last is None else CANCELLED
            self._close(flight, None, status, None)

    def _close(self, flight: Flight, response: Any, status: Status, error: BaseException | None) -> None:
        flight.ended = True
        flight.node.flights = None  # no cycle is left for the garbage collector
        call, meter = flight.call, self.meter
        if call is None:
            return
        if not flight.opened:
            self._open_late(flight)
        unread: Exception | None = None
        try:
            if response is not None:
                found = answer(flight, response)
            elif error is not None:
                found = failed(flight, error)
            elif flight.last is not None:
                found = answer(flight, flight.last, cut=True)
            else:
                found = Answer(notes=(LOST,) if status is ABANDONED else (), unseen=True)
        except Exception as failure:
            found, unread = UNREAD, failure
        call.streamed = call.streamed or flight.streamed
        call.error = error
        if meter.wants_content:
            call.response = response
        error_type = type(error).__name__ if error is not None else None
        if status is OK and found.error_type is not None:
            status, error_type = ERROR, found.error_type
        elif status is ABANDONED:
            error_type = "abandoned"
        elif status is CANCELLED and error is None:
            error_type = "GeneratorExit"
        meter.close(
            call,
            found.usage,
            status=status,
            error_type=error_type,
            response_model=found.response_model,
            response_id=found.response_id,
            estimated=found.unseen,
            tools=found.tools,
            notes=found.notes,
        )
        if found.passes:
            meter.record_passes(call, found.passes, response_model=found.response_model)
        seen = call.wire is not None and call.wire.told
        if found.without_usage and flight.streamed and status is OK and not seen:
            self._warn(str(call.model or "A model"))
        flight.asked = flight.last = call.prompt = None
        flight.params, flight.told = EMPTY, []
        if unread is not None:
            raise unread

    def _warn(self, model: str) -> None:
        if model in self._warned or len(self._warned) >= WARNED_MOST:
            return
        self._warned.add(model)
        logging.getLogger("agent_meter").warning(
            "%s streams its answers without usage, so their tokens and cost are estimated. Ask for the numbers where "
            "the server has them: additional_kwargs={'stream_options': {'include_usage': True}}.",
            model,
        )


_ASKING = (Role.ASK, Role.STRUCTURED)


def ask_below(node: Node) -> Flight | None:
    """Tell every span around that a model is asked inside of it; the flight of the nearest one that asks itself."""
    around: Flight | None = None
    above = node.parent
    while above is not None:
        above.asked = True
        if around is None and above.flights and above.role in _ASKING:
            around = above.flight()
        above = above.parent
    return around


def _asks_for_tools(response: Any) -> bool:
    message = getattr(response, "message", None)
    if message is None:
        return False
    if message.additional_kwargs.get("tool_calls"):
        return True
    return any(getattr(block, "block_type", "") in ("tool_call", "thinking") for block in message.blocks)
