"""Observations as Langfuse exports them (JSON or JSON Lines, from its page or its API)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..pricing.book import PriceBook
from ..records import ERROR, OK, FrozenMap, Kind, Record, TokenUsage, pico
from .building import NotACall, count, model_call, moment, seconds, stable_id, text, tool_call

SOURCE = "langfuse"
_KINDS = {"GENERATION": Kind.LLM, "EMBEDDING": Kind.EMBEDDING}


def record(entry: Mapping[str, Any], prices: PriceBook) -> Record:
    """A generation, an embedding or a tool. `NotACall` for traces, spans, events and scores."""
    kind = text(entry.get("type")).upper()
    if kind not in _KINDS and kind != "TOOL":
        raise NotACall
    at = moment(_get(entry, "startTime"))
    if at is None:
        raise ValueError("no startTime")
    end, first = moment(_get(entry, "endTime")), moment(_get(entry, "completionStartTime"))
    trace, metadata = text(_get(entry, "traceId")), entry.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    failed = text(entry.get("level")).upper() == "ERROR"
    who: dict[str, Any] = {
        "id": stable_id(at, SOURCE, trace, text(entry.get("id"))),
        "at": at,
        "source": SOURCE,
        "duration": seconds(at, end),
        "status": ERROR if failed else OK,
        "error_type": "error" if failed else None,
        "run_id": trace or None,
        "parent_id": _get(entry, "parentObservationId") or None,
        "agent": text(metadata.get("agent") or metadata.get("agent_name") or metadata.get("lc_agent_name")),
        "user": text(_get(entry, "userId") or metadata.get("user_id")),
        "session": text(_get(entry, "sessionId") or metadata.get("session_id") or metadata.get("thread_id")),
        "tags": _tags(entry),
    }
    if kind == "TOOL":
        return tool_call(name=text(entry.get("name")) or "tool", **who)
    return model_call(
        prices,
        kind=_KINDS[kind],
        provider=text(metadata.get("ls_provider")),
        model=text(_get(entry, "model") or _get(entry, "providedModelName") or metadata.get("ls_model_name")),
        usage=_usage(entry),
        first_token=seconds(at, first),
        **who,
    )


def _get(entry: Mapping[str, Any], name: str) -> Any:
    """A value by its name in the API, or as the page's export writes it."""
    if name in entry:
        return entry[name]
    return entry.get("".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name))


def _tags(entry: Mapping[str, Any]) -> Mapping[str, str]:
    named = {"environment": entry.get("environment"), "release": entry.get("release"), "name": entry.get("name")}
    return FrozenMap({name: text(value) for name, value in named.items() if value})


def _usage(entry: Mapping[str, Any]) -> TokenUsage | None:
    """Langfuse's classes of usage are disjoint and add up to the total; ours include their parts.

    Where the total is input and output alone, the parts were sent included, and stay it.
    """
    given = _get(entry, "usageDetails") or entry.get("usage") or {}
    if not isinstance(given, dict) or given.get("unit") not in (None, "", "TOKENS"):
        return None
    details = {name: count(value) for name, value in given.items() if name != "unit" and _counts(value)}
    # The older form names them like the API of OpenAI, and has nothing else.
    into = details.get("input", details.get("promptTokens", details.get("prompt_tokens", 0)))
    out = details.get("output", details.get("completionTokens", details.get("completion_tokens", 0)))
    if not any(details.values()) and _cost(entry) is None:
        return None
    parts = {name: n for name, n in details.items() if n and name not in _WHOLE}
    total = details.get("total", details.get("totalTokens", details.get("total_tokens")))
    in_parts = {name: n for name, n in parts.items() if "output" not in name and "reasoning" not in name}
    out_parts = {name: n for name, n in parts.items() if name not in in_parts}
    if total is None or total != into + out:
        into, out = into + sum(in_parts.values()), out + sum(out_parts.values())
    reads = sum(n for name, n in in_parts.items() if "cache" in name and not _writes(name))
    return TokenUsage(
        into,
        out,
        reads,
        sum(n for name, n in in_parts.items() if _writes(name)),
        sum(n for name, n in in_parts.items() if _writes(name) and "1h" in name),
        sum(n for name, n in out_parts.items() if "reasoning" in name),
        sum(n for name, n in in_parts.items() if "audio" in name),
        sum(n for name, n in out_parts.items() if "audio" in name),
        sum(n for name, n in in_parts.items() if "image" in name),
        sum(n for name, n in out_parts.items() if "image" in name),
        reported_pico=_cost(entry),
    )


_WHOLE = (
    "input", "output", "total", "promptTokens", "completionTokens", "totalTokens", "prompt_tokens",
    "completion_tokens", "total_tokens",
)  # fmt: skip


def _counts(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _writes(name: str) -> bool:
    return "cache_creation" in name or "cache_write" in name


def _cost(entry: Mapping[str, Any]) -> int | None:
    details = _get(entry, "costDetails")
    cost = details.get("total") if isinstance(details, dict) else None
    for name in ("totalCost", "calculatedTotalCost"):
        cost = _get(entry, name) if cost is None else cost
    return None if cost is None else pico(str(cost))
