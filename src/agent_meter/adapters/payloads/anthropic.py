"""Anthropic's words. `input_tokens` leaves out cache reads and writes; `output_tokens` includes thinking.

`usage.iterations` lists every pass of a call. Those of the kind `message` make up the numbers beside it; the
others (a compaction, an advisor of another model) are billed and left out of them: they become `passes`.
"""

from __future__ import annotations

from msgspec.structs import replace

from agent_meter.records import EMPTY, TokenUsage

from .fields import (
    CUT,
    MISSING_BOTH,
    MISSING_INPUT,
    MISSING_OUTPUT,
    Fields,
    Pass,
    Reading,
    Units,
    context,
    fields,
    frozen,
    items,
    number,
    text,
)

NO_PLACE = ("", "not_available")


def usage_of(u: Fields, units: Units = EMPTY) -> TokenUsage:
    """One usage object: of a message, of a pass, of a gateway that kept Anthropic's names."""
    get = u.get
    fresh, output = number(get("input_tokens")), number(get("output_tokens"))
    read = number(get("cache_read_input_tokens")) or 0
    write = number(get("cache_creation_input_tokens"))
    hour = 0
    created = get("cache_creation")
    if created is not None:
        c = fields(created).get
        hour = number(c("ephemeral_1h_input_tokens")) or 0
        if write is None:
            write = hour + (number(c("ephemeral_5m_input_tokens")) or 0)
    thinking = number(fields(get("output_tokens_details")).get("thinking_tokens")) or 0
    missing: tuple[str, ...] = ()
    if fresh is None or output is None:
        missing = MISSING_OUTPUT if fresh is not None else MISSING_INPUT if output is not None else MISSING_BOTH
    place = get("inference_geo")
    about = context(get("service_tier"), speed=get("speed"), inference_geo=None if place in NO_PLACE else place)
    served = get("server_tool_use")
    if served is not None:
        s = fields(served).get
        units = frozen(
            {
                "web_searches": number(s("web_search_requests")),
                "code_executions": number(s("code_execution_requests")),
            }
        )
    return TokenUsage(
        (fresh or 0) + read + (write or 0), output or 0, read, write or 0, hour, thinking, 0, 0, 0, 0, units, missing,
        about, None,
    )  # fmt: skip


def passes_of(u: Fields) -> tuple[Pass, ...]:
    """What is billed beside the numbers of the message."""
    iterations = u.get("iterations")
    if not iterations:
        return ()
    return tuple(
        Pass(kind, text(f.get("model")), usage_of(f))
        for item in items(iterations)
        if (kind := text((f := fields(item)).get("type"))) and kind != "message"
    )


def beside(usage: TokenUsage, passes: tuple[Pass, ...]) -> TokenUsage:
    """`usage` with the tokens of its passes as a unit."""
    return replace(usage, units=frozen({**usage.units, "pass_tokens": sum(p.usage.total_tokens for p in passes)}))


def message(body: Fields, provider: str = "") -> Reading:
    """A message, or what was folded from its stream."""
    get = body.get
    names = tuple(
        name
        for block in items(get("content"))
        if (f := fields(block)).get("type") == "tool_use" and (name := text(f.get("name")))
    )
    u = get("usage")
    if u is None:  # the legacy completion has none
        return Reading(response_model=text(get("model")), response_id=text(get("id")), tools=names)
    f = fields(u)
    usage, passes = usage_of(f), passes_of(f)
    if passes:
        usage = beside(usage, passes)
    return Reading(usage, text(get("model")), text(get("id")), names, None, passes)


def fold(events: list[Fields]) -> Fields:
    """A stream as the message that it makes. Deltas count from the start: each replaces what it repeats."""
    whole: dict[str, object] = {"type": "message"}
    usage: dict[str, object] = {}
    content: list[object] = []
    ended = False
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            start = fields(event.get("message"))
            whole["id"], whole["model"] = start.get("id"), start.get("model")
            _merge(usage, start.get("usage"))
        elif kind == "message_delta":
            _merge(usage, event.get("usage"))
            ended = True
        elif kind == "content_block_start":
            content.append(event.get("content_block"))
        elif kind == "error":
            whole["error"] = event.get("error") or {"type": "error"}
        metrics = event.get("amazon-bedrock-invocationMetrics")
        if metrics is not None:
            whole["amazon-bedrock-invocationMetrics"] = metrics
    whole["content"] = content
    whole["usage"] = usage or None
    whole[CUT] = not ended  # the start counts what was said before anything was
    return whole


USAGE_FIELDS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
    "output_tokens_details", "service_tier", "speed", "inference_geo", "server_tool_use", "iterations",
)  # fmt: skip


def _merge(usage: dict[str, object], newer: object) -> None:
    f = fields(newer)
    for name in USAGE_FIELDS:
        value = f.get(name)
        if value is not None:
            usage[name] = value
