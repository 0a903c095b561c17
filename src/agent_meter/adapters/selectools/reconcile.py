"""What the conversation and the trace of a run tell of tools that no event told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...records import DENIED, EMPTY, ERROR, OK, Status

CACHED = {"cached": "true"}


class Untold(NamedTuple):
    """A tool that was asked for and that selectools answered without running it."""

    name: str
    status: Status
    error_type: str | None
    params: Mapping[str, Any]
    tags: Mapping[str, str]


def tools_of(messages: Any, since: int) -> list[str]:
    """The tools that the answer asked for which was added to the conversation after its first `since` messages."""
    if not isinstance(messages, Sequence):
        return []
    for message in messages[since:]:
        calls = getattr(message, "tool_calls", None)
        if calls:
            return [str(call.tool_name) for call in calls]
    return []


def untold(result: Any, told: Counter[str]) -> Iterator[Untold]:
    """The steps of a trace that name a tool, less those that events have told of."""
    left = Counter(told)
    steps = [step for step in getattr(getattr(result, "trace", None), "steps", None) or () if _of_tool(step)]
    # Tools that ran are told of by events; what is left over of a name did not run.
    for step in sorted(steps, key=_surely_did_not_run):
        if left[step.tool_name] > 0:
            left[step.tool_name] -= 1
            continue
        status, error_type = _answered_by_selectools(step) or (OK, None)
        params = step.tool_args if isinstance(step.tool_args, Mapping) else EMPTY
        yield Untold(str(step.tool_name), status, error_type, params, CACHED if status is OK else EMPTY)


def _surely_did_not_run(step: Any) -> bool:
    return _answered_by_selectools(step) is not None or not getattr(step, "duration_ms", 0.0)


def _of_tool(step: Any) -> bool:
    kind = str(getattr(getattr(step, "type", None), "value", ""))
    return bool(getattr(step, "tool_name", None)) and (
        kind in ("tool_execution", "cache_hit", "error") or (kind == "coherence_check" and bool(step.error))
    )


def _answered_by_selectools(step: Any) -> tuple[Status, str] | None:
    """Why a tool was not run, by the words that the model is told; None: it may have run."""
    error = str(getattr(step, "error", None) or "")
    if not error:
        return None
    if error.startswith("Unknown tool"):
        return ERROR, "UnknownTool"
    if "had malformed arguments" in error:
        return ERROR, "MalformedArguments"
    if str(step.type.value) == "coherence_check":
        return DENIED, "CoherenceCheck"
    if any(words in error for words in ("denied by", "requires approval", "approval", "rejected by reviewer")):
        return DENIED, "PolicyDenied"
    return None
