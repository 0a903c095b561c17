"""Records as rows of a table, and back; what cannot be a row is refused here, before it reaches a database.

One table holds records of every kind: what is asked for often has a column, the rest is in `more`, as JSON. Text
is cut at 1,000 characters and loses NUL and lone surrogates, which databases read in different ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from operator import index
from typing import Any

import msgspec

from ..encoding import from_document, to_document, totals_document, totals_from_document
from ..errors import StoreError
from ..records import (
    EMPTY,
    RUN,
    STEP,
    TOOL,
    Attempt,
    Cost,
    CostStatus,
    FrozenMap,
    Kind,
    Record,
    RunRecord,
    Status,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)
from ..usage import AgentUsage
from .memory import versions_before

TEXT = 1_000  # characters of a name
MORE = 64_000  # characters of what has no column
_MOST = 2**63 - 1

# name, type (text, number or real), and whether it may be NULL, in the order of the rows.
COLUMNS = (
    ("id", "text", False),
    ("revision", "int", False),
    ("corrects", "text", True),
    ("kind", "text", False),
    ("at", "int", False),  # microseconds since 1970, UTC
    ("duration", "real", True),
    ("status", "text", False),
    ("error_type", "text", True),
    ("framework", "text", False),
    ("run_id", "text", True),
    ("parent_id", "text", True),
    ("agent", "text", False),
    ("task", "text", False),
    ("user", "text", False),
    ("session", "text", False),
    ("step", "text", False),
    ("name", "text", False),  # of a tool, a run or a step
    ("provider", "text", False),
    ("model", "text", False),
    ("request_model", "text", False),
    ("response_model", "text", True),
    ("response_id", "text", True),
    ("cached", "int", False),
    ("estimated", "int", False),
    ("input_tokens", "int", True),
    ("output_tokens", "int", True),
    ("cache_read_tokens", "int", True),
    ("cache_write_tokens", "int", True),
    ("cache_write_1h_tokens", "int", True),
    ("reasoning_tokens", "int", True),
    ("input_audio_tokens", "int", True),
    ("output_audio_tokens", "int", True),
    ("input_image_tokens", "int", True),
    ("output_image_tokens", "int", True),
    ("cost_status", "text", True),
    ("list_pico", "int", True),
    ("billed_pico", "int", True),
    ("input_pico", "int", True),
    ("output_pico", "int", True),
    ("card_id", "text", True),
    ("tools", "text", True),  # JSON
    ("tags", "text", True),  # JSON
    ("more", "text", True),  # JSON
)
NAMES = tuple(name for name, _, _ in COLUMNS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode, _decode = msgspec.json.encode, msgspec.json.decode
_NO_USAGE = (None,) * 10
_NO_COST = (None,) * 6
_NO_MODEL = ("", "", "", None, None, 0, 0)


def micros(at: datetime) -> int:
    """Microseconds since 1970, exactly; `ValueError` for a time that does not say its offset."""
    if at.tzinfo is None:
        raise ValueError(f"a record's started_at must be aware, not {at!r}")
    return (at - _EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def row_of(record: Record) -> tuple[Any, ...]:
    """The record's row. `ValueError` or `TypeError` says what in it no ledger can hold."""
    kind = type(record)
    if kind is UsageRecord:
        return _usage_row(record)  # type: ignore[arg-type]
    if kind is ToolRecord:
        return _tool_row(record)  # type: ignore[arg-type]
    if kind is RunRecord:
        return _run_row(record)  # type: ignore[arg-type]
    raise TypeError(f"a store keeps records, not {kind.__name__}")


def _usage_row(record: UsageRecord) -> tuple[Any, ...]:
    usage, cost = record.usage, record.cost
    if record.kind not in _OF_CALLS:
        raise ValueError(f"a model call is one of {', '.join(_OF_CALLS)}, not {record.kind!r}")
    more: dict[str, Any] = {}
    if record.time_to_first_token is not None:
        more["ttft"] = _real(record.time_to_first_token)
    if record.streamed:
        more["streamed"] = True
    if record.attempt != 1:
        more["attempt"] = index(record.attempt)
    if record.notes:
        more["notes"] = _texts(record.notes)
    if record.corrects is not None:
        more["corrects"] = to_document(record.corrects)
    if record.attempts:
        more["attempts"] = [_attempt(attempt) for attempt in record.attempts]
    counts: tuple[int | None, ...] = _NO_USAGE
    if usage is not None:
        counts = (
            _count(usage.input_tokens),
            _count(usage.output_tokens),
            _count(usage.cache_read_tokens),
            _count(usage.cache_write_tokens),
            _count(usage.cache_write_1h_tokens),
            _count(usage.reasoning_tokens),
            _count(usage.input_audio_tokens),
            _count(usage.output_audio_tokens),
            _count(usage.input_image_tokens),
            _count(usage.output_image_tokens),
        )
        if usage.units:
            more["units"] = {_text(name): _unit(number) for name, number in usage.units.items()}
        if usage.missing:
            more["missing"] = _texts(usage.missing)
        if usage.context:
            more["context"] = {_text(str(name)): _text(str(value)) for name, value in usage.context.items()}
        if usage.reported_pico is not None:
            more["reported"] = index(usage.reported_pico)
    rest = _rest_of(cost, record.model)
    if rest:
        more["cost"] = rest
    return (
        *_who(record),
        "",
        _text(record.provider),
        _text(record.model),
        _text(record.request_model),
        _optional(record.response_model),
        _optional(record.response_id),
        1 if record.cached else 0,
        1 if record.estimated else 0,
        *counts,
        str(CostStatus(cost.status)),
        _money(cost.list_pico),
        _money(cost.billed_pico),
        _money(cost.input_pico),
        _money(cost.output_pico),
        _optional(cost.card_id),
        _json(_texts(record.tools)) if record.tools else None,
        _tags(record.tags),
        _json(more) if more else None,
    )


def _rest_of(cost: Cost, model: str) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    if cost.model != model:
        rest["model"] = _optional(cost.model)
    if cost.missing:
        rest["missing"] = _texts(cost.missing)
    if cost.assumptions:
        rest["assumptions"] = _texts(cost.assumptions)
    if cost.reason is not None:
        rest["reason"] = _text(cost.reason)
    if cost.reported_pico is not None:
        rest["reported"] = index(cost.reported_pico)
    return rest


def _tool_row(record: ToolRecord) -> tuple[Any, ...]:
    more: dict[str, Any] = {}
    if record.call_id:
        more["call_id"] = _text(record.call_id)
    if record.chunk_count:
        more["chunks"] = index(record.chunk_count)
    if record.cost_pico:
        more["pico"] = _money(record.cost_pico)
    return (*_who(record), _text(record.name), *_NO_MODEL, *_NO_USAGE, *_NO_COST, None, _tags(record.tags),
            _json(more) if more else None)  # fmt: skip


def _run_row(record: RunRecord) -> tuple[Any, ...]:
    more: dict[str, Any] = {"usage": totals_document(record.usage.totals)}
    if record.step_number is not None:
        more["step_number"] = index(record.step_number)
    return (*_who(record), _text(record.name), *_NO_MODEL, *_NO_USAGE, *_NO_COST, None, _tags(record.tags),
            _json(more))  # fmt: skip


def _who(record: Record) -> tuple[Any, ...]:
    if not record.id or type(record.id) is not str or _text(record.id) != record.id:
        raise ValueError(f"a record's id is a text of 1 to {TEXT:,} characters, not {record.id!r}")
    duration = record.duration
    return (
        record.id,
        versions_before(record),
        record.corrects.id if type(record) is UsageRecord and record.corrects is not None else None,
        str(Kind(record.kind)),
        micros(record.started_at),
        None if duration is None else _real(duration),
        str(Status(record.status)),
        _optional(record.error_type),
        _text(record.framework),
        _optional(record.run_id),
        _optional(record.parent_id),
        _text(record.agent),
        _text(record.task),
        _text(record.user),
        _text(record.session),
        _text(record.step),
    )


# ------------------------------------------------------------------------------------------ values as columns


def _text(text: str) -> str:
    if type(text) is not str:
        if not isinstance(text, str):
            raise TypeError(f"a text is needed, not {type(text).__name__}")
        text = str(text)
    if len(text) > TEXT:
        text = text[:TEXT]
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _texts(texts: Iterable[str]) -> list[str]:
    return [_text(text) for text in texts]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    if type(attempt) is not Attempt:
        raise TypeError(f"an Attempt is needed, not {type(attempt).__name__}")
    plain: dict[str, Any] = msgspec.to_builtins(attempt)
    msgspec.convert(plain, Attempt)  # what could not be read again is refused
    return plain


def _optional(text: str | None) -> str | None:
    return None if text is None else _text(text)


def _count(number: int) -> int:
    if type(number) is not int:
        number = index(number)
    if not 0 <= number <= _MOST:
        raise ValueError(f"a count is 0 or more, and less than 2^63; not {number:,}")
    return number


def _money(pico: int | None) -> int | None:
    if pico is None:
        return None
    if not -_MOST <= index(pico) <= _MOST:
        raise ValueError(f"an amount of {pico:,} pico-dollars is beyond what a ledger holds (about $9.2 million)")
    return index(pico)


def _real(number: float) -> float | None:
    number = float(number)
    return number if isfinite(number) else None


def _unit(number: int | Decimal) -> int | str:
    if isinstance(number, Decimal):
        if not number.is_finite():
            raise ValueError(f"not a count: {number}")
        return str(number)
    return index(number)


def _tags(tags: Mapping[str, str]) -> str | None:
    if not tags:
        return None
    return _json({_text(str(name)): _text(str(value)) for name, value in tags.items()})


def _json(value: Any) -> str:
    text = _encode(value).decode()
    if len(text) > MORE:
        raise ValueError(f"{len(text):,} characters of tags or details are more than a ledger keeps ({MORE:,})")
    return text


# ------------------------------------------------------------------------------------------------- and back


def as_stored(record: Record, row: tuple[Any, ...]) -> Record:
    """The record as the ledger has it: another one only if a text had to be cut or cleaned."""
    plain = row[11:16] == (record.agent, record.task, record.user, record.session, record.step)
    if type(record) is UsageRecord:
        plain = plain and row[17] == record.provider and row[18] == record.model
        plain = plain and all(_text(tool) is tool for tool in record.tools)
    elif type(record) is ToolRecord:
        plain = plain and row[16] == record.name
    plain = plain and all(type(value) is str and _text(value) is value for tag in record.tags.items() for value in tag)
    return record if plain else record_of(row)


def record_of(row: tuple[Any, ...]) -> Record:
    """The record that `row_of` made this row of; columns as in `NAMES`. `StoreError` for a row that is damaged."""
    try:
        return _record_of(row)
    except Exception as error:
        raise StoreError(f"the ledger is damaged at record {row[0]!r}: {type(error).__name__}: {error}") from error


def _record_of(row: tuple[Any, ...]) -> Record:
    kind = _KINDS[row[3]]
    more: Any = EMPTY if row[42] is None else _decode(row[42])
    tags = EMPTY if row[41] is None else FrozenMap(_decode(row[41]))
    at = moment(row[4])
    if kind is TOOL:
        return ToolRecord(  # type: ignore[call-arg]
            row[0],
            row[16],
            more.get("call_id", ""),
            at,
            row[5] or 0.0,
            _STATUSES[row[6]],
            EMPTY,
            more.get("chunks", 0),
            more.get("pico", 0),
            row[7],
            *row[8:16],
            tags,
        )
    if kind is RUN or kind is STEP:
        return RunRecord(  # type: ignore[call-arg]
            row[0],
            kind,
            row[16],
            at,
            row[5] or 0.0,
            _STATUSES[row[6]],
            AgentUsage.snapshot(totals_from_document(more.get("usage", EMPTY))),
            *row[7:16],
            more.get("step_number"),
            tags,
        )
    usage = None
    if row[24] is not None:
        units = more.get("units")
        usage = TokenUsage(  # type: ignore[call-arg]
            *row[24:34],
            EMPTY if units is None else FrozenMap({k: Decimal(v) if type(v) is str else v for k, v in units.items()}),
            tuple(more.get("missing", ())),
            FrozenMap(more["context"]) if "context" in more else EMPTY,
            more.get("reported"),
        )
    rest = more.get("cost", EMPTY)
    cost = Cost(  # type: ignore[call-arg]
        _COSTS[row[34]],
        *row[35:40],
        rest["model"] if "model" in rest else row[18],
        tuple(rest.get("missing", ())),
        tuple(rest.get("assumptions", ())),
        rest.get("reason"),
        rest.get("reported"),
    )
    corrects = more.get("corrects")
    return UsageRecord(  # type: ignore[call-arg]
        row[0],
        kind,
        at,
        row[5],
        more.get("ttft"),
        row[17],
        row[19],
        row[20],
        row[18],
        usage,
        cost,
        _STATUSES[row[6]],
        row[7],
        row[22] == 1,
        row[23] == 1,
        more.get("streamed", False),
        more.get("attempt", 1),
        row[21],
        *row[8:16],
        () if row[40] is None else tuple(_decode(row[40])),
        tags,
        tuple(more.get("notes", ())),
        None if corrects is None else from_document(corrects),
        msgspec.convert(more["attempts"], tuple[Attempt, ...]) if "attempts" in more else (),
    )


_OF_CALLS = (Kind.LLM, Kind.EMBEDDING, Kind.RERANK)
_KINDS = {kind.value: kind for kind in Kind}
_STATUSES = {status.value: status for status in Status}
_COSTS = {status.value: status for status in CostStatus}


def dead_document(item: object) -> str:
    """What a record that cannot be stored said, as JSON, however broken it is."""
    try:
        return _encode(to_document(item)).decode()  # type: ignore[arg-type]
    except Exception:  # the very thing that is wrong with it
        said = {}
        for name in getattr(item, "__struct_fields__", ()):
            if name not in ("params", "usage", "corrects"):
                try:
                    said[name] = repr(getattr(item, name))[:200]
                except Exception:
                    said[name] = "?"
        return _encode({"type": type(item).__name__, **said}).decode("utf-8", "replace")
