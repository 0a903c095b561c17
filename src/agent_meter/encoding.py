"""Records as documents of plain JSON values, and back, with nothing lost.

A document is what a JSONL export writes a line of, what a CloudEvent carries as its data, and what a ledger keeps
of what has no column. `kind` says which record it is. Money stays integer pico-dollars, a `Decimal` count becomes
its text, times are ISO 8601 in UTC. What a tool was called with is left out unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec

from .records import EMPTY, FrozenMap, Kind, Record, RunRecord, Status, TokenUsage, ToolRecord, UsageRecord
from .totals import COUNTERS, Totals
from .usage import AgentUsage

# What a document from elsewhere need not say.
_UNSAID: dict[type, dict[str, Any]] = {
    UsageRecord: {
        "duration": None,
        "time_to_first_token": None,
        "provider": "",
        "request_model": "",
        "response_model": None,
        "usage": None,
        "cost": {},
        "status": "ok",
    },
    ToolRecord: {"call_id": "", "duration": 0.0, "status": "ok"},
    RunRecord: {"name": "", "duration": 0.0, "status": "ok"},
}


def to_document(record: Record, *, params: bool = False) -> dict[str, Any]:
    """A record as JSON-able values. With `params`, also what a tool was called with; what JSON has not as its text."""
    document: dict[str, Any]
    if type(record) is UsageRecord:
        document = msgspec.to_builtins(record)
        if record.corrects is not None:
            document["corrects"] = to_document(record.corrects)
    else:
        document = {name: getattr(record, name) for name in record.__struct_fields__}
        if type(record) is RunRecord:
            document["usage"] = totals_document(record.usage.totals)
        elif type(record) is ToolRecord:
            document["params"] = _plain(record.params) if params else {}
        document = msgspec.to_builtins(document)
    document["started_at"] = record.started_at.astimezone(UTC).isoformat()
    for name in ("duration", "time_to_first_token"):  # JSON has no NaN
        if (seconds := document.get(name)) is not None and not isfinite(seconds):
            document[name] = None if type(record) is UsageRecord else 0.0
    return document


def from_document(document: Mapping[str, Any]) -> Record:
    """The record that `to_document` described: what is missing has its default, what is unknown is ignored.

    `ValueError` says which value is wrong, and how.
    """
    kind = document.get("kind", "llm")
    if kind == Kind.TOOL:
        tool: ToolRecord = _converted(document, ToolRecord)
        return msgspec.structs.replace(
            tool, started_at=_utc(tool.started_at), tags=_frozen(tool.tags), params=_frozen(tool.params)
        )
    if kind in (Kind.RUN, Kind.STEP):
        run = _converted(document, _Run)
        values = {name: getattr(run, name) for name in run.__struct_fields__}
        usage = AgentUsage.snapshot(totals_from_document(run.usage))
        return RunRecord(**{**values, "usage": usage, "started_at": _utc(run.started_at), "tags": _frozen(run.tags)})
    usage_record = _converted({"model": document.get("request_model", ""), **document}, UsageRecord)
    return _settled(usage_record)


class _Run(msgspec.Struct):
    """A `RunRecord` whose usage is still a document."""

    id: str
    kind: Kind
    name: str
    started_at: datetime
    duration: float
    status: Status
    usage: dict[str, Any] = {}
    error_type: str | None = None
    framework: str = ""
    run_id: str | None = None
    parent_id: str | None = None
    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    step_number: int | None = None
    tags: dict[str, str] = {}


def _converted(document: Mapping[str, Any], to: Any) -> Any:
    unsaid = _UNSAID[RunRecord if to is _Run else to]
    return msgspec.convert({"kind": "llm", **unsaid, **document}, to)


def _settled(record: UsageRecord) -> UsageRecord:
    """The record with its maps frozen, its time in UTC."""
    usage: TokenUsage | None = record.usage
    if usage is not None and (usage.units or usage.context):
        usage = msgspec.structs.replace(usage, units=_frozen(usage.units), context=_frozen(usage.context))
    elif usage is not None:
        usage = msgspec.structs.replace(usage, units=EMPTY, context=EMPTY)
    corrects = None if record.corrects is None else _settled(record.corrects)
    return msgspec.structs.replace(
        record,
        started_at=_utc(record.started_at),
        usage=usage,
        tags=_frozen(record.tags),
        corrects=corrects,
    )


def _frozen(map: Mapping[str, Any]) -> Mapping[str, Any]:
    return FrozenMap(map) if map else EMPTY


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"started_at must say its offset from UTC, for example {at.isoformat()}Z")
    return at.astimezone(UTC)


def _plain(params: object) -> dict[str, Any]:
    if not isinstance(params, Mapping):
        params = {"(input)": params}
    plain = {}
    for name, value in params.items():
        try:
            plain[_text(name)] = msgspec.to_builtins(value, enc_hook=_text, str_keys=True)
        except Exception:  # a key that is no text, or a value that holds itself
            plain[_text(name)] = _text(value)
    return plain


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a value's own code, and its own bugs
        return f"<{type(value).__name__}>"


# -------------------------------------------------------------------------------------------------- totals


def totals_document(totals: Totals) -> dict[str, Any]:
    """Sums as JSON-able values: the counters that are not 0, `units`, `ran` by tool, `turns` by tool."""
    document: dict[str, Any] = {name: count for name in COUNTERS if (count := getattr(totals, name))}
    if totals.units:
        document["units"] = {name: n if isinstance(n, int) else str(n) for name, n in totals.units.items()}
    if totals.ran:
        document["ran"] = dict(totals.ran)
    if totals.turns:
        document["turns"] = {
            tool: {"asked": share.asked, **totals_document(share)} for tool, share in totals.turns.items()
        }
    return document


def totals_from_document(document: Mapping[str, Any]) -> Totals:
    """The sums that `totals_document` described."""
    totals = Totals()
    _fill(totals, document)
    return totals


def _fill(totals: Totals, document: Mapping[str, Any]) -> None:
    for name in COUNTERS:
        if count := document.get(name):
            totals.count(name, int(count))
    if units := document.get("units"):
        totals.units = {name: n if isinstance(n, int) else Decimal(n) for name, n in units.items()}
    for tool, calls in (document.get("ran") or {}).items():
        totals.tool_ran(tool, int(calls))
    for tool, part in (document.get("turns") or {}).items():
        share = totals.share(tool)
        share.asked += int(part.get("asked", 0))
        _fill(share, part)
