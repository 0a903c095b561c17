"""MeterMiddleware: an agent of `create_agent` that is metered, and that stops gracefully when the meter says so.

This adapter refuses nothing itself: the callback asks the meter, the middleware makes of a denial what the agent can
live with. It needs the package `langchain`, which nothing else in here does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tracers.context import register_configure_hook

from ...errors import BudgetExceeded
from ...meter import Meter, default_meter
from ...records import Denial
from .ambient import attached
from .callback import MeterCallback
from .flights import FRAMEWORK

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
    from langchain.agents.middleware.types import ExtendedModelResponse
    from langgraph.types import Command
except ImportError as error:
    raise ImportError("MeterMiddleware is for create_agent: it needs langchain 1.2 or later") from error

from .deciding import ask, limited, output_limit_of

Text = str | Callable[[Denial], str]
Override = Callable[[ModelRequest[Any], Meter], ModelRequest[Any]]
ModelAnswer = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]
ToolAnswer = ToolMessage | Command[Any]

# In the `response_metadata` of the message that ends a run: why.
DENIED = "agent_meter_denied"

# One hook for the life of the process, beside that of `metering()`: the two may be of different meters.
_around: ContextVar[MeterCallback | None] = ContextVar("agent_meter_middleware", default=None)
register_configure_hook(_around, inheritable=True)


def end_text(denial: Denial) -> str:
    return f"I have to stop here: {denial.reason.rstrip('.')}."


def tool_text(denial: Denial) -> str:
    return f"This tool was not called: {denial.reason.rstrip('.')}. Go on without it."


class MeterMiddleware(AgentMiddleware[Any, Any, Any]):
    """`create_agent(model, tools, middleware=[MeterMiddleware(meter)])`: put it first in the list.

    Meters every model call and tool call that the agent makes, and whatever a tool calls in its turn, with or without
    a `MeterCallback` beside it; each counts once. What the meter denies, the agent survives: a denied model call ends
    the run with what was paid for so far and `message` as its last message, a denied tool call answers `tool_message`
    to the model. `on_denied="raise"` lets `BudgetExceeded` through instead. Both texts may be functions of the
    `Denial`.

    `on_denied="ask"` interrupts the graph (it needs a checkpointer) with what the denial says. Resumed with
    `Command(resume=True)`, perhaps after `meter.budgets.set(…)`, the call is tried once more; with
    `Command(resume={"usd": 10})` the budget is set to that first; with `False` the run ends.

    `cap_output=2000` is the maximum of model calls that name none, so that a budget holds what an answer can be, and
    not what it is assumed to be; nothing is capped unasked, for an answer that is cut off is a worse one.
    `shorten_to=500`: where an answer of 500 tokens or more would still fit, the refused call is made again at once,
    limited to what fits.

    `override(request, meter)` is asked before every model call and answers with the request to make, such as
    `request.override(model=cheaper)`.
    """

    def __init__(
        self,
        meter: Meter | None = None,
        *,
        on_denied: Literal["end", "raise", "ask"] = "end",
        message: Text = end_text,
        tool_message: Text = tool_text,
        override: Override | None = None,
        shorten_to: int | None = None,
        cap_output: int | None = None,
    ) -> None:
        super().__init__()
        if on_denied not in ("end", "raise", "ask"):
            raise ValueError(f"on_denied is 'end', 'raise' or 'ask', not {on_denied!r}")
        if shorten_to is not None and shorten_to < 1:
            raise ValueError(f"shorten_to is a number of tokens, not {shorten_to!r}")
        if cap_output is not None and cap_output < 1:
            raise ValueError(f"cap_output is a number of tokens, not {cap_output!r}")
        self.meter = meter if meter is not None else default_meter()
        self._callback = MeterCallback(self.meter)
        self._ends = on_denied != "raise"
        self._asks = on_denied == "ask"
        self._shorten_to = shorten_to
        self._cap_output = cap_output
        self._message = message
        self._tool_message = tool_message
        self._override = override

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelAnswer:
        request = self._steered(request)
        while True:
            try:
                with self._metering():
                    return handler(request)
            except BudgetExceeded as error:
                again = self._again(request, error)
                if again is None:
                    return self._end(request, error)
                request = again

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelAnswer:
        request = self._steered(request)
        while True:
            try:
                with self._metering():
                    return await handler(request)
            except BudgetExceeded as error:
                again = self._again(request, error)
                if again is None:
                    return self._end(request, error)
                request = again

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolAnswer]) -> ToolAnswer:
        while True:
            try:
                with self._metering():
                    return handler(request)
            except BudgetExceeded as error:
                if not self._asks or not ask(self.meter, error, request.tool_call["name"]):
                    return self._refusal(request, error)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolAnswer]]
    ) -> ToolAnswer:
        while True:
            try:
                with self._metering():
                    return await handler(request)
            except BudgetExceeded as error:
                if not self._asks or not ask(self.meter, error, request.tool_call["name"]):
                    return self._refusal(request, error)

    # -------------------------------------------------------------------------------- what they have in common

    @contextmanager
    def _metering(self) -> Iterator[None]:
        """Attach the callback to what LangChain runs inside, unless it is there."""
        if attached(self.meter):
            yield
            return
        token = _around.set(self._callback)
        try:
            yield
        finally:
            _around.reset(token)

    def _steered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        try:
            if self._override is not None:
                request = self._override(request, self.meter)
            if self._cap_output is not None:
                request = limited(request, self._cap_output, only_unlimited=True)
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "override", error)
            if self.meter.plugins.strict:
                raise
        return request

    def _again(self, request: ModelRequest[Any], error: BudgetExceeded) -> ModelRequest[Any] | None:
        """The request to try once more with, where something can be done about a denial."""
        fits, most = error.fits or 0, output_limit_of(request)
        if self._shorten_to is not None and fits >= self._shorten_to and (most is None or fits < most):
            return limited(request, fits)
        return request if self._asks and ask(self.meter, error) else None

    def _end(self, request: ModelRequest[Any], error: BudgetExceeded) -> ModelAnswer:
        last = request.messages[-1] if request.messages else None
        if not self._ends or (isinstance(last, AIMessage) and DENIED in last.response_metadata):
            raise error  # an agent that asks again after its last word would do so for ever
        text = _text(self._message, error.denial)
        ending = AIMessage(text, response_metadata={DENIED: {"reason": error.denial.reason, "by": error.denial.by}})
        if request.response_format is None:
            return ending
        # An agent that must answer in a structure tries again until it has one, unless it is told to end.
        return ExtendedModelResponse(ModelResponse(result=[ending]), Command(update={"jump_to": "end"}))

    def _refusal(self, request: ToolCallRequest, error: BudgetExceeded) -> ToolMessage:
        if not self._ends:
            raise error
        call = request.tool_call
        return ToolMessage(
            _text(self._tool_message, error.denial), name=call["name"], tool_call_id=call["id"] or "", status="error"
        )


def _text(text: Text, denial: Denial) -> str:
    return text if isinstance(text, str) else text(denial)
