"""Calls, tools and runs of a ledger on a terminal, and as documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..patterns import printable
from ..records import Record, RunRecord, ToolRecord, UsageRecord, dollars
from ..spreadsheets import cell
from ..tool_metrics import ToolMetrics
from ..tree import RunTree
from ..usage import AgentUsage
from .report import money, places_for, short, usage_document
from .terminal import table, title, unfolded

SHOWN = 18  # signs of an id that are shown at least: its time to the quarter of a microsecond
_WIDE = 110


# ------------------------------------------------------------------------------------------------------ calls


def history(records: Sequence[Record], *, width: int = 80) -> Iterator[RenderableType]:
    """One row a call, oldest first."""
    if not records:
        yield Text("No calls in this range.")
        return
    wide = width >= _WIDE
    numbers = ["input", "output", "cost", "seconds"] if wide else ["tokens", "cost"]
    names = ["time", "id", "agent", "model", *(["user", "session"] if wide else []), *numbers]
    made = table(*names, "", right=numbers)
    unfolded(made, "time", "id", *numbers)
    amounts = [record.cost.list_pico for record in records if isinstance(record, UsageRecord)]
    places = places_for(amounts) if wide else min(4, places_for(amounts))
    signs = told_apart(records)
    for record in records:
        whose = [record.user, record.session] if wide else []
        what = record.model if isinstance(record, UsageRecord) else f"{getattr(record, 'name', '')}()"
        made.add_row(
            f"{record.started_at:%m-%d %H:%M:%S}" if wide else f"{record.started_at:%m-%d %H:%M}",
            record.id[:signs],
            *(Text(printable(text)) for text in (record.agent, what, *whose)),
            *_figures(record, places, wide),
            _ending(record),
        )
    yield made


def told_apart(records: Sequence[Record]) -> int:
    """How many signs of their ids tell records apart: what is shown of an id finds its record."""
    ids = sorted({record.id for record in records})
    same = (sum(1 for _ in takewhile(_alike, zip(*two, strict=False))) for two in pairwise(ids))
    return max(SHOWN, max(same, default=0) + 1)


def _alike(signs: tuple[str, str]) -> bool:
    return signs[0] == signs[1]


def _figures(record: Record, places: int, wide: bool) -> list[str]:
    seconds = "" if record.duration is None else f"{record.duration:.1f}"
    tokens = ["", ""] if wide else [""]
    cost = ""
    if isinstance(record, ToolRecord):
        cost = money(record.cost_pico, places) if record.cost_pico else ""
    elif isinstance(record, UsageRecord):
        cost = cost_of(record, places)
        counts = (record.input_tokens, record.output_tokens) if wide else (record.total_tokens,)
        tokens = [f"{count:,}" if wide else short(count) for count in counts]
        if record.usage is None:
            tokens = ["?" for _ in tokens]
    return [*tokens, cost, *([seconds] if wide else [])]


def cost_of(record: UsageRecord, places: int = 6) -> str:
    """The list price with its mark: ≥ a lower bound, ≈ estimated; a word where there is none."""
    pico = record.cost.list_pico
    if pico is None:
        return "unpriced"
    mark = "≥" if record.cost.missing else "≈" if record.estimated or record.cost.status == "estimated" else ""
    return f"{mark}{money(pico, places)}"


def _ending(record: Record) -> str:
    cached = isinstance(record, UsageRecord) and record.cached
    said = [record.status.value] if record.status != "ok" else ["cached"] if cached else []
    if record.error_type and record.status == "error":
        said = [printable(record.error_type)]
    return " ".join(said)


def one_line(record: Record) -> str:
    """A call as a line of a log."""
    at = f"{record.started_at:%Y-%m-%d %H:%M:%S}"
    agent = printable(record.agent) or "-"
    seconds = "" if record.duration is None else f" {record.duration:.2f}s"
    ending = f" {_ending(record)}" if _ending(record) else ""
    if isinstance(record, UsageRecord):
        tokens = "? tokens" if record.usage is None else f"{record.input_tokens:,}+{record.output_tokens:,} tokens"
        return f"{at} {record.id[:SHOWN]} {agent} {printable(record.model)} {tokens} {cost_of(record)}{seconds}{ending}"
    return f"{at} {record.id[:SHOWN]} {agent} {printable(getattr(record, 'name', ''))}(){seconds}{ending}"


# ------------------------------------------------------------------------------------------------------ tools


def tools(
    metrics: Mapping[str, ToolMetrics], turns: Mapping[str, AgentUsage], range: str, *, width: int = 80
) -> Iterator[RenderableType]:
    """One row a tool, the most called first. `turns` are the model calls that asked for it."""
    yield title(f"tools · {range} (UTC)")
    yield ""
    if not metrics:
        yield Text("No tool calls in this range.")
        return
    wide = width >= 100
    numbers = ["calls", "ok %", *(["at least"] if wide else []), "p50 s", "p95 s", "p99 s"]
    numbers += [*(["own cost"] if wide else []), "turns", "turn cost"]
    made = table("tool", *numbers, *(["last errors"] if wide else []), right=numbers)
    places = places_for(turns[name].totals.list_pico for name in metrics if name in turns)
    for name, one in metrics.items():
        turn = turns.get(name) or AgentUsage()
        own = [f"${one.total_cost:,.4f}" if one.total_cost else ""] if wide else []
        made.add_row(
            Text(printable(name)),
            f"{one.total_calls:,}",
            f"{one.success_rate:.1f}" if one.total_calls else "",
            *([f"{100 * wilson(one.successful_calls, one.total_calls):.0f}"] if wide else []),
            *(f"{seconds:.3f}" for seconds in (one.p50, one.p95, one.p99)),
            *own,
            f"{turn.requests:,}",
            f"{'≥' if turn.is_lower_bound else ''}{money(turn.totals.list_pico, places)}",
            *([", ".join(dict.fromkeys(reversed(one.last_errors)))] if wide else []),
        )
    yield made
    denied = sum(one.denied_calls for one in metrics.values())
    if denied:
        yield ""
        yield Text(f"  {denied:,} tool call{'s' if denied != 1 else ''} denied")


def wilson(good: int, number: int) -> float:
    """The lower end of the 95 % interval of a rate (Wilson): what few calls say for sure."""
    if not number:
        return 0.0
    z = 1.959964
    rate = good / number
    spread: float = z * math.sqrt((rate * (1 - rate) + z * z / (4 * number)) / number)
    return max(0.0, (rate + z * z / (2 * number) - spread) / (1 + z * z / number))


def tool_document(one: ToolMetrics, turns: AgentUsage | None) -> dict[str, Any]:
    said = one.to_dict()
    said["total_cost"] = f"{one.total_cost:f}"
    said["success_rate_at_least"] = round(100 * wilson(one.successful_calls, one.total_calls), 2)
    return {**said, "turns": usage_document(turns or AgentUsage())}


_TOOL_COLUMNS = (
    "name", "total_calls", "successful_calls", "failed_calls", "denied_calls", "success_rate", "p50", "p95", "p99",
    "avg_duration", "total_duration", "total_cost",
)  # fmt: skip


def tools_csv(metrics: Mapping[str, ToolMetrics], turns: Mapping[str, AgentUsage]) -> str:
    lines = [",".join((*_TOOL_COLUMNS, "turns", "turn_tokens", "turn_cost_usd"))]
    for name, one in metrics.items():
        said, turn = tool_document(one, None), turns.get(name) or AgentUsage()
        values = [cell(name), *(str(said[column]) for column in _TOOL_COLUMNS[1:])]
        lines.append(",".join((*values, str(turn.requests), str(turn.total_tokens), f"{turn.cost_usd:f}")))
    return "".join(f"{line}\r\n" for line in lines)


# ------------------------------------------------------------------------------------------------------- runs


def runs(found: Sequence[tuple[RunRecord, AgentUsage]]) -> Iterator[RenderableType]:
    """One row a run, newest first, with the usage of its whole tree."""
    if not found:
        yield Text("No runs in this range.")
        return
    numbers = ["calls", "tokens", "cost", "s"]
    made = table("time", "id", "run", "agent", *numbers, "", right=numbers)
    unfolded(made, "time", "id", *numbers)
    places = min(4, places_for(usage.totals.list_pico for _, usage in found))
    signs = told_apart([record for record, _ in found])
    for record, usage in found:
        made.add_row(
            f"{record.started_at:%m-%d %H:%M}",
            record.id[:signs],
            Text(printable(record.name)),
            Text(printable(record.agent)),
            f"{usage.requests:,}",
            short(usage.total_tokens),
            _cost(usage, places),
            f"{record.duration:.1f}",
            _ending(record),
        )
    yield made


def tree(run: RunTree) -> Iterator[RenderableType]:
    """A run and all below it: its own usage and that of its subtree."""
    numbers = ["calls", "own tokens", "own cost", "tokens", "cost"]
    made = table("run", *numbers, "", right=numbers)
    rows = list(_below(run))
    places = places_for(pico for _, one in rows for pico in (one.own.totals.list_pico, one.usage.totals.list_pico))
    for depth, one in rows:
        made.add_row(
            Text(f"{'  ' * depth}{printable(one.name) or one.kind}"),
            f"{one.usage.requests:,}",
            short(one.own.total_tokens),
            _cost(one.own, places),
            short(one.usage.total_tokens),
            _cost(one.usage, places),
            "" if one.status == "ok" else one.status or "running",
        )
    yield made


def _below(run: RunTree) -> Iterator[tuple[int, RunTree]]:
    waiting = [(0, run)]
    while waiting:
        depth, one = waiting.pop()
        yield depth, one
        waiting += [(depth + 1, child) for child in reversed(one.children)]


def _cost(usage: AgentUsage, places: int) -> str:
    return f"{'≥' if usage.is_lower_bound else ''}{money(usage.totals.list_pico, places)}"


def run_document(record: RunRecord, usage: AgentUsage) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "agent": record.agent,
        "started_at": record.started_at.isoformat(),
        "duration": record.duration,
        "status": record.status.value,
        "usage": usage_document(usage),
    }


def tree_document(run: RunTree) -> dict[str, Any]:
    """Own usage and that of the subtree, by node; deep trees do not need deep recursion to be read: ids and depth."""
    nodes = [
        {
            "depth": depth,
            "id": one.id,
            "kind": str(one.kind),
            "name": one.name,
            "status": one.status,
            "own": usage_document(one.own),
            "usage": usage_document(one.usage),
        }
        for depth, one in _below(run)
    ]
    return {"id": run.id, "cost_usd": f"{dollars(run.usage.totals.list_pico):f}", "nodes": nodes}
