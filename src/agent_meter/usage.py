"""AgentUsage: what was used and what it cost, added up exactly."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from .records import DENIED, UsageRecord, dollars
from .totals import COUNTERS, Totals


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

    __slots__ = ("_added", "_belongs", "_keep", "_key", "_lock", "_records", "totals")

    def __init__(self, *, keep: int = 10_000) -> None:
        self.totals = Totals()
        self._keep = keep
        self._records: Sequence[UsageRecord] | Callable[[], Sequence[UsageRecord]] = ()
        self._belongs: Callable[[UsageRecord, Any], bool] | None = None
        self._key: object = None
        self._added: deque[UsageRecord] | None = None
        # Reentrant: a finalizer may add while this very thread adds.
        self._lock = threading.RLock()

    @classmethod
    def snapshot(
        cls,
        totals: Totals,
        records: Sequence[UsageRecord] | Callable[[], Sequence[UsageRecord]] = (),
        belongs: Callable[[UsageRecord, Any], bool] | None = None,
        key: object = None,
    ) -> AgentUsage:
        """Wrap totals and records that nobody will change; `belongs(record, key)` picks its own when asked for.

        Records that must be fetched from somewhere are given as a function, and fetched when somebody looks.
        """
        usage = cls.__new__(cls)
        usage.totals, usage._records, usage._belongs, usage._key = totals, records, belongs, key
        usage._keep = 10_000 if callable(records) else max(10_000, len(records))
        usage._added, usage._lock = None, threading.RLock()
        return usage

    def _now(self) -> Totals:
        """The totals of one moment, whoever adds meanwhile."""
        with self._lock:
            return self.totals.copy()

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
        return self._now().units or {}

    @property
    def tool_usage(self) -> dict[str, int]:
        """Calls by tool: those that ran or those that models asked for, whichever is more.

        (A tool that does not exist is asked for and never runs; an own loop may run one that nobody asked for.)
        """
        return _tool_usage(self._now())

    @property
    def tool_tokens(self) -> dict[str, int]:
        """Tokens by tool: each turn is shared out among the tools it asked for.

        The shares of a turn add up to the turn, so these never add up to more than `total_tokens`.
        """
        return _tool_tokens(self._now())

    @property
    def iterations(self) -> list[UsageRecord]:
        """The last records, oldest first; `requests` is the exact number of all."""
        with self._lock:
            added = list(self._added or ())
        belongs, key, kept = self._belongs, self._key, self._records
        if callable(kept):
            kept = self._records = kept()
        records = [record for record in kept if belongs is None or belongs(record, key)] + added
        return records[max(0, len(records) - self._keep) :]

    def add_usage(self, stats: UsageRecord, tool_name: str | None = None) -> None:
        """Add one call; `tool_name` says which tool it was for, where the record itself does not."""
        if tool_name and not stats.tools:
            stats = msgspec.structs.replace(stats, tools=(tool_name,))
        with self._lock:
            self.totals.add(stats)
            if stats.status is not DENIED:
                self._remember([stats])

    def merge(self, other: AgentUsage) -> None:
        """Add another usage's totals and records to this one."""
        with other._lock:
            totals, iterations = other._now(), other.iterations
        with self._lock:
            self.totals.merge(totals)
            self._remember(iterations)

    def _remember(self, records: Sequence[UsageRecord]) -> None:
        if self._added is None:
            self._added = deque(maxlen=self._keep)
        self._added.extend(records)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the seed documents' keys first, in their order; money as floats, for display.

        `iterations` is the exact count of calls. The exact money is in the `…_pico` keys (1e-12 US$).
        """
        totals = self._now()
        result: dict[str, Any] = {
            "total_tokens": totals.input_tokens + totals.output_tokens,
            "total_prompt_tokens": totals.input_tokens,
            "total_completion_tokens": totals.output_tokens,
            "total_cost_usd": float(dollars(totals.list_pico)),
            "tool_usage": _tool_usage(totals),
            "tool_tokens": _tool_tokens(totals),
            "iterations": totals.requests,
        }
        if totals.embedding_tokens:
            result["total_embedding_tokens"] = totals.embedding_tokens
            result["total_embedding_cost_usd"] = float(dollars(totals.embedding_pico))
        result.update((name, getattr(totals, name)) for name in COUNTERS)
        if totals.units:
            result["units"] = {name: int(n) if n == int(n) else float(n) for name, n in totals.units.items()}
        return result

    def __str__(self) -> str:
        totals = self._now()
        bound = "≥ " if totals.unpriced_requests or totals.partial_requests else ""
        rule = "=" * 60
        lines = [
            "",
            rule,
            "📊 Usage Summary",
            rule,
            f"Total Tokens: {totals.input_tokens + totals.output_tokens:,}",
            f"  - Prompt: {totals.input_tokens:,}",
            f"  - Completion: {totals.output_tokens:,}",
        ]
        if totals.embedding_tokens:
            lines.append(f"  - Embeddings: {totals.embedding_tokens:,}")
        lines.append(f"Total Cost: {bound}{money(totals.list_pico)}")
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
        if usage := _tool_usage(totals):
            lines += ["", "Tool Usage:"]
            tokens = _tool_tokens(totals)
            for name, calls in sorted(usage.items(), key=lambda item: (-item[1], item[0])):
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
        with self._lock:
            return self._now(), self.iterations, self._keep

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__()  # type: ignore[misc]
        self.totals, self._records, self._keep = state


def _tool_usage(totals: Totals) -> dict[str, int]:
    calls = {name: share.asked for name, share in (totals.turns or {}).items()}
    for name, ran in (totals.ran or {}).items():
        calls[name] = max(ran, calls.get(name, 0))
    return calls


def _tool_tokens(totals: Totals) -> dict[str, int]:
    turns = totals.turns or {}
    return {
        name: turns[name].input_tokens + turns[name].output_tokens if name in turns else 0
        for name in _tool_usage(totals)
    }


def money(pico: int, places: int = 6) -> str:
    """`$0.002150`; an amount that six decimals would show as zero is shown in full."""
    amount = dollars(pico)
    if pico and abs(pico) < 10 ** (12 - places):
        return f"${amount:f}"
    return f"${amount:,.{places}f}"


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"
