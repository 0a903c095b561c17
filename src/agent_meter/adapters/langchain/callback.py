"""MeterCallback: one synchronous handler for sync and async, streaming or not.

Rules that the events force on it:

* `run_inline`: LangChain calls it on the caller's thread, in its context, also in async code. Any other handler
  costs a hop to a thread for every token.
* `raise_error`: the only way to refuse a call. Hence nothing else may ever be raised from here: `fence.py`.
* Both `on_chat_model_start` and `on_llm_start`, or LangChain renders all messages to one string for nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from langchain_core.outputs import LLMResult

from ...errors import BudgetExceeded
from ...handles import status_of
from ...records import DENIED, EMPTY, LLM, OK, Call, Status
from ..asking import Prompt, output_limit
from . import savings
from .answering import HIT, UNREAD, Answer, failed, read
from .asking import ambient_parent, attribute, model_of
from .estimating import warn_of_stream
from .fence import fenced
from .flights import FRAMEWORK, Flight, sent_together
from .reprieve import reprieve
from .runs import RunEvents


class MeterCallback(RunEvents):
    """Meters every model call, tool call, retriever, chain and graph below the place where it is attached.

    Attach it per call (`config={"callbacks": [MeterCallback(meter)]}`) or to a model or agent; attaching it twice
    counts once. Without a meter it is the process's `default_meter()`. With `wire=True`, what the provider's HTTP
    answers say is joined to each call, and counts; from then on for every handler of this meter.
    """

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

    @fenced
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
        call = Call(LLM, model=model, parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, known, parent)
        if self.meter.wants_content:
            call.content = asked
        flight = Flight.of(run_id, call, parent, known, tags)
        call.attempt = flight.attempt
        flight.provider = model.provider
        flight.messages = asked
        flight.params = params
        flight.made_with = (serialized or EMPTY).get("kwargs")
        if self.meter.has_budgets:
            call.prompt = Prompt(asked, model.name, params.get("tools") or params.get("functions"))
            call.max_output_tokens = output_limit(params, {"max_tokens": known.get("ls_max_tokens")}, flight.made_with)
            call.reprieve = reprieve
        size = kwargs.get("batch_size")
        if size is not None and size > 1 and params:
            flights.batch(flight, params, size)
            if self.meter.joining.taps:
                sent_together(flight)
        try:
            self.meter.open(call)
        except BudgetExceeded:
            if flight.batch is not None:
                flights.denied(flight.batch)
            raise
        flights.add(flight, run_id)

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
        hear = self._streaming.get(id(run_id))
        if hear is not None:
            hear(chunk)
            return
        try:
            self._first_token(token, chunk, run_id)
        except Exception as error:
            self._caught("on_llm_new_token", error)

    def _first_token(self, token: Any, chunk: Any, run_id: UUID) -> None:
        flight = self._flights.find(run_id)
        if flight is None:
            return
        flight.heard.append(chunk)
        flight.call.streamed = True
        if token or getattr(getattr(chunk, "message", None), "tool_call_chunks", None):
            self._begun(flight)
            self._streaming[flight.identity] = flight.heard.append

    def _begun(self, flight: Flight) -> None:
        if flight.call.first_token_at is None:
            flight.call.first_token_at = self._clock()

    @fenced
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        flight = self._flights.find(run_id)
        if flight is not None:
            flight.call.streamed = True
            if event.get("event") == "content-block-delta":
                self._begun(flight)

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
            self._answered(flight, answer, response, OK, None)
            if unread is not None:
                raise unread
        except Exception as error:
            self._caught("on_llm_end", error)

    @fenced
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        flight = self._flights.take(run_id)
        if flight is None:
            return
        # A rate limiter, or a model inside this one, may be what denied the call.
        status = DENIED if isinstance(error, BudgetExceeded) else status_of(error)
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
        call.streamed = call.streamed or answer.streamed
        call.error = error
        if meter.wants_content:
            call.response = response
        record = meter.close(
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
        meter.record_passes(call, answer.passes, response_model=answer.response_model, cached=answer.cached)
        if answer.cached:
            savings.heard(response, HIT, record)
        seen = call.wire is not None and call.wire.told
        if answer.without_usage and call.streamed and error is None and not answer.cached and not seen:
            warn_of_stream(self._flights, flight)


def _in_event_loop() -> bool:
    """Whether an event loop runs on this thread; `agenerate` tells of every prompt's end, `generate` does not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
