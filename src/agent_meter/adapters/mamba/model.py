"""A pydantic-ai model that asks the meter before each request: this is where a run can be refused a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.models.wrapper import WrapperModel

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter, default_meter
from ...records import LLM, Call, Model, Reserve, TokenUsage
from ...tokens.estimate import ERROR
from ..failing import UNSEEN, never_answered
from .mending import mend_usage
from .messages import CUT_OFF, NO_USAGE, estimated, prompt_tokens, read, said, tools_of
from .runs import FRAMEWORK, counting, desk_of, run_of

MISSING_BOTH = ("input_tokens", "output_tokens")
NO_NOTES: tuple[str, ...] = ()


class MeteredModel(WrapperModel):  # type: ignore[misc]  # pydantic-ai is not where this is checked
    """Meters each request of a pydantic-ai model, and raises `BudgetExceeded` before one that a guard denies.

    `model` is a `Model` or its name ("openai:gpt-4o"). Failed requests and streams are counted, too. Give it to
    mamba-agents' `Agent(…)` or pydantic-ai's own. Around a `FallbackModel` it counts a request once, whoever answers;
    to see each attempt, wrap the models inside instead. `wire=True` reads what providers answer where it arrives, the
    SDK's own retries included.

    mamba-agents knows no model name of an agent that was given a model, and prices it by its default rate: ask the
    meter for the cost.
    """

    def __init__(self, wrapped: Any, meter: Meter | None = None, *, wire: bool = False) -> None:
        super().__init__(wrapped)
        self.meter = meter if meter is not None else default_meter()
        if wire:
            from ..wire import keep_on

            keep_on(self.meter)
        desk_of(self.meter).models.add(self)
        try:
            mend_usage()
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "mending", error)

    # pydantic-ai compares models; two of them over one model are still two.
    __hash__ = object.__hash__

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        request = await self._begin(messages, model_settings, model_request_parameters)
        if request is None:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)
        token = counting.set((*counting.get(), self.meter))
        try:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except BaseException as error:
            request.end(None, error)
            raise
        finally:
            counting.reset(token)
        request.end(response)
        return response

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, model_settings: Any, model_request_parameters: Any, run_context: Any = None
    ) -> AsyncIterator[Any]:
        asked = (messages, model_settings, model_request_parameters)
        request = await self._begin(*asked)
        if request is None:
            async with self.wrapped.request_stream(*asked, run_context) as response:
                yield response
            return
        request.call.streamed = True
        response = None
        try:
            # Set until the answer begins: what the reader of the stream does in between is not this request.
            token = counting.set((*counting.get(), self.meter))
            try:
                stream = self.wrapped.request_stream(*asked, run_context)
                response = await stream.__aenter__()
            finally:
                counting.reset(token)
            try:
                yield response
            except BaseException as error:
                if not await stream.__aexit__(type(error), error, error.__traceback__):
                    raise
            else:
                await stream.__aexit__(None, None, None)
        except BaseException as error:
            request.end_stream(response, error)
            raise
        request.end_stream(response)

    async def _begin(self, messages: Any, settings: Any, parameters: Any) -> _Request | None:
        """The call of a request that is about to be made, opened. None: it is counted further out, or not at all."""
        if self.meter in counting.get():
            return None
        try:
            request = _Request(self.meter, self, messages, settings, parameters)
            await self.meter.aopen(request.call)
        except BudgetExceeded:
            raise
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "request", error)
            if self.meter.plugins.strict:
                raise
            return None
        return request


class _Request:
    """One request, from the moment it is asked for to its only end."""

    def __init__(self, meter: Meter, model: MeteredModel, messages: Any, settings: Any, parameters: Any) -> None:
        self._meter = meter
        self._messages = list(messages)  # pydantic-ai goes on adding to its own
        self._tools = [
            *(getattr(parameters, "function_tools", None) or ()),
            *(getattr(parameters, "output_tools", None) or ()),
        ]
        self._run = run_of(meter)
        asked = Model(str(model.system or ""), str(model.model_name or ""), str(getattr(model, "base_url", "") or ""))
        self.call = Call(LLM, model=asked, framework=FRAMEWORK)
        limit = (settings or {}).get("max_tokens") if isinstance(settings, dict) else None
        self.call.max_output_tokens = limit if isinstance(limit, int) else None
        if meter.wants_content:
            self.call.content = self._messages
        if meter.plugins.guarded:
            prompt = prompt_tokens(self._messages, asked.name, self._tools)
            self.call.reserve = Reserve(round(prompt * (1 + ERROR)), self.call.max_output_tokens)

    def end(self, response: Any, error: BaseException | None = None) -> None:
        try:
            self._end(response, error)
        except Exception as failure:
            self._failed(failure)

    def end_stream(self, stream: Any, error: BaseException | None = None) -> None:
        try:
            response = None if stream is None else stream.get()
            if response is not None and not getattr(response, "parts", None) and not read(response)[0].total_tokens:
                response = None
            self._end(response, error, cut=response is not None and response.finish_reason is None)
        except Exception as failure:
            self._failed(failure)

    def _end(self, response: Any, error: BaseException | None, cut: bool = False) -> None:
        call, run = self.call, self._run
        call.response, call.error = response, error
        if run is not None:
            run.requests += 1
            run.count(response)
        if response is None:
            known = error is not None and (isinstance(error, BudgetExceeded) or never_answered(error))
            self._meter.close(
                call,
                status=status_of(error),
                error_type=None if error is None else type(error).__name__,
                estimated=not known,
                notes=NO_NOTES if known else UNSEEN,
            )
            return
        usage, notes = self._usage(response, cut=cut or error is not None)
        name = getattr(response, "model_name", None)
        self._meter.close(
            call,
            usage,
            status=status_of(error),
            error_type=None if error is None else type(error).__name__,
            response_model=name if name and call.model is not None and name != call.model.name else None,
            response_id=getattr(response, "provider_response_id", None),
            tools=tools_of(response),
            notes=notes,
        )

    def _usage(self, response: Any, cut: bool) -> tuple[TokenUsage, tuple[str, ...]]:
        usage, notes = read(response)
        if usage.missing != MISSING_BOTH:
            return usage, notes
        name = self.call.model.name if self.call.model is not None else ""
        return estimated(self._messages, name, self._tools, said(response)), (CUT_OFF if cut else NO_USAGE,)

    def _failed(self, failure: Exception) -> None:
        self._meter.plugins.failed(FRAMEWORK, "answer", failure)
        self._meter.close(self.call, estimated=True, notes=("the answer could not be read",))
        if self._meter.plugins.strict:
            raise failure
