"""Totals: the bare sums behind `AgentUsage`, kept small because there is one for every agent, user, model, … seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from operator import attrgetter

from .records import DENIED, EMBEDDING, OK, UsageRecord

# Most calls have these; the rest takes up room only where it is counted.
_COMMON = (
    "requests",
    "api_calls",
    "input_tokens",
    "output_tokens",
    "list_pico",
    "billed_pico",
    "input_pico",
    "output_pico",
)
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
_RARE = frozenset(COUNTERS).difference(_COMMON)
_common = attrgetter(*_COMMON)
_PLACES = {name: place for place, name in enumerate(COUNTERS)}
_COMMON_PLACES = tuple(_PLACES[name] for name in _COMMON)
_COMMON_PAIRS = tuple((_PLACES[name], name) for name in _COMMON)
_RARE_PAIRS = tuple((_PLACES[name], name) for name in COUNTERS if name not in _COMMON)
OTHER = "(other)"
MAX_TOOLS = 10_000


class Totals:
    """Sums over model calls. Adding is O(1) and touches only what a call has.

    `ran` counts tool calls by tool; `turns` has each tool's share of the turns that asked for it. Not locked: its
    owner holds the lock.
    """

    __slots__ = (*_COMMON, "_rare", "ran", "turns", "units")

    # The rest of COUNTERS are read like attributes too; see __getattr__.
    cached_requests: int
    failed_requests: int
    denied_requests: int
    unpriced_requests: int
    partial_requests: int
    estimated_requests: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    input_image_tokens: int
    output_image_tokens: int
    embedding_tokens: int
    saved_pico: int
    embedding_pico: int

    def __init__(self) -> None:
        self.requests = self.api_calls = self.input_tokens = self.output_tokens = 0
        self.list_pico = self.billed_pico = self.input_pico = self.output_pico = 0
        self._rare: dict[str, int] | None = None
        self.ran: dict[str, int] | None = None
        self.turns: dict[str, Share] | None = None
        self.units: dict[str, int | Decimal] | None = None

    def __getattr__(self, name: str) -> int:
        if name not in _RARE:
            raise AttributeError(name)
        return 0 if self._rare is None else self._rare.get(name, 0)

    def _more(self, name: str, count: int) -> None:
        rare = self._rare
        if rare is None:
            rare = self._rare = {}
        rare[name] = rare.get(name, 0) + count

    def count(self, name: str, count: int) -> None:
        """Add to one of COUNTERS by its name."""
        if name in _RARE:
            self._more(name, count)
        else:
            setattr(self, name, getattr(self, name) + count)

    def add_counts(self, counts: Sequence[int]) -> None:
        """Add what `counts` has given."""
        for place, name in _COMMON_PAIRS:
            if count := counts[place]:
                setattr(self, name, getattr(self, name) + count)
        for place, name in _RARE_PAIRS:
            if count := counts[place]:
                self._more(name, count)

    # --------------------------------------------------------------------------------------------- adding

    def add(self, record: UsageRecord) -> None:
        if record.status is DENIED:
            self._more("denied_requests", 1)
            return
        self._add(record)
        if record.tools:
            self._share_out(record)

    def _add(self, record: UsageRecord) -> None:
        self.requests += 1
        if record.cached:
            self._more("cached_requests", 1)
        else:
            self.api_calls += 1
        if record.status is not OK:
            self._more("failed_requests", 1)
        if record.estimated:
            self._more("estimated_requests", 1)
        usage, cost = record.usage, record.cost
        embedding = record.kind is EMBEDDING
        if usage is not None:
            if embedding:
                self._more("embedding_tokens", usage.input_tokens)
            else:
                self.input_tokens += usage.input_tokens
                self.output_tokens += usage.output_tokens
                # Written out, because most calls have few of these and a loop would cost all of them a microsecond.
                if count := usage.cache_read_tokens:
                    self._more("cache_read_tokens", count)
                if count := usage.cache_write_tokens:
                    self._more("cache_write_tokens", count)
                if count := usage.cache_write_1h_tokens:
                    self._more("cache_write_1h_tokens", count)
                if count := usage.reasoning_tokens:
                    self._more("reasoning_tokens", count)
                if count := usage.input_audio_tokens:
                    self._more("input_audio_tokens", count)
                if count := usage.output_audio_tokens:
                    self._more("output_audio_tokens", count)
                if count := usage.input_image_tokens:
                    self._more("input_image_tokens", count)
                if count := usage.output_image_tokens:
                    self._more("output_image_tokens", count)
            if usage.units:
                self.units = _add_units(self.units, usage.units)
        amount = cost.list_pico
        if amount is None:
            self._more("unpriced_requests", 1)
            return
        if cost.missing:
            self._more("partial_requests", 1)
        if amount:
            billed = cost.billed_pico or 0
            self.list_pico += amount
            self.billed_pico += billed
            if record.cached:
                self._more("saved_pico", amount - billed)
            if embedding:
                self._more("embedding_pico", amount)
            else:
                self.input_pico += cost.input_pico
                self.output_pico += cost.output_pico

    def _share_out(self, record: UsageRecord) -> None:
        """Share a turn among the tools it asked for, by largest remainder: the shares add up to the turn.

        Equal parts; what does not divide goes to the tools asked for first, one each.
        """
        turn = Totals()
        turn._add(record)
        turn.units = None  # what is not a token is no tool's
        number = len(record.tools)
        if number == 1:
            share = self.share(record.tools[0])
            share.asked += 1
            share.merge(turn)
            return
        common = [(name, *divmod(count, number)) for name, count in zip(_COMMON, _common(turn), strict=True) if count]
        rare = [(name, *divmod(count, number)) for name, count in (turn._rare or {}).items()]
        for position, tool in enumerate(record.tools):
            share = self.share(tool)
            share.asked += 1
            for name, part, rest in common:
                setattr(share, name, getattr(share, name) + part + (position < rest))
            for name, part, rest in rare:
                share._more(name, part + (position < rest))

    def share(self, tool: str) -> Share:
        """The tool's part of the turns that asked for it, made when it is new."""
        turns = self.turns
        if turns is None:
            turns = self.turns = {}
        share = turns.get(tool)
        if share is None:
            if len(turns) >= MAX_TOOLS:
                tool = OTHER
            share = turns.setdefault(tool, Share())
        return share

    def tool_ran(self, tool: str, calls: int = 1) -> None:
        """A tool call was made; what it cost is in the turn that asked for it."""
        ran = self.ran
        if ran is None:
            ran = self.ran = {}
        if tool not in ran and len(ran) >= MAX_TOOLS:
            tool = OTHER
        ran[tool] = ran.get(tool, 0) + calls

    def merge(self, other: Totals, sign: int = 1) -> None:
        if sign == 1 and not any(_common(self)):
            # The first numbers are shared and not copied: most keys have only these, and there are many keys.
            self.requests, self.api_calls = other.requests, other.api_calls
            self.input_tokens, self.output_tokens = other.input_tokens, other.output_tokens
            self.list_pico, self.billed_pico = other.list_pico, other.billed_pico
            self.input_pico, self.output_pico = other.input_pico, other.output_pico
        else:
            self.requests += sign * other.requests
            self.api_calls += sign * other.api_calls
            self.input_tokens += sign * other.input_tokens
            self.output_tokens += sign * other.output_tokens
            self.list_pico += sign * other.list_pico
            self.billed_pico += sign * other.billed_pico
            self.input_pico += sign * other.input_pico
            self.output_pico += sign * other.output_pico
        if other._rare:
            for name, count in other._rare.items():
                self._more(name, sign * count)
        if other.ran:
            for name, calls in other.ran.items():
                self.tool_ran(name, sign * calls)
        if other.turns:
            for name, theirs in other.turns.items():
                share = self.share(name)
                share.asked += sign * theirs.asked
                share.merge(theirs, sign)
        if other.units:
            self.units = _add_units(self.units, other.units, sign)

    # -------------------------------------------------------------------------------------------- reading

    def counts(self) -> list[int]:
        """All of COUNTERS, in their order."""
        counts = [0] * len(COUNTERS)
        for place, count in zip(_COMMON_PLACES, _common(self), strict=True):
            counts[place] = count
        for name, count in (self._rare or {}).items():
            counts[_PLACES[name]] = count
        return counts

    def copy(self) -> Totals:
        twin = Totals()
        twin.merge(self)
        return twin

    def by_tool(self) -> dict[str, Totals]:
        """One `Totals` for each tool, and under "" for what no tool was asked for in; they add up to this one."""
        groups: dict[str, Totals] = {}
        rest = self.copy()
        rest.ran = rest.turns = None
        for name, share in (self.turns or {}).items():
            rest.merge(share, -1)
            group = groups[name] = Totals()
            group.merge(share)
            group.share(name).asked += share.asked
            group.share(name).merge(share)
        for name, calls in (self.ran or {}).items():
            groups.setdefault(name, Totals()).tool_ran(name, calls)
        rest.tidy()
        if rest:
            groups[""] = rest
        return groups

    def tidy(self) -> None:
        """Forget what subtraction has left at zero."""
        self._rare = {name: count for name, count in (self._rare or {}).items() if count} or None
        self.ran = {name: calls for name, calls in (self.ran or {}).items() if calls} or None
        self.turns = {name: share for name, share in (self.turns or {}).items() if share} or None
        self.units = {name: number for name, number in (self.units or {}).items() if number} or None

    def __bool__(self) -> bool:
        parts = (self._rare, self.ran, self.turns, self.units)
        return any(_common(self)) or any(any(part.values()) for part in parts if part)


class Share(Totals):
    """One tool's part of the turns that asked for it, `asked` times."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __bool__(self) -> bool:
        return bool(self.asked) or super().__bool__()


def _add_units(
    mine: dict[str, int | Decimal] | None, other: Mapping[str, int | Decimal], sign: int = 1
) -> dict[str, int | Decimal]:
    sums = {} if mine is None else mine
    for name, count in other.items():
        sums[name] = sums.get(name, 0) + sign * count
    return sums
