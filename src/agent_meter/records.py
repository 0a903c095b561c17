"""The nouns: what flows through the meter. Imports nothing from this package.

Finished things (`TokenUsage`, `Cost`, the records) are frozen and built once, positionally: they are
`msgspec.Struct`s because one of 35 fields costs 0.2 µs there and 4 µs as a frozen dataclass. The one thing
that is still happening, `Call`, is mutable and belongs to whoever opened it.

Money is integer pico-dollars (1e-12 US$) everywhere; `Decimal` appears only where a person reads it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from .joining import Joining, Wire
    from .usage import AgentUsage

    Reprieve = Callable[[Any, "Call", "Denial"], bool]  # the first is the meter

K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(dict[K, V]):
    """A dict that cannot be changed, so that a frozen record is frozen to the bottom. Pickles and hashes."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a record cannot be changed; build a new one")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenMap, (dict(self),))

    def __copy__(self) -> FrozenMap[K, V]:
        return self

    def __deepcopy__(self, memo: object) -> FrozenMap[K, V]:
        return self


EMPTY: FrozenMap[str, Any] = FrozenMap()


# ---------------------------------------------------------------------------------------------- money, ids

PICO = 10**12


def dollars(pico: int) -> Decimal:
    """Pico-dollars as an exact `Decimal`, whatever precision the process's decimal context has."""
    sign, pico = ("-", -pico) if pico < 0 else ("", pico)
    text = f"{sign}{pico // PICO}.{pico % PICO:012d}".rstrip("0")
    return Decimal(text.rstrip("."))


def pico(amount: Decimal | float | str) -> int:
    """Dollars as integer pico-dollars, rounded half-even; a float is read by its shortest decimal form."""
    number = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    if not number.is_finite():
        raise ValueError(f"not an amount of money: {amount!r}")
    sign, digits, exponent = number.as_tuple()
    value = int("".join(map(str, digits)) or "0")
    shift = int(exponent) + 12
    if shift >= 0:
        value *= 10**shift
    else:
        unit = 10**-shift
        value, rest = divmod(value, unit)
        if rest * 2 > unit or (rest * 2 == unit and value % 2):
            value += 1
    return int(-value if sign else value)


_random = random.Random()  # noqa: S311 - identifiers, not secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)  # a forked worker would repeat its siblings' ids

_time_ns, _bits = time.time_ns, _random.getrandbits
_VERSION_AND_VARIANT = 7 << 76 | 1 << 63


def new_id() -> str:
    """A UUID version 7 (RFC 9562, method 3: 12 sub-millisecond bits), so that ids sort by time."""
    millis, nanos = divmod(_time_ns(), 1_000_000)
    fraction = nanos * 4096 // 1_000_000
    text = (millis << 80 | fraction << 64 | _bits(62) | _VERSION_AND_VARIANT).to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# --------------------------------------------------------------------------------------------- vocabulary


class Kind(StrEnum):
    """What a call is. llm, embedding and rerank are model calls; run and step hold other calls."""

    LLM = "llm"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    TOOL = "tool"
    RUN = "run"
    STEP = "step"


class Status(StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    DENIED = "denied"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


# Members by name: in Python 3.11 `Kind.LLM` is a call into the enum's metaclass, seven times the cost of a global,
# and the path asks for a dozen of them.
LLM, EMBEDDING, RERANK, TOOL, RUN, STEP = Kind
OK, ERROR, DENIED, CANCELLED, ABANDONED = Status


class CostStatus(StrEnum):
    """How much is known about a cost.

    priced: every unit has a rate. partial: some unit has none (see `Cost.missing`), the amount is a lower
    bound. estimated: a rate or a count was inferred (see `Cost.assumptions`). free: a local provider, a zero
    rate or the user's word. included: nothing is billed separately. reported: the provider's own figure.
    unpriced: unknown, which is never zero.
    """

    PRICED = "priced"
    PARTIAL = "partial"
    ESTIMATED = "estimated"
    FREE = "free"
    INCLUDED = "included"
    REPORTED = "reported"
    UNPRICED = "unpriced"


class Model(msgspec.Struct, frozen=True, gc=False):
    """A model as somebody called it: whose it is, its name, and where it was reached."""

    provider: str = ""
    name: str = ""
    endpoint: str = ""  # base URL, where an adapter knows it

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}" if self.provider else self.name


# -------------------------------------------------------------------------------------------------- usage


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """What one model call used, in the reading of the OpenTelemetry GenAI conventions.

    `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning; the other fields are
    parts of these two and never added to them. `cache_write_tokens` covers every time to live, of which
    `cache_write_1h_tokens`. A payload that contradicts itself is kept as it came: `problems` says how.

    Addition adds class by class; `sum()` works.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    units: Mapping[str, int | Decimal] = EMPTY  # not tokens: web_searches, seconds, pages, images, …
    missing: tuple[str, ...] = ()  # classes that could not be seen
    context: Mapping[str, str] = EMPTY  # what the price depends on: service_tier, processing, speed, …
    reported_pico: int | None = None  # what the provider itself says the call cost

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def uncached_input_tokens(self) -> int:
        """Input tokens that were neither read from nor written to a prompt cache."""
        return max(0, self.input_tokens - self.cache_read_tokens - self.cache_write_tokens)

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens

    @property
    def completion_tokens(self) -> int:
        return self.output_tokens

    @property
    def problems(self) -> tuple[str, ...]:
        """The contradictions in this usage, each as a sentence; empty when parts fit their wholes."""
        checks = (
            (
                "cache_read_tokens + cache_write_tokens",
                self.cache_read_tokens + self.cache_write_tokens,
                "input_tokens",
            ),
            ("cache_write_1h_tokens", self.cache_write_1h_tokens, "cache_write_tokens"),
            (
                "input_audio_tokens + input_image_tokens",
                self.input_audio_tokens + self.input_image_tokens,
                "input_tokens",
            ),
            ("reasoning_tokens", self.reasoning_tokens, "output_tokens"),
            (
                "output_audio_tokens + output_image_tokens",
                self.output_audio_tokens + self.output_image_tokens,
                "output_tokens",
            ),
        )
        found = [
            f"{part} {value:,} > {whole} {getattr(self, whole):,}"
            for part, value, whole in checks
            if value > getattr(self, whole)
        ]
        found += [f"{name} {value:,} < 0" for name in TOKEN_CLASSES if (value := getattr(self, name)) < 0]
        return tuple(found)

    def __add__(self, other: TokenUsage) -> TokenUsage:
        if not isinstance(other, TokenUsage):
            return NotImplemented
        counts: list[Any] = [getattr(self, name) + getattr(other, name) for name in TOKEN_CLASSES]
        units = self.units
        if other.units:
            units = FrozenMap({k: units.get(k, 0) + other.units.get(k, 0) for k in {**units, **other.units}})
        reported = self.reported_pico
        if other.reported_pico is not None:
            reported = (reported or 0) + other.reported_pico
        missing = self.missing + tuple(m for m in other.missing if m not in self.missing)
        context = (
            self.context if self.context == other.context else FrozenMap(self.context.items() & other.context.items())
        )
        return TokenUsage(*counts, units, missing, context, reported)  # type: ignore[call-arg]

    def __radd__(self, other: int) -> TokenUsage:
        return self if other == 0 else NotImplemented


TOKEN_CLASSES: tuple[str, ...] = TokenUsage.__struct_fields__[:10]
NO_USAGE = TokenUsage()


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What a call costs: the list price, what is billed, and how both are known.

    Amounts are exact integers of pico-dollars and `None` when unknown. `input_pico` and `output_pico` are the
    list price of input and output tokens; fees (`by_unit` names them) make up the rest.
    """

    status: CostStatus = CostStatus.UNPRICED
    list_pico: int | None = None
    billed_pico: int | None = None
    input_pico: int = 0
    output_pico: int = 0
    card_id: str | None = None  # the rate card, content-addressed
    model: str | None = None  # the name that the card prices
    missing: tuple[str, ...] = ()  # units without a rate
    assumptions: tuple[str, ...] = ()  # what was inferred
    reason: str | None = None  # why there is no amount
    reported_pico: int | None = None  # the provider's own figure, kept beside ours

    @property
    def amount(self) -> Decimal | None:
        """The list price in US dollars, `None` when unpriced."""
        return None if self.list_pico is None else dollars(self.list_pico)

    @property
    def billed_amount(self) -> Decimal | None:
        """What is owed in US dollars: 0 for a replayed call, `None` when unpriced."""
        return None if self.billed_pico is None else dollars(self.billed_pico)

    @property
    def total_cost(self) -> Decimal | None:
        return self.amount

    @property
    def prompt_cost(self) -> Decimal | None:
        return None if self.list_pico is None else dollars(self.input_pico)

    @property
    def completion_cost(self) -> Decimal | None:
        return None if self.list_pico is None else dollars(self.output_pico)

    def __str__(self) -> str:
        if self.list_pico is None:
            return f"unpriced ({self.reason or 'no rates'})"
        sign = "≥ " if self.status is CostStatus.PARTIAL else ""
        return f"{sign}${dollars(self.list_pico):f}"


NOT_SENT = Cost(CostStatus.FREE, 0, 0, reason="never answered")


class Rates(Protocol):
    """What `meter_find_rates(model)` answers with. `agent_meter.pricing.Rates` is the built-in one."""

    def price(self, usage: TokenUsage, at: datetime, context: Mapping[str, str] = ...) -> Cost:
        """The list price of one call made at `at` (aware); must not raise for any usage."""


# ------------------------------------------------------------------------------------------------ records


class Attribution(msgspec.Struct, frozen=True, gc=False):
    """Whose call it is; the empty string means nobody said."""

    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    tags: Mapping[str, str] = EMPTY


NOBODY = Attribution()


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request that was made for a model call, as a transport tap saw it. All times are seconds."""

    status: int | None = None  # of the answer; None when none came
    duration: float = 0.0  # from sending to the last byte that was read
    retry_after: float | None = None  # what the provider asked to wait before the next one
    error_type: str | None = None  # why it was no answer: the provider's word, or the name of the exception
    waited: float = 0.0  # between the end of the attempt before and the beginning of this one
    time_to_first_byte: float | None = None


class UsageRecord(msgspec.Struct, frozen=True, gc=False):
    """One model call that ended.

    `duration` and `time_to_first_token` are seconds. `usage` is `None` when nothing is known; `estimated` is
    True whenever any class of it is unseen or inferred. `model` is the name that priced the call. `corrects`
    is the record that this one replaces (a call that answered after it had been given up).
    """

    id: str
    kind: Kind
    started_at: datetime
    duration: float | None
    time_to_first_token: float | None
    provider: str
    request_model: str
    response_model: str | None
    model: str
    usage: TokenUsage | None
    cost: Cost
    status: Status
    error_type: str | None = None
    cached: bool = False
    estimated: bool = False
    streamed: bool = False
    attempt: int = 1
    response_id: str | None = None
    framework: str = ""
    run_id: str | None = None
    parent_id: str | None = None
    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    tools: tuple[str, ...] = ()  # the tools that the answer asked for, one entry a call
    tags: Mapping[str, str] = EMPTY
    notes: tuple[str, ...] = ()  # how the numbers were got, where that is not plain
    corrects: UsageRecord | None = None
    attempts: tuple[Attempt, ...] = ()  # every HTTP request made for it, where a tap watched the transport

    @property
    def retries(self) -> int:
        """How often the client asked again; 0 where no tap watched the transport."""
        return max(0, len(self.attempts) - 1)

    @property
    def tool_name(self) -> str | None:
        """The tool that the answer asked for; the first of several (`tools` has all)."""
        return self.tools[0] if self.tools else None

    @property
    def missing(self) -> tuple[str, ...]:
        """The classes of usage that could not be seen."""
        return ("input_tokens", "output_tokens") if self.usage is None else self.usage.missing

    @property
    def input_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.input_tokens

    @property
    def output_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.output_tokens

    @property
    def cache_read_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.cache_read_tokens

    @property
    def cache_write_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.cache_write_tokens

    @property
    def reasoning_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.reasoning_tokens

    @property
    def total_tokens(self) -> int:
        return 0 if self.usage is None else self.usage.total_tokens

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens

    @property
    def completion_tokens(self) -> int:
        return self.output_tokens

    @property
    def cost_usd(self) -> Decimal | None:
        """The list price in US dollars, `None` when unpriced."""
        return self.cost.amount

    @property
    def billed_cost_usd(self) -> Decimal | None:
        """What is owed in US dollars: 0 for a replayed call, `None` when unpriced."""
        return self.cost.billed_amount

    @property
    def embedding_tokens(self) -> int:
        return self.input_tokens if self.kind is Kind.EMBEDDING else 0

    @property
    def embedding_cost_usd(self) -> Decimal | None:
        return self.cost.amount if self.kind is Kind.EMBEDDING else Decimal(0)

    @property
    def timestamp(self) -> datetime:
        return self.started_at


INTERRUPTED = "interrupted"  # the error type of what was not cancelled for good, only put off


class ToolRecord(msgspec.Struct, frozen=True):
    """One tool call that ended. `duration` is seconds; `params` are the arguments as they were given."""

    id: str
    name: str
    call_id: str
    started_at: datetime
    duration: float
    status: Status
    params: Mapping[str, Any] = EMPTY
    chunk_count: int = 0
    cost_pico: int = 0
    error_type: str | None = None
    framework: str = ""
    run_id: str | None = None
    parent_id: str | None = None
    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    tags: Mapping[str, str] = EMPTY
    kind: Kind = Kind.TOOL

    @property
    def success(self) -> bool:
        return self.status is Status.OK

    @property
    def paused(self) -> bool:
        """It waits for a person: the same call begins anew when it goes on, and is counted then."""
        return self.error_type == INTERRUPTED and self.status is Status.CANCELLED


class RunRecord(msgspec.Struct, frozen=True):
    """One run or step that ended, with the totals of its own calls; subtree totals are computed, not stored."""

    id: str
    kind: Kind
    name: str
    started_at: datetime
    duration: float
    status: Status
    usage: AgentUsage
    error_type: str | None = None
    framework: str = ""
    run_id: str | None = None  # of a run: its own id; of a step: the run around it
    parent_id: str | None = None
    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    step_number: int | None = None
    tags: Mapping[str, str] = EMPTY


Record = UsageRecord | ToolRecord | RunRecord


class Denial(msgspec.Struct, frozen=True):
    """Why a call may not go ahead, as a sentence, and who says so.

    A budget also says which one it is and how it stands: `limit`, `used`, `reserved` (held by calls in flight) and
    `requested` are in `unit` (usd_pico, tokens, requests). `fits` is the number of output tokens with which the call
    would still have been let through; `None` where that is not the question. `per` is the window, `resets_at` when
    something of it is free again.
    """

    reason: str
    by: str = ""
    budget: str = ""
    unit: str = ""
    limit: int | None = None
    used: int | None = None
    reserved: int | None = None
    requested: int | None = None
    resets_at: datetime | None = None
    fits: int | None = None
    per: str = ""


class Alert(msgspec.Struct, frozen=True):
    """A threshold was crossed: `used` of `limit` (both in `unit`: usd_pico, tokens, requests).

    Of a budget, `scope` says which of its counters (`agent=alice`), where it has one for each.
    """

    name: str
    message: str
    threshold: float | None = None
    used: int | None = None
    limit: int | None = None
    unit: str = ""
    severity: str = ""  # P0 (worst) to P4, where a rule says so
    scope: str = ""

    def __str__(self) -> str:
        return self.message


class Reserve(msgspec.Struct, frozen=True):
    """An upper bound of what a call may use, for those who must set it aside before the call is made.

    `assumed` names the classes that nobody has bounded (no `max_tokens`): these are assumptions, not bounds.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    pico: int | None = None
    assumed: tuple[str, ...] = ()

    @property
    def bounded(self) -> bool:
        """Whether the caller knows how long the prompt is at most."""
        return self.input_tokens is not None and "input_tokens" not in self.assumed


class Prompt(Protocol):
    """What is asked, for those who must set something aside for it."""

    def size(self) -> int:
        """Bytes: no fewer than its tokens."""

    def tokens(self) -> int:
        """About its tokens, on the high side; slower."""


class Call(msgspec.Struct, eq=False, weakref=True, dict=False):
    """Something that has been asked for and has not ended. Made by adapters, opened and closed by the meter.

    The attribution fields hold what the adapter knows; the meter completes them when it opens the call.
    `content` (messages, prompt), `response` and `error` are set for observers, and never stored. `prompt` answers a
    budget that asks how large it is.
    """

    kind: Kind
    name: str = ""
    model: Model | None = None
    parent: Call | None = None
    framework: str = ""
    id: str = msgspec.field(default_factory=new_id)
    agent: str = ""
    task: str = ""
    user: str = ""
    session: str = ""
    step: str = ""
    tags: Mapping[str, str] = EMPTY
    run_id: str | None = None  # the nearest enclosing run; a run's own id
    started_at: datetime | None = None  # the meter sets both when it opens the call
    started: float = 0.0
    first_token_at: float | None = None
    streamed: bool = False
    attempt: int = 1
    rates: Rates | None = None
    reserve: Reserve | None = None
    max_output_tokens: int | None = None
    prompt: Prompt | None = None
    call_id: str = ""  # of a tool call: the id that the model gave it
    params: Mapping[str, Any] = EMPTY
    chunk_count: int = 0
    cost_pico: int = 0
    step_number: int | None = None
    children: dict[str, Call] | None = None
    detached: bool = False
    unguarded: bool = False  # it is only told of: no guard is asked, for nobody could stop it
    done: bool = False
    reprieve: Reprieve | None = None  # asked before it is refused: may it go on, as far as a cache?
    awaits: bool = False  # whoever opens it asks the budgets itself, with `await`
    content: Any = None
    response: Any = None
    error: BaseException | None = None
    record: Record | None = None
    joining: Joining | None = None  # set by the meter that opened it while a tap is on; see `joining`
    around: Call | None = None  # the call that was announced before it in the same context, if still open then
    wire: Wire | None = None  # what a tap saw of it

    def __repr__(self) -> str:
        return f"<Call {self.kind} {self.name or self.model or ''} {self.id}>"
