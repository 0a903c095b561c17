"""Ready-made observers: one callback for everything, and one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ...records import RunRecord, UsageRecord
from .observer import AgentObserver
from .twins import EVENTS

# Arguments that are, or may hold, what people and models said.
CONTENT = frozenset(
    ("messages", "system_prompt", "response", "result", "chunk", "summary", "state", "new_plan", "detail", "details")
)
_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens",
    "embedding_tokens",
)  # fmt: skip
_ALWAYS = ("input_tokens", "output_tokens", "total_tokens")
_FACTS = (
    "provider", "model", "status", "error_type", "attempt", "agent", "task", "user", "session", "step", "response_id",
)  # fmt: skip


class _Central(AgentObserver):
    """Every event in one method, whoever sends it: a meter, or selectools."""

    def _heard(self, event: str, args: tuple[Any, ...]) -> Any:
        raise NotImplementedError


def _central(event: str) -> Callable[..., Any]:
    def heard(self: _Central, *args: Any) -> Any:
        return self._heard(event, args)

    heard.__name__ = event
    return heard


for _event in EVENTS:
    setattr(_Central, _event, _central(_event))


class StepObserver(_Central):
    """`callback(event, run_id, **arguments)` for every event, such as `("usage", "…", usage=record)`.

    The callback may be `async def`. `run_id` is the batch's id or the suite's name for events that have one.
    """

    def __init__(self, callback: Callable[..., Any], *, wants_content: bool = False) -> None:
        self.callback = callback
        self.wants_content = wants_content

    def _heard(self, event: str, args: tuple[Any, ...]) -> Any:
        named = dict(zip(EVENTS[event][1:], args[1:], strict=False))
        return self.callback(event.removeprefix("on_"), args[0], **named)


SimpleStepObserver = StepObserver  # the seed documents' name for it


class LoggingObserver(_Central):
    """One JSON object a line for every event: `{"event": "usage", "run_id": …, "ts": …, …}`.

    Tokens and money stand in `usage` lines and nowhere else, so that sums over a log are right. Of tool arguments only
    the names are logged, and of errors only the type, unless `wants_content`. What is unknown is left out.
    """

    def __init__(
        self, logger_name: str = "agent_meter.observer", level: int = logging.INFO, *, wants_content: bool = False
    ) -> None:
        self.logger = logging.getLogger(logger_name)
        self.level = level
        self.wants_content = wants_content

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.logger.isEnabledFor(self.level):
            return
        names = EVENTS[event]
        line: dict[str, Any] = {
            "event": event.removeprefix("on_"),
            names[0]: args[0],
            "ts": datetime.now(UTC).isoformat(),
        }
        for name, value in zip(names[1:], args[1:], strict=False):
            line.update(self._told(event, name, value))
        line = {name: value for name, value in line.items() if value is not None and value != ""}
        self.logger.log(self.level, "%s", json.dumps(line, default=str, ensure_ascii=False))

    def _told(self, event: str, name: str, value: Any) -> dict[str, Any]:
        if name == "usage":
            return _usage(value) if event == "on_usage" else _call(value)
        if isinstance(value, RunRecord):
            return {"run": value.name, "agent": value.agent, "status": value.status, "duration_ms": _ms(value.duration)}
        if name == "error" and isinstance(value, BaseException):
            return {name: f"{type(value).__name__}: {value}" if self.wants_content else type(value).__name__}
        if name == "context" and isinstance(value, Mapping):
            return {str(key): one for key, one in value.items() if isinstance(one, (str, int, float))}
        if name == "tool_args" and isinstance(value, Mapping) and not self.wants_content:
            return {name: sorted(map(str, value))}
        if name in CONTENT and not self.wants_content:
            return {}
        return {name: round(value, 3) if isinstance(value, float) else value}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _call(usage: Any) -> dict[str, Any]:
    """Which call it was; how much it used is told once, by `usage`."""
    facts: dict[str, Any] = {name: getattr(usage, name, None) for name in _FACTS}
    if isinstance(usage, UsageRecord):
        facts["call_id"] = usage.id
        facts["kind"] = usage.kind
        facts["duration_ms"] = _ms(usage.duration)
        facts["time_to_first_token_ms"] = _ms(usage.time_to_first_token)
    return facts


def _usage(usage: Any) -> dict[str, Any]:
    facts = _call(usage)
    if isinstance(usage, UsageRecord):
        facts.update((name, count) for name in _COUNTS if (count := getattr(usage, name)) or name in _ALWAYS)
        if usage.usage is None:
            facts.update(dict.fromkeys(_ALWAYS))
        facts["cost_usd"] = None if usage.cost_usd is None else float(usage.cost_usd)
        facts["cost_pico"], facts["billed_pico"] = usage.cost.list_pico, usage.cost.billed_pico
        facts["cost_status"] = usage.cost.status
        facts.update({name: True for name in ("cached", "estimated", "streamed") if getattr(usage, name)})
        facts["corrects"] = usage.corrects.id if usage.corrects is not None else None
        return facts
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd"):  # selectools' UsageStats
        facts[name] = getattr(usage, name, None)
    return facts
