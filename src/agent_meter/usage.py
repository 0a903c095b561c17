"""AgentUsage: what was used and what it cost, added up exactly.

`Totals` is the bare counter set (no lock, no history), kept small because there is one for every agent, user,
model, … that was seen. `AgentUsage` is what people get: a snapshot that aliases nothing, or an accumulator of
their own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec

from .records import Kind, Status, UsageRecord, dollars

COUNTERS = (
    "requests",
    "cached_requests",
    "api_calls",
    "failed_requests",
    "denied_requests",
    "unpriced_requests",
    "partial_requests",
    "estimated_requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "embedding_tokens",
    "list_pico",
    "billed_pico",
    "saved_pico",
    "input_pico",
    "output_pico",
    "embedding_pico",
)
_counts = attrgetter(*COUNTERS)

# One tool's share, by position: calls asked for, calls that ran, then the shared-out counters.
_SHARED = (
    "requests",
    "cached_requests",
    "api_calls",
    "unpriced_requests",
    "input_tokens",
    "output_tokens",
    "list_pico",
    "billed_pico",
    "saved_pico",
    "input_pico",
    "output_pico",
)
_shared = attrgetter(*_SHARED)
ASKED, RAN = 0, 1
_INPUT, _OUTPUT = 2 + _SHARED.index("input_tokens"), 2 + _SHARED.index("output_tokens")
OTHER = "(other)"
MAX_TOOLS = 10_000


class Totals:
    """Sums over model calls. Adding is O(1) and touches only what a call has."""

    __slots__ = (*COUNTERS, "tools", "units")

    requests: int
    cached_requests: int
    api_calls: int
    failed_requests: int
    denied_requests: int
    unpriced_requests: int
    partial_requests: int
    estimated_requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    input_image_tokens: int
    output_image_tokens: int
    embedding_tokens: int
    list_pico: int
    billed_pico: int
    saved_pico: int
    input_pico: int
    output_pico: int
    embedding_pico: int
    tools: dict[str, list[int]] | None
    units: dict[str, int | Decimal] | None

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self.tools = None
        self.units = None

    def add(self, record: UsageRecord) -> None:
        if record.status is Status.DENIED:
            self.denied_requests += 1
            return
        self.requests += 1
        if record.cached:
            self.cached_requests += 1
        else:
            self.api_calls += 1
        if record.status is not Status.OK:
            self.failed_requests += 1
        if record.estimated:
            self.estimated_requests += 1
        usage, cost = record.usage, record.cost
        embedding = record.kind is Kind.EMBEDDING
        if usage is not None:
            if embedding:
                self.embedding_tokens += usage.input_tokens
            else:
                self.input_tokens += usage.input_tokens
                self.output_tokens += usage.output_tokens
                # Written out, because most calls have few of these and a loop would cost all of them a microsecond.
                if count := usage.cache_read_tokens:
                    self.cache_read_tokens += count
                if count := usage.cache_write_tokens:
                    self.cache_write_tokens += count
                if count := usage.cache_write_1h_tokens:
                    self.cache_write_1h_tokens += count
                if count := usage.reasoning_tokens:
                    self.reasoning_tokens += count
                if count := usage.input_audio_tokens:
                    self.input_audio_tokens += count
                if count := usage.output_audio_tokens:
                    self.output_audio_tokens += count
                if count := usage.input_image_tokens:
                    self.input_image_tokens += count
                if count := usage.output_image_tokens:
                    self.output_image_tokens += count
            if usage.units:
                self.units = _add_units(self.units, usage.units)
        amount = cost.list_pico
        if amount is None:
            self.unpriced_requests += 1
        elif amount:
            billed = cost.billed_pico or 0
            self.list_pico += amount
            self.billed_pico += billed
            if record.cached:
                self.saved_pico += amount - billed
            if embedding:
                self.embedding_pico += amount
            else:
                self.input_pico += cost.input_pico
                self.output_pico += cost.output_pico
            if cost.missing:
                self.partial_requests += 1
        if record.tools:
            self._share_out(record)

    def _share_out(self, record: UsageRecord) -> None:
        """Share a turn among the tools it asked for, by largest remainder: the shares add up to the turn.

        Equal parts; what does not divide goes to the tools asked for first, one each.
        """
        turn = Totals()
        turn.add(msgspec.structs.replace(record, tools=()))
        number = len(record.tools)
        counts = _shared(turn)
        for position, name in enumerate(record.tools):
            tool = self._tool(name)
            tool[ASKED] += 1
            for index, count in enumerate(counts, 2):
                if count:
                    tool[index] += count // number + (position < count % number)

    def _tool(self, name: str) -> list[int]:
        tools = self.tools
        if tools is None:
            tools = self.tools = {}
        tool = tools.get(name)
        if tool is None:
            if len(tools) >= MAX_TOOLS:
                name = OTHER
            tool = tools.setdefault(name, [0] * (2 + len(_SHARED)))
        return tool

    def ran(self, tool: str, calls: int = 1) -> None:
        """A tool call was made; what it cost is in the turn that asked for it."""
        self._tool(tool)[RAN] += calls

    def merge(self, other: Totals, sign: int = 1) -> None:
        for name, count in zip(COUNTERS, _counts(other), strict=True):
            if count:
                setattr(self, name, getattr(self, name) + sign * count)
        if other.tools:
            for name, counts in other.tools.items():
                tool = self._tool(name)
                for index, count in enumerate(counts):
                    tool[index] += sign * count
        if other.units:
            self.units = _add_units(self.units, other.units, sign)

    def copy(self) -> Totals:
        twin = Totals()
        twin.merge(self)
        return twin

    def of_tool(self, name: str) -> Totals:
        """One tool's share as totals of its own."""
        share = Totals()
        tool = (self.tools or {})[name]
        for field, count in zip(_SHARED, tool[2:], strict=True):
            setattr(share, field, count)
        share.tools = {name: list(tool)}
        return share


def _add_units(
    mine: dict[str, int | Decimal] | None, other: Mapping[str, int | Decimal], sign: int = 1
) -> dict[str, int | Decimal]:
    sums = {} if mine is None else mine
    for name, count in other.items():
        sums[name] = sums.get(name, 0) + sign * count
    return sums


class _Count:
    """A read-only counter of the totals behind an `AgentUsage`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __init__(self, counter: str = "") -> None:
        self.counter = counter

    def __get__(self, usage: AgentUsage | None, owner: type | None = None) -> int:
        if usage is None:
            return 0
        value: int = getattr(usage.totals, self.counter or self.name)
        return value


class _Money:
    """A pico-dollar counter, read as exact US dollars."""

    def __init__(self, counter: str) -> None:
        self.counter = counter

    def __get__(self, usage: AgentUsage | None, owner: type | None = None) -> Decimal:
        return Decimal(0) if usage is None else dollars(getattr(usage.totals, self.counter))


class AgentUsage:
    """Totals of model calls: tokens, US dollars, tools, and the last calls themselves.

    Money is `Decimal` dollars. `cost_usd` (list price) is a lower bound whenever `unpriced_requests` or
    `partial_requests` is not 0: unknown is never counted as zero. `requests` counts logical calls, replays from a
    cache included; `api_calls` what was really sent. Embedding tokens stand beside `total_tokens`, not in it; the
    cost of embeddings is part of `cost_usd`.

    `meter.usage` hands out snapshots; `AgentUsage()` is an accumulator of your own, safe to share among threads.
    """

    requests = _Count()
    cached_requests = _Count()
    api_calls = _Count()
    failed_requests = _Count()
    denied_requests = _Count()
    unpriced_requests = _Count()
    partial_requests = _Count()
    estimated_requests = _Count()
    input_tokens = _Count()
    output_tokens = _Count()
    cache_read_tokens = _Count()
    cache_write_tokens = _Count()
    cache_write_1h_tokens = _Count()
    reasoning_tokens = _Count()
    input_audio_tokens = _Count()
    output_audio_tokens = _Count()
    input_image_tokens = _Count()
    output_image_tokens = _Count()
    embedding_tokens = _Count()

    cost_usd = _Money("list_pico")
    billed_cost_usd = _Money("billed_pico")
    saved_cost_usd = _Money("saved_pico")
    prompt_cost = _Money("input_pico")
    completion_cost = _Money("output_pico")
    embedding_cost_usd = _Money("embedding_pico")

    # The words of the seed documents, each in this one place.
    prompt_tokens = total_prompt_tokens = _Count("input_tokens")
    completion_tokens = total_completion_tokens = _Count("output_tokens")
    total_embedding_tokens = _Count("embedding_tokens")
    request_count = _Count("requests")
    total_cost_usd = total_cost = _Money("list_pico")
    total_embedding_cost_usd = _Money("embedding_pico")

    def __init__(self, *, keep: int = 10_000) -> None:
        self.totals = Totals()
        self._keep = keep
        self._records: Sequence[UsageRecord] = ()
        self._belongs: Callable[[UsageRecord], bool] | None = None
        self._added: deque[UsageRecord] = deque(maxlen=keep)
        self._lock = threading.Lock()

    @classmethod
    def snapshot(
        cls,
        totals: Totals,
        records: Sequence[UsageRecord] = (),
        belongs: Callable[[UsageRecord], bool] | None = None,
    ) -> AgentUsage:
        """Wrap totals and records that nobody will change; `belongs` picks its own records when asked for."""
        usage = cls()
        usage.totals, usage._records, usage._belongs = totals, records, belongs
        return usage

    @property
    def total_tokens(self) -> int:
        """Input and output tokens of model calls; embedding tokens stand beside them."""
        totals = self.totals
        return totals.input_tokens + totals.output_tokens

    @property
    def uncached_input_tokens(self) -> int:
        return max(0, self.input_tokens - self.cache_read_tokens - self.cache_write_tokens)

    @property
    def llm_cost_usd(self) -> Decimal:
        return dollars(self.totals.list_pico - self.totals.embedding_pico)

    @property
    def is_lower_bound(self) -> bool:
        """True when some call in these sums has no price, or one with a unit left out."""
        return bool(self.totals.unpriced_requests or self.totals.partial_requests)

    @property
    def units(self) -> dict[str, int | Decimal]:
        """What was used that is not a token: web searches, seconds, images, …"""
        return dict(self.totals.units or {})

    @property
    def tool_usage(self) -> dict[str, int]:
        """Calls by tool: those that ran or those that models asked for, whichever is more.

        (A tool that does not exist is asked for and never runs; an own loop may run one that nobody asked for.)
        """
        tools = self.totals.tools or {}
        return {name: max(tool[ASKED], tool[RAN]) for name, tool in tools.items()}

    @property
    def tool_tokens(self) -> dict[str, int]:
        """Tokens by tool: each turn is shared out among the tools it asked for.

        The shares of a turn add up to the turn, so these never add up to more than `total_tokens`.
        """
        tools = self.totals.tools or {}
        return {name: tool[_INPUT] + tool[_OUTPUT] for name, tool in tools.items()}

    @property
    def iterations(self) -> list[UsageRecord]:
        """The last records, oldest first; `requests` is the exact number of all."""
        with self._lock:
            records = [*filter(self._belongs, self._records)] if self._belongs else list(self._records)
            return [*records, *self._added][-self._keep :]

    def add_usage(self, stats: UsageRecord, tool_name: str | None = None) -> None:
        """Add one call; `tool_name` says which tool it was for, where the record itself does not."""
        if tool_name and not stats.tools:
            stats = msgspec.structs.replace(stats, tools=(tool_name,))
        with self._lock:
            self.totals.add(stats)
            if stats.status is not Status.DENIED:
                self._added.append(stats)

    def merge(self, other: AgentUsage) -> None:
        """Add another usage's totals and records to this one."""
        totals, iterations = other.totals.copy(), other.iterations
        with self._lock:
            self.totals.merge(totals)
            self._added.extend(iterations)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the seed documents' keys first, in their order; money as floats, for display.

        `iterations` is the exact count of calls. The exact money is in the `…_pico` keys (1e-12 US$).
        """
        totals = self.totals
        result: dict[str, Any] = {
            "total_tokens": self.total_tokens,
            "total_prompt_tokens": totals.input_tokens,
            "total_completion_tokens": totals.output_tokens,
            "total_cost_usd": float(self.cost_usd),
            "tool_usage": self.tool_usage,
            "tool_tokens": self.tool_tokens,
            "iterations": totals.requests,
        }
        if totals.embedding_tokens:
            result["total_embedding_tokens"] = totals.embedding_tokens
            result["total_embedding_cost_usd"] = float(self.embedding_cost_usd)
        result.update(zip(COUNTERS, _counts(totals), strict=True))
        if totals.units:
            result["units"] = {name: int(n) if n == int(n) else float(n) for name, n in totals.units.items()}
        return result

    def __str__(self) -> str:
        totals = self.totals
        rule = "=" * 60
        lines = [
            "",
            rule,
            "📊 Usage Summary",
            rule,
            f"Total Tokens: {self.total_tokens:,}",
            f"  - Prompt: {totals.input_tokens:,}",
            f"  - Completion: {totals.output_tokens:,}",
        ]
        if totals.embedding_tokens:
            lines.append(f"  - Embeddings: {totals.embedding_tokens:,}")
        lines.append(f"Total Cost: {'≥ ' if self.is_lower_bound else ''}{money(totals.list_pico)}")
        if totals.embedding_tokens:
            lines.append(f"  - LLM: {money(totals.list_pico - totals.embedding_pico)}")
            lines.append(f"  - Embeddings: {money(totals.embedding_pico)}")
        if totals.cached_requests:
            lines.append(f"Cached: {_calls(totals.cached_requests)} of {totals.requests:,} replayed")
            lines.append(f"  - Saved: {money(totals.saved_pico)}")
            lines.append(f"  - Billed: {money(totals.billed_pico)}")
        if totals.unpriced_requests:
            lines.append(f"Unpriced: {_calls(totals.unpriced_requests)} (not in the cost)")
        if totals.partial_requests:
            lines.append(f"Partly priced: {_calls(totals.partial_requests)}")
        if totals.denied_requests:
            lines.append(f"Denied: {_calls(totals.denied_requests)} (not sent)")
        lines.append(f"Iterations: {totals.requests}")
        if totals.tools:
            lines += ["", "Tool Usage:"]
            tokens = self.tool_tokens
            for name, calls in sorted(self.tool_usage.items(), key=lambda item: (-item[1], item[0])):
                lines.append(f"  - {name}: {calls} calls, {tokens[name]:,} tokens")
        return "\n".join([*lines, rule, ""])

    def __repr__(self) -> str:
        return (
            f"AgentUsage(requests={self.requests}, input_tokens={self.input_tokens}, "
            f"output_tokens={self.output_tokens}, cost_usd={'≥ ' if self.is_lower_bound else ''}{self.cost_usd})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AgentUsage):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> tuple[Any, ...]:
        return (_counts(self.totals), self.totals.tools, self.totals.units, self.iterations)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        counts, tools, units, iterations = state
        self.__init__()  # type: ignore[misc]
        for name, count in zip(COUNTERS, counts, strict=True):
            setattr(self.totals, name, count)
        self.totals.tools, self.totals.units = tools, units
        self._records = iterations


def money(pico: int, places: int = 6) -> str:
    """`$0.002150`; an amount that six decimals would show as zero is shown in full."""
    amount = dollars(pico)
    if pico and abs(pico) < 10 ** (12 - places):
        return f"${amount:f}"
    return f"${amount:,.{places}f}"


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"
