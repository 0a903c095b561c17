"""Calls told by the messages of an agent's run, when they are over: for what no metered model or toolset has seen."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ...handles import status_of
from ...meter import Meter
from ...records import EMPTY, ERROR, OK, Call, Kind, Model, Status
from ..failing import UNSEEN, never_answered
from .messages import NO_USAGE, arguments, calls_of, error_of, estimated, read, said, tools_of
from .runs import FRAMEWORK, Run

NOTHING_TOLD = "mamba-agents tells nothing of what a failed step used"


def record_messages(run: Run, messages: list[Any], *, answers: bool = True) -> None:
    """Record the model calls (`answers`) and the tool calls of an agent's run that were not counted before."""
    asked: dict[str, tuple[Any, datetime]] = {}
    sent: datetime | None = None
    for place, message in enumerate(messages):
        if getattr(message, "kind", "") == "response":
            if run.count(message) and answers:
                _record_answer(run, messages[:place], message, sent)
            asked.update({part.tool_call_id: (part, message.timestamp) for part in calls_of(message)})
        else:
            sent = getattr(message, "timestamp", None)
            for part in getattr(message, "parts", None) or ():
                _record_tool(run, part, asked)


def record_failure(run: Run, error: BaseException | None) -> None:
    """The request that a step has failed at, which left no answer."""
    messages = None if run.messages is None else of_last_run(run.messages)
    if messages is not None and not messages:
        return  # nothing was sent
    if messages and getattr(messages[-1], "kind", "") == "response":
        return  # every request was answered: something else went wrong
    call = Call(Kind.LLM, model=run.model, framework=FRAMEWORK)
    call.unguarded, call.error = True, error
    known = error is not None and never_answered(error)
    notes = () if known else UNSEEN if messages else (NOTHING_TOLD,)
    run.meter.close(
        run.meter.open(call),
        status=ERROR if error is None else status_of(error),
        error_type="TimeoutError" if error is None else type(error).__name__,
        estimated=not known,
        notes=notes,
    )


def of_last_run(messages: list[Any]) -> list[Any]:
    """The messages of the agent's own run, without the conversation that it went on with."""
    last = getattr(messages[-1], "run_id", None) if messages else None
    return [message for message in messages if getattr(message, "run_id", None) == last]


def _record_answer(run: Run, messages: list[Any], response: Any, sent: datetime | None) -> None:
    name = str(getattr(response, "model_name", None) or "")
    run.model = Model(str(getattr(response, "provider_name", None) or ""), name)
    usage, notes = read(response)
    if usage.missing == ("input_tokens", "output_tokens"):
        usage, notes = estimated(messages, name, None, said(response)), (NO_USAGE,)
    call = Call(Kind.LLM, model=run.model, framework=FRAMEWORK)
    _open(run.meter, call, sent, response.timestamp)
    run.meter.close(
        call,
        usage,
        response_id=getattr(response, "provider_response_id", None),
        tools=tools_of(response),
        notes=notes,
    )


def _record_tool(run: Run, part: Any, asked: dict[str, tuple[Any, datetime]]) -> None:
    if part.part_kind == "tool-return":
        status, error_type = OK, None
    elif part.part_kind == "retry-prompt" and part.tool_name:
        status, error_type = ERROR, error_of(part)
    else:
        return
    if part.tool_call_id in run.tools:
        return
    run.tools.add(part.tool_call_id)
    called, answered = asked.get(part.tool_call_id, (None, None))
    record_tool(
        run, part.tool_name, part.tool_call_id, EMPTY if called is None else arguments(called),
        answered, part.timestamp, status, error_type,
    )  # fmt: skip


def record_tool(
    run: Run, name: str, call_id: str, params: Any, began: datetime | None, ended: datetime,
    status: Status, error_type: str | None,
) -> None:  # fmt: skip
    call = Call(Kind.TOOL, name, framework=FRAMEWORK)
    call.call_id, call.params = call_id, params
    _open(run.meter, call, began, ended)
    run.meter.close(call, status=status, error_type=error_type)


def _open(meter: Meter, call: Call, began: datetime | None, ended: datetime) -> None:
    """Open a call that is over: it took from `began` to `ended`, as far as the clocks of messages tell."""
    call.unguarded = True
    call.started_at = began or ended
    meter.open(call)
    if began is not None:
        call.started -= max(0.0, (ended - began) / timedelta(seconds=1))
