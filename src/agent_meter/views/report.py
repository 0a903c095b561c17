"""A report: usage by whatever was asked, as a screen that fits, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from ..dimensions import PERIODS
from ..patterns import printable
from ..records import dollars
from ..spreadsheets import cell
from ..totals import COUNTERS
from ..usage import AgentUsage
from .terminal import line, table, title

Key = tuple[str, ...]

_NONE = {"user": "(nobody)", "agent": "(nobody)"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_TREND_WIDTH = 100  # columns from which a report has room for the week's trend


class Row(NamedTuple):
    key: Key
    usage: AgentUsage


class Before(NamedTuple):
    """The range of the same length before: what it is called, its usage by key and altogether."""

    range: str
    rows: Mapping[Key, AgentUsage]
    total: AgentUsage


class Report(NamedTuple):
    """Rows in their order, the sum of those that `limit` left out, and the total of the range."""

    dimensions: tuple[str, ...]
    range: str
    rows: tuple[Row, ...]
    rest: AgentUsage | None
    left_out: int
    total: AgentUsage
    unpriced: Mapping[str, int]
    before: Before | None = None

    @classmethod
    def of(
        cls,
        dimensions: Sequence[str],
        range: str,
        groups: Mapping[Key, AgentUsage],
        total: AgentUsage,
        *,
        unpriced: Mapping[str, int],
        sort: str = "",
        limit: int = 0,
    ) -> Report:
        ordered = sorted((Row(key, usage) for key, usage in groups.items()), key=lambda row: row.key)
        sort = sort or ("name" if set(dimensions) & set(PERIODS) else "cost")
        if sort != "name":
            ordered.sort(key=_ORDERS[sort], reverse=True)
        kept, rest = (ordered[:limit], ordered[limit:]) if limit else (ordered, [])
        more: AgentUsage | None = None
        if rest:
            more = AgentUsage()
            for row in rest:
                more.totals.merge(row.usage.totals)
        return cls(tuple(dimensions), range, tuple(kept), more, len(rest), total, unpriced)


_ORDERS: dict[str, Any] = {
    "cost": lambda row: (row.usage.totals.list_pico, row.usage.total_tokens),
    "tokens": lambda row: row.usage.total_tokens + row.usage.embedding_tokens,
    "calls": lambda row: row.usage.requests,
}


# -------------------------------------------------------------------------------------------------- the screen


def has_room(report: Report, width: int) -> bool:
    return _TREND_WIDTH <= width < 1000 and not set(report.dimensions) & {*PERIODS, "tool"} and bool(report.rows)


def screen(
    report: Report,
    *,
    width: int = 80,
    trend: Mapping[Key, Sequence[int]] | None = None,
) -> Iterator[RenderableType]:
    """A table with a total, and below what the total leaves out, assumes or saved."""
    yield title(f"{', '.join(report.dimensions)} · {report.range} (UTC)")
    yield ""
    if not report.rows:
        yield Text("No calls in this range.")
        return
    total = report.total.totals
    places = places_for(row.usage.totals.list_pico for row in report.rows)
    numbers = ["calls", "input", "cached", "output", *(["reasoning"] if width >= 90 else []), "tools"]
    if total.cached_requests and width >= 90:
        numbers.append("saved")
    numbers += ["cost", "share"]
    # Days have no day before of the same name.
    before = None if set(report.dimensions) & set(PERIODS) else report.before
    heads = [*numbers, *(["change"] if before else [])]
    made = table(*report.dimensions, *heads, *(["7 days"] if trend else []), right=heads)
    lines = [(row.key, row.usage) for row in report.rows]
    if report.rest is not None:
        lines.append(((f"({report.left_out:,} more)", *[" "] * (len(report.dimensions) - 1)), report.rest))
    for key, usage in lines:
        cells = _cells(usage, numbers, places, total.list_pico)
        if before:
            cells.append(change(usage, before.rows.get(key)))
        spark = [sparkline(trend.get(key, ()))] if trend else []
        made.add_row(*(_name(part, of) for part, of in zip(key, report.dimensions, strict=True)), *cells, *spark)
    made.add_section()
    cells = [*_cells(report.total, numbers, places, 0), *([change(report.total, before.total)] if before else [])]
    blank = [""] * (len(report.dimensions) - 1)
    made.add_row("total", *blank, *cells, *([""] if trend else []), style="bold")
    yield made
    notes = [*_notes(report), *_change(report)]
    if notes:
        yield ""
        yield from (line(note) for note in notes)


def _name(value: str, dimension: str) -> Text:
    """A key as it is shown; what nobody said is said to be that."""
    return Text(printable(value)) if value else Text(_NONE.get(dimension, f"(no {dimension})"), style="dim")


def _cells(usage: AgentUsage, numbers: Sequence[str], places: int, whole: int) -> list[str]:
    totals = usage.totals
    bound = "≥" if usage.is_lower_bound else ""
    said = {
        "calls": f"{totals.requests:,}",
        "input": short(totals.input_tokens + totals.embedding_tokens),
        "cached": short(totals.cache_read_tokens),
        "output": short(totals.output_tokens),
        "reasoning": short(totals.reasoning_tokens),
        "tools": f"{sum(usage.tool_usage.values()):,}",
        "saved": money(totals.saved_pico, places),
        # Where nothing has a price, not even a lower bound is worth a figure.
        "cost": f"{bound}{money(totals.list_pico, places)}" if totals.list_pico or not bound else "unpriced",
        "share": f"{100 * totals.list_pico / whole:.0f}%" if whole else "",
    }
    return [said[name] for name in numbers]


def _notes(report: Report) -> Iterator[str]:
    usage = report.total
    totals = usage.totals
    if totals.unpriced_requests:
        names = sorted(report.unpriced, key=lambda name: -report.unpriced[name])
        shown = ", ".join(printable(name) or "(no model)" for name in names[:3]) + (" …" if len(names) > 3 else "")
        yield f"! {calls(totals.unpriced_requests)} unpriced{f' ({shown})' if shown else ''}: not in the cost"
    if totals.partial_requests:
        yield f"! {calls(totals.partial_requests)} priced in part: the cost is a lower bound"
    if totals.estimated_requests:
        seen = 100 - 100 * totals.estimated_requests / max(1, totals.requests)
        yield f"~ {calls(totals.estimated_requests)} estimated; {seen:.1f}% of calls have the provider's own usage"
    if totals.cached_requests:
        billed = money(totals.billed_pico, places_for([totals.billed_pico]))
        saved = money(totals.saved_pico, places_for([totals.saved_pico]))
        yield f"  {calls(totals.cached_requests)} replayed from a cache: {saved} saved, {billed} billed"
    if totals.failed_requests:
        yield f"  {calls(totals.failed_requests)} failed"
    if totals.denied_requests:
        yield (
            f"  {calls(totals.denied_requests)} denied before it was sent"
            if totals.denied_requests == 1
            else (f"  {calls(totals.denied_requests)} denied before they were sent")
        )


def _change(report: Report) -> Iterator[str]:
    if report.before is not None and report.before.total.totals.list_pico:
        pico = report.before.total.totals.list_pico
        said = change(report.total, report.before.total)
        yield f"  {said} against {money(pico, places_for([pico]))} {report.before.range}"


def change(usage: AgentUsage, before: AgentUsage | None) -> str:
    """The cost against that of before in percent, and "new" where there was none."""
    was, pico = before.totals.list_pico if before is not None else 0, usage.totals.list_pico
    if not was:
        return "new" if pico else ""
    return f"{100 * (pico - was) / was:+.0f}%"


# ------------------------------------------------------------------------------------------------ numbers


def short(number: int) -> str:
    """`950`, `12.3k`, `1.2M`: a size where room is scarce."""
    for unit, sign in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(number) >= unit * 0.99995:
            return f"{number / unit:.1f}{sign}" if abs(number) < 99.95 * unit else f"{number / unit:.0f}{sign}"
    return str(number)


def places_for(amounts: Any) -> int:
    """How many decimals a column of amounts needs, so that its smallest is not shown as zero; 6 at most."""
    smallest = min((abs(amount) for amount in amounts if amount), default=10**12)
    return 2 if smallest >= 10**12 else 4 if smallest >= 10**9 else 6


def money(pico: int, places: int = 2) -> str:
    """`$14.20`; what is less than the last decimal shows, is said to be less."""
    if pico and abs(pico) < 10 ** (12 - places) // 2:
        return f"<${Decimal(1).scaleb(-places):f}"
    return f"${dollars(pico):,.{places}f}" if pico >= 0 else f"-${dollars(-pico):,.{places}f}"


def calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"


def sparkline(values: Sequence[int]) -> str:
    """Seven days as seven signs, the highest as high as can be; a day without cost is a dot."""
    highest = max(values, default=0)
    return "".join(_BLOCKS[(value * 7 + highest // 2) // highest] if value else "·" for value in values)


# ---------------------------------------------------------------------------------------------- documents


def document(report: Report) -> dict[str, Any]:
    """What `--json` prints. Amounts are strings in US dollars."""
    return {
        "by": list(report.dimensions),
        "range": report.range,
        "rows": [
            {**dict(zip(report.dimensions, row.key, strict=True)), **usage_document(row.usage)} for row in report.rows
        ],
        "rest": None if report.rest is None else {"rows": report.left_out, **usage_document(report.rest)},
        "total": usage_document(report.total),
        "unpriced_models": dict(report.unpriced),
        "before": None if report.before is None else _before(report.dimensions, report.before),
    }


def _before(dimensions: Sequence[str], before: Before) -> dict[str, Any]:
    rows = [{**dict(zip(dimensions, key, strict=True)), **usage_document(usage)} for key, usage in before.rows.items()]
    return {"range": before.range, "rows": rows, "total": usage_document(before.total)}


def usage_document(usage: AgentUsage) -> dict[str, Any]:
    """Every counter, money as exact text; `cost_is_lower_bound` when something in it has no price.

    Where nothing in it has one, the cost is unknown, which is `None` and never zero.
    """
    totals = usage.totals
    unknown = usage.is_lower_bound and not totals.list_pico
    counts = {name: getattr(totals, name) for name in COUNTERS if not name.endswith("_pico")}
    return {
        **counts,
        "total_tokens": usage.total_tokens,
        "tool_calls": sum(usage.tool_usage.values()),
        "cost_usd": None if unknown else f"{usage.cost_usd:f}",
        "billed_cost_usd": None if unknown else f"{usage.billed_cost_usd:f}",
        "saved_cost_usd": f"{usage.saved_cost_usd:f}",
        "cost_is_lower_bound": usage.is_lower_bound,
    }


def _said(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def csv(report: Report) -> str:
    """One row a key, and no total: a spreadsheet sums by itself."""
    rows = [*report.rows]
    fields = list(usage_document(AgentUsage()))
    lines = [",".join([*map(cell, report.dimensions), *fields])]
    for row in rows:
        values = usage_document(row.usage)
        said = (_said(values[name]) for name in fields)
        lines.append(",".join([*map(cell, row.key), *said]))
    return "".join(f"{line}\r\n" for line in lines)
