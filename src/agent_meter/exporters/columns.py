"""Records as rows of one table: what CSV and Parquet files have in common.

One row a record. Sums over a column are right whatever kinds of records there are: runs and steps have no tokens
or cost of their own (their calls have), and what a tool call cost is in a column of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ..records import EMPTY, TOKEN_CLASSES, Record, ToolRecord, UsageRecord, dollars

TEXT, COUNT, SECONDS, MONEY, FLAG, TIME, TEXTS, MAP = (
    "text",
    "count",
    "seconds",
    "money",
    "flag",
    "time",
    "texts",
    "map",
)


class Column(NamedTuple):
    name: str
    holds: str


COLUMNS: tuple[Column, ...] = (
    Column("id", TEXT),
    Column("kind", TEXT),
    Column("started_at", TIME),
    Column("duration", SECONDS),
    Column("time_to_first_token", SECONDS),
    Column("status", TEXT),
    Column("error_type", TEXT),
    Column("name", TEXT),  # of a tool, run or step
    Column("provider", TEXT),
    Column("request_model", TEXT),
    Column("response_model", TEXT),
    Column("model", TEXT),
    *(Column(name, COUNT) for name in TOKEN_CLASSES),
    Column("units", MAP),
    Column("missing", TEXTS),
    Column("cost_status", TEXT),
    Column("cost_usd", MONEY),
    Column("input_cost_usd", MONEY),
    Column("output_cost_usd", MONEY),
    Column("billed_cost_usd", MONEY),
    Column("saved_cost_usd", MONEY),
    Column("reported_cost_usd", MONEY),
    Column("tool_cost_usd", MONEY),
    Column("card_id", TEXT),
    Column("cached", FLAG),
    Column("estimated", FLAG),
    Column("streamed", FLAG),
    Column("attempt", COUNT),
    Column("attempts", COUNT),  # requests that a transport tap saw for the call; empty without one
    Column("response_id", TEXT),
    Column("framework", TEXT),
    Column("run_id", TEXT),
    Column("parent_id", TEXT),
    Column("agent", TEXT),
    Column("task", TEXT),
    Column("user", TEXT),
    Column("session", TEXT),
    Column("step", TEXT),
    Column("step_number", COUNT),
    Column("tools", TEXTS),
    Column("chunk_count", COUNT),
    Column("tags", MAP),
    Column("notes", TEXTS),
    Column("corrects", TEXT),  # the id of the record that this one stands in for
)
NAMES = tuple(column.name for column in COLUMNS)

_NO_TOKENS = (None,) * len(TOKEN_CLASSES)
_NO_COST = (None,) * 6


def row(record: Record) -> tuple[Any, ...]:
    """The values of a record in the order of `COLUMNS`; `None` where it has none, or where none is known."""
    if type(record) is UsageRecord:
        return _usage_row(record)
    assert not isinstance(record, UsageRecord)
    tool = record if type(record) is ToolRecord else None
    return (
        record.id,
        record.kind.value,
        record.started_at,
        record.duration,
        None,
        record.status.value,
        record.error_type,
        record.name,
        None,
        None,
        None,
        None,
        *_NO_TOKENS,
        EMPTY,
        (),
        None,
        *_NO_COST,
        None if tool is None else dollars(tool.cost_pico),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        record.framework,
        record.run_id,
        record.parent_id,
        record.agent,
        record.task,
        record.user,
        record.session,
        record.step,
        getattr(record, "step_number", None),
        (),
        None if tool is None else tool.chunk_count,
        record.tags,
        (),
        None,
    )


def _usage_row(record: UsageRecord) -> tuple[Any, ...]:
    usage, cost = record.usage, record.cost
    tokens: tuple[int | None, ...] = _NO_TOKENS
    units: Mapping[str, int | Decimal] = EMPTY
    if usage is not None:
        tokens = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.cache_write_1h_tokens,
            usage.reasoning_tokens,
            usage.input_audio_tokens,
            usage.output_audio_tokens,
            usage.input_image_tokens,
            usage.output_image_tokens,
        )
        units = usage.units
    return (
        record.id,
        record.kind.value,
        record.started_at,
        record.duration,
        record.time_to_first_token,
        record.status.value,
        record.error_type,
        None,
        record.provider,
        record.request_model,
        record.response_model,
        record.model,
        *tokens,
        units,
        record.missing,
        cost.status.value,
        *_money(record),
        None,
        cost.card_id,
        record.cached,
        record.estimated,
        record.streamed,
        record.attempt,
        len(record.attempts) or None,
        record.response_id,
        record.framework,
        record.run_id,
        record.parent_id,
        record.agent,
        record.task,
        record.user,
        record.session,
        record.step,
        None,
        record.tools,
        None,
        record.tags,
        record.notes,
        None if record.corrects is None else record.corrects.id,
    )


def _money(record: UsageRecord) -> tuple[Decimal | None, ...]:
    cost = record.cost
    reported = None if cost.reported_pico is None else dollars(cost.reported_pico)
    if cost.list_pico is None:
        return None, None, None, None, None, reported
    billed = cost.billed_pico or 0
    return (
        dollars(cost.list_pico),
        dollars(cost.input_pico),
        dollars(cost.output_pico),
        dollars(billed),
        dollars(cost.list_pico - billed if record.cached else 0),
        reported,
    )
