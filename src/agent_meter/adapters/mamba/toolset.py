"""A pydantic-ai toolset whose calls are metered, and refused when a guard denies one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai.toolsets.wrapper import WrapperToolset

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter, default_meter
from ...records import CANCELLED, EMPTY, ERROR, INTERRUPTED, OK, TOOL, Call, Status
from .runs import FRAMEWORK, enter, leave, run_of

# It waits for a person, or for somebody else to do it; it is called anew when the run goes on.
_PUT_OFF = frozenset(("CallDeferred", "ApprovalRequired"))


@dataclass
class MeteredToolset(WrapperToolset):  # type: ignore[misc]
    """Meters each call of a toolset's tools: `Agent(model, toolsets=[MeteredToolset(FunctionToolset([search]))])`.

    What a tool calls inside, models and agents included, belongs to it. A tool that raises has failed, `ModelRetry`
    included: the error type is that of what it was raised from. pydantic-ai copies toolsets by their fields.
    """

    meter: Meter | None = None

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
        meter = self.meter if self.meter is not None else default_meter()
        call = await self._begin(meter, name, tool_args, ctx)
        try:
            result = await self.wrapped.call_tool(name, tool_args, ctx, tool)
        except BaseException as error:
            _end(meter, call, error, None)
            raise
        _end(meter, call, None, result)
        return result

    async def _begin(self, meter: Meter, name: str, tool_args: dict[str, Any], ctx: Any) -> Call | None:
        try:
            call = Call(TOOL, name, framework=FRAMEWORK)
            call.call_id = str(getattr(ctx, "tool_call_id", None) or "")
            call.params = dict(tool_args) if tool_args else EMPTY
            await meter.aopen(call)
            run = run_of(meter)
            if run is not None:
                run.tools.add(call.call_id)
            enter(call)
        except BudgetExceeded:
            raise
        except Exception as error:
            meter.plugins.failed(FRAMEWORK, "tool", error)
            if meter.plugins.strict:
                raise
            return None
        return call


def _end(meter: Meter, call: Call | None, error: BaseException | None, result: Any) -> None:
    if call is None:
        return
    try:
        call.error, call.response = error, result
        leave(call)
        status, name = _judged(error)
        meter.close(call, status=status, error_type=name)
    except Exception as failure:
        meter.plugins.failed(FRAMEWORK, "tool", failure)


def _judged(error: BaseException | None) -> tuple[Status, str | None]:
    if error is None:
        return OK, None
    name = type(error).__name__
    if name in _PUT_OFF:
        return CANCELLED, INTERRUPTED
    if name in ("ModelRetry", "ToolRetryError"):
        return ERROR, type(error.__cause__ or error).__name__
    return status_of(error), name
