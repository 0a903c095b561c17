"""MeterCallback: one synchronous handler for sync and async, streaming or not.

Rules that the events force on it:

* `run_inline`: LangChain calls it on the caller's thread, in its context, also in async code. Any other handler
  costs a hop to a thread for every token.
* `raise_error`: the only way to refuse a call. Hence nothing else may ever be raised from here: `_fenced`.
* Both `on_chat_model_start` and `on_llm_start`, or LangChain renders all messages to one string for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter, default_meter
from ...records import EMPTY, Call, Kind, Status
from .answering import UNREAD, Answer, failed, read
from .asking import UNNAMED, ambient_parent, attempt_of, attribute, model_of, tool_cost
from .estimating import warn_of_stream
from .fence import denial_for_langchain
from .flights import FRAMEWORK as FRAMEWORK
from .flights import Flight, flights_of

# LangGraph's own signals: an interrupt is a pause, and handing over to another graph is no error either.
_PAUSES = frozenset(("GraphInterrupt", "NodeInterrupt"))
_denial = denial_for_langchain
_HAND_OVER = "ParentCommand"
INTERRUPTED = "interrupted"

F = TypeVar("F", bound=Callable[..., None])


def _fenced(method: F) -> F:
    """Nothing that goes wrong in here reaches the user's run, except a denial."""

    @wraps(method)
    def event(self: MeterCallback, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._caught(method.__name__, error)

    return event  # type: ignore[return-value]


class MeterCallback(BaseCallbackHandler):
    """Meters every model call, tool call, retriever, chain and graph below the place where it is attached.

    Attach it per call (`config={"callbacks": [MeterCallback(meter)]}`) or to a model or agent; attaching it twice
    counts once. Without a meter it is the process's `default_meter()`.
    """

    run_inline = True
    raise_error = True

    def __init__(self, meter: Meter | None = None) -> None:
        self.meter = meter if meter is not None else default_meter()
        self._flights = flights_of(self.meter)
        self._streaming = self._flights.streaming
        self._clock = self.meter.monotonic

    # LangChain puts handlers into sets and copies configurations; a copy would be another handler of one meter.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeterCallback) and other.meter is self.meter

    def __hash__(self) -> int:
        return hash((MeterCallback, id(self.meter)))

    def __copy__(self) -> MeterCallback:
        return self

    def __deepcopy__(self, memo: object) -> MeterCallback:
        return self

    def _caught(self, event: str, error: Exception) -> None:
        if isinstance(error, BudgetExceeded):
            raise denial_for_langchain(error.denial) from None
        self.meter.plugins.failed(FRAMEWORK, event, error)
        if self.meter.plugins.strict:
            raise error

    # ---------------------------------------------------------------------------------------- model calls

    # Start, token and end are fenced in place: passing their many keywords on once more costs a microsecond each.

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            self._asked(serialized, messages[0] if messages else (), run_id, parent_run_id, tags, metadata, kwargs)
        except Exception as error:
            self._caught("on_chat_model_start", error)

    @_fenced
    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._asked(serialized, prompts[0] if prompts else "", run_id, parent_run_id, tags, metadata, kwargs)

    def _asked(
        self,
        serialized: dict[str, Any] | None,
        asked: Any,
        run_id: UUID,
        parent_run_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        kwargs: dict[str, Any],
    ) -> None:
        flights = self._flights
        if flights.is_open(run_id):
            return
        known = metadata or EMPTY
        params = kwargs.get("invocation_params") or EMPTY
        model = model_of(serialized, known, params)
        parent = flights.find(parent_run_id or ambient_parent())
        call = Call(Kind.LLM, model=model, parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, known)
        call.attempt = attempt_of(tags, parent)
        if self.meter.wants_content:
            call.content = asked
        flight = Flight(run_id, call)
        flight.provider = model.provider
        flight.messages = asked
        flight.params = params
        size = kwargs.get("batch_size")
        if size is not None and size > 1 and params:
            flights.batch(flight, params, size)
        try:
            self.meter.open(call)
        except BudgetExceeded:
            if flight.batch is not None:
                flights.denied(flight.batch)
            raise
        flights.add(flight, run_id)
        self._streaming[flight.identity] = flight

    def on_llm_new_token(
        self,
        token: Any,
        *,
        chunk: Any = None,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        # Called for every token: nothing here may cost more than a look-up. Named parameters that nobody reads are
        # cheaper than a dictionary of them.
        try:
            flight = self._streaming[id(run_id)]
            if chunk is flight.chunk and chunk is not None:  # the same handler, attached twice
                return
            flight.chunk = chunk
            flight.chunks += 1
            if flight.silent or chunk.message.usage_metadata is not None:
                self._heard(flight, token, chunk)
        except (AttributeError, KeyError):
            pass  # a text model's chunk has no message; nobody knows this run
        except Exception as error:
            self._caught("on_llm_new_token", error)

    def _heard(self, flight: Flight, token: Any, chunk: Any) -> None:
        message = getattr(chunk, "message", None)
        if flight.silent and (token or getattr(message, "tool_call_chunks", None)):
            flight.silent = False
            flight.call.first_token_at = self._clock()
        usage = getattr(message, "usage_metadata", None)
        if usage is not None:
            if flight.usages is None:
                flight.usages = []
            flight.usages.append(usage)

    @_fenced
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        flight = self._flights.find(run_id)
        if flight is not None:
            flight.call.streamed = True
            if flight.silent and event.get("event") == "content-block-delta":
                flight.silent = False
                flight.call.first_token_at = self._clock()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        try:
            flight = self._flights.take(run_id)
            if flight is None:
                return
            unread: Exception | None = None
            try:
                answer = read(flight, response)
            except Exception as error:
                answer, unread = UNREAD, error
            self._answered(flight, answer, response, Status.OK, None)
            if unread is not None:
                raise unread
        except Exception as error:
            self._caught("on_llm_end", error)

    @_fenced
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        flight = self._flights.take(run_id)
        if flight is None:
            return
        # A rate limiter, or a model inside this one, may be what denied the call.
        status = Status.DENIED if isinstance(error, BudgetExceeded) else status_of(error)
        unread: Exception | None = None
        try:
            answer = failed(flight, error, response)
        except Exception as failure:
            answer, unread = UNREAD, failure
        self._answered(flight, answer, response, status, error)
        batch = flight.batch
        if batch is not None and isinstance(flight.messages, list) and not _in_event_loop():
            self._flights.failed(batch, flight)
        if unread is not None:
            raise unread

    def _answered(
        self, flight: Flight, answer: Answer, response: Any, status: Status, error: BaseException | None
    ) -> None:
        call, meter = flight.call, self.meter
        call.streamed = call.streamed or flight.chunks > 0
        call.error = error
        if meter.wants_content:
            call.response = response
        meter.close(
            call,
            answer.usage,
            status=status,
            error_type=None if error is None else type(error).__name__,
            response_model=answer.response_model,
            response_id=answer.response_id,
            cached=answer.cached,
            estimated=answer.unseen,
            tools=answer.tools,
            notes=answer.notes,
        )
        for extra in answer.passes:
            meter.record_pass(
                call,
                extra.usage,
                kind=extra.kind,
                model=extra.model,
                response_model=answer.response_model,
                cached=answer.cached,
            )
        if answer.without_usage and call.streamed and error is None and not answer.cached:
            warn_of_stream(self._flights, flight)

    # ------------------------------------------------------------------------------------------ tool calls

    @_fenced
    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._flights.is_open(run_id):
            return
        name = (serialized or EMPTY).get("name") or kwargs.get("name") or ""
        parent = self._flights.find(parent_run_id or ambient_parent())
        call = self._call(Kind.TOOL, str(name), parent, metadata)
        call.params = inputs if inputs is not None else {"input": input_str} if input_str else EMPTY
        call.call_id = str(kwargs.get("tool_call_id") or "")
        self._begin(call, run_id)

    @_fenced
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        failed = getattr(output, "status", None) == "error"  # handled, and told to the model
        self._end(run_id, Status.ERROR if failed else Status.OK, "handled_error" if failed else None, output)

    @_fenced
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    @_fenced
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool declares what it cost: `dispatch_custom_event("tool_cost", {"usd": "0.005"})`."""
        flight = self._flights.find(run_id)
        if flight is not None and flight.call.kind is Kind.TOOL and (cost := tool_cost(name, data)) is not None:
            flight.call.cost_pico += cost

    # ----------------------------------------------------------------------------- chains, graphs, retrievers

    @_fenced
    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chain is a run (the root, and each agent below it), a step (a node of a graph), or neither."""
        flights = self._flights
        if flights.is_open(run_id):
            return
        parent = flights.find(parent_run_id or ambient_parent())
        known = metadata or EMPTY
        name = str(kwargs.get("name") or (serialized or EMPTY).get("name") or "")
        node = known.get("langgraph_node")
        attempt = attempt_of(tags, parent)
        if parent is None or parent.call.kind is Kind.TOOL or _another_agent(parent.call, known, name):
            kind = Kind.RUN
        elif node is not None and name == node:
            kind = Kind.STEP
        else:
            flights.add(Flight(run_id, parent.call, attempt, own=False), run_id)
            return
        call = self._call(kind, name, parent, metadata)
        call.attempt = attempt
        if kind is Kind.STEP and isinstance(known.get("langgraph_step"), int):
            call.step_number = known["langgraph_step"]
        elif kind is Kind.RUN and not call.agent and name not in UNNAMED and "lc_agent_name" not in known and node:
            call.agent = name
        if self.meter.wants_content and kind is Kind.RUN:
            call.content = inputs
        self._begin(call, run_id)

    @_fenced
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, Status.OK, None, outputs)

    @_fenced
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    @_fenced
    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self._flights.is_open(run_id):
            name = kwargs.get("name") or (metadata or EMPTY).get("ls_retriever_name") or "retriever"
            parent = self._flights.find(parent_run_id or ambient_parent())
            self._begin(self._call(Kind.STEP, str(name), parent, metadata), run_id)

    @_fenced
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, Status.OK, None, documents)

    @_fenced
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    # -------------------------------------------------------------------------------- what they have in common

    def _call(self, kind: Kind, name: str, parent: Flight | None, metadata: Mapping[str, Any] | None) -> Call:
        call = Call(kind, name, parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, metadata or EMPTY)
        return call

    def _begin(self, call: Call, run_id: UUID) -> None:
        self.meter.open(call)
        self._flights.add(Flight(run_id, call), run_id)

    def _end(
        self, run_id: UUID, status: Status, error_type: str | None, response: Any, error: BaseException | None = None
    ) -> None:
        flight = self._flights.take(run_id)
        if flight is None or not flight.own:
            return
        flight.call.error = error
        if self.meter.wants_content:
            flight.call.response = response
        self.meter.close(flight.call, status=status, error_type=error_type)

    def _failed(self, error: BaseException, run_id: UUID) -> None:
        name = type(error).__name__
        if name == _HAND_OVER:
            self._end(run_id, Status.OK, None, None)
        elif name in _PAUSES:
            self._end(run_id, Status.CANCELLED, INTERRUPTED, None, error)
        else:
            self._end(run_id, status_of(error), name, None, error)


def _another_agent(parent: Call, known: Mapping[str, Any], name: str) -> bool:
    """A graph inside a graph is a run of its own when it is another agent."""
    agent = known.get("lc_agent_name")
    return bool(agent) and agent == name and agent != parent.agent


def _in_event_loop() -> bool:
    """Whether an event loop runs on this thread; `agenerate` tells of every prompt's end, `generate` does not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
