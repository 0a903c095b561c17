"""The one path that every call takes: open, tag, rate, admit — close, price, record.

`open` and `close` are the whole of it; what stands around them answers questions.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from . import attribution
from .defaults import Defaults
from .errors import BudgetExceeded, MeterError, PluginError
from .facts import Facts
from .handles import MODEL_CALLS, LlmHandle, RunHandle, StepHandle, ToolHandle, tool_handle
from .joining import Joining, Told, announce, reconcile
from .plugins import Plugins
from .rating import Rating
from .records import (
    ABANDONED,
    DENIED,
    ERROR,
    OK,
    RUN,
    STEP,
    TOOL,
    Alert,
    Attempt,
    Call,
    Denial,
    Model,
    Record,
    Reserve,
    RunRecord,
    Status,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)
from .tree import RunTree
from .usage import AgentUsage

if TYPE_CHECKING:
    from .accounts import Accounts
    from .analytics import AgentAnalytics
    from .budgets import Budget, Budgets
    from .controls import Controls
    from .forecast import Forecast
    from .pricing import PriceBook
    from .shelf import Shelf
    from .store import Store
    from .store.keeper import Keeper

C = TypeVar("C")

_MEASURE = float("nan")  # told apart by identity: the duration is what has passed since the call was opened


class Clock(Protocol):
    """`testing.FakeClock`, or your own."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...


class Meter(Facts):
    """Counts model calls and tool calls, prices them, says whose they are, and asks guards before each.

    `prices` is a mapping of overrides, a path to a TOML file or a `PriceBook`; `cost_rates` maps model names to US
    dollars per 1,000 tokens. `budgets` are limits that hold, or a YAML file of them (`meter.budgets` changes them);
    they are counted in the store, or where `budget_engine` says (a file, a URL, "memory", an `Engine`). `store` is
    where records are kept: a file, postgresql://…, "memory", a `Store`; usage and history are then those of the whole
    store. `keep` bounds what memory remembers. `strict=True` lets what a plugin raises through, for tests. A meter is
    safe to share among threads and tasks.
    """

    call_ttl = 3600.0  # seconds after which a model or tool call that nobody closed is given up
    run_ttl = 86_400.0  # the same for runs and steps

    def __init__(
        self,
        plugins: Iterable[object] = (),
        *,
        store: str | os.PathLike[str] | Store | None = None,
        durability: str = "normal",
        prices: Mapping[str, Any] | str | PriceBook | None = None,
        cost_rates: Mapping[str, Any] | None = None,
        budgets: Iterable[Budget] | str | os.PathLike[str] = (),
        budget_engine: Any = None,
        cost_warning_threshold: float | Decimal | None = None,
        analytics: bool = True,
        keep: int = 10_000,
        strict: bool = False,
        on_unpriced: str = "warn",
        clock: Clock | None = None,
    ) -> None:
        self.plugins = Plugins(strict=strict)
        self.monotonic: Callable[[], float] = time.perf_counter if clock is None else clock.monotonic
        self.now: Callable[[], datetime] = _utc_now if clock is None else clock.now
        self._open: dict[str, Call] = {}
        self._next_sweep = self.monotonic() + 60
        self._expired = self._corrected = 0
        self._shut = False
        self.joining = Joining(self.monotonic, partial(self.plugins.failed, "wire"))
        built_in = Defaults.make(
            prices=prices,
            cost_rates=cost_rates,
            on_unpriced=on_unpriced,
            analytics=analytics,
            keep=keep,
            cost_warning_threshold=cost_warning_threshold,
            store=store,
            durability=durability,
        )
        self.prices = built_in.prices
        self._rating = Rating(self.plugins, built_in.prices, self.now)
        self.rates = self._rating.rates  # (model) -> Rates | None, as plugins answer for it
        self._accounts = built_in.accounts
        self._answers: Accounts | Keeper = built_in.keeper or built_in.accounts
        self.store = None if built_in.keeper is None else built_in.keeper.store
        self._analytics = built_in.analytics
        self.plugins.startup(self)
        for name, plugin in built_in.plugins:
            self.plugins.register(plugin, name)
        self._shelf: Shelf | None = None
        self._controls: Controls | None = None
        self._budgets: Budgets | None = None
        self._budget_engine = budget_engine
        shared = hasattr(self.store, "transaction")
        if shared:
            self.controls.guard()  # another process may pause this one
        if isinstance(budgets, (str, os.PathLike)):
            from .budgets.files import load

            budgets = load(budgets)
        if (budgets := list(budgets)) or budget_engine is not None or shared:
            self._budgets = self._budgeting(budgets)
        for plugin in plugins:
            self.register(plugin)

    @classmethod
    def with_installed_plugins(cls, block: Iterable[str] = (), **options: Any) -> Meter:
        """A meter with the plugins of installed packages (entry-point group `agent_meter`), less those in `block`."""
        meter = cls(**options)
        meter.plugins.load_installed(block)
        return meter

    # -------------------------------------------------------------------------------------------- the path

    def open(self, call: Call) -> Call:
        """Let a call begin. Raises `BudgetExceeded` when a guard denies it; nothing else."""
        self._begin(call)
        if self.plugins.guarded and (denial := self._admit(call)) is not None:
            self._deny(call, denial)
        return self._begun(call)

    async def aopen(self, call: Call) -> Call:
        """`open` for async code: where a budget must wait, or ask a shared store, the event loop goes on."""
        self._begin(call)
        call.awaits = True  # the budgets pass it by, and are asked below
        if self.plugins.guarded and (denial := self._admit(call)) is not None:
            self._deny(call, denial)
        if self._budgets is not None and (denial := await self._budgets.aadmit(call)) is not None:
            self._deny(call, denial)
        return self._begun(call)

    def _begin(self, call: Call) -> None:
        plugins, kind = self.plugins, call.kind
        if call.parent is None:
            self._adopt(call)
        attribution.complete(call)
        if plugins.tagged:
            plugins.tag(call)
        parent = call.parent
        call.run_id = call.id if kind is RUN else parent.run_id if parent is not None else call.run_id
        call.started = self.monotonic()
        call.started_at = call.started_at or self.now()
        if call.model is not None:
            call.rates = self.rates(call.model)

    def _deny(self, call: Call, denial: Denial) -> None:
        if call.reprieve is not None and self._reprieved(call, denial):
            return
        self._finish(call, None, DENIED, "BudgetExceeded")
        self.plugins.tell("denied", call, denial)
        raise BudgetExceeded(denial)

    def _reprieved(self, call: Call, denial: Denial) -> bool:
        try:
            return call.reprieve is not None and call.reprieve(self, call, denial)
        except Exception as error:
            self.plugins.failed(call.framework or "meter", "reprieve", error)
            return False

    def _begun(self, call: Call) -> Call:
        self._open[call.id] = call
        parent = call.parent
        if parent is not None:
            if parent.children is None:
                parent.children = {}
            parent.children[call.id] = call
        if self.joining.taps and call.kind in MODEL_CALLS:
            announce(call, self.joining)
        self.plugins.opened(call)
        if call.started > self._next_sweep:
            self.expire()
        return call

    def close(
        self,
        call: Call,
        usage: TokenUsage | None = None,
        *,
        status: Status = OK,
        error_type: str | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        cached: bool = False,
        estimated: bool = False,
        tools: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Record:
        """End a call with exactly one record; a second end changes nothing, unless the first one gave it up."""
        corrects = None
        if self._open.pop(call.id, None) is None:
            ended = self._ended(call)
            corrects = self._given_up(call, status)
            if corrects is None:
                return ended
        if call.children:
            self._abandon(call.children)
        parent = call.parent
        if parent is not None and parent.children is not None:
            parent.children.pop(call.id, None)
        if call.wire is not None and not cached:
            told = Told(usage, status, error_type, response_model, response_id, estimated, tools, notes)
            return self._finish_joined(call, told, corrects)
        return self._finish(
            call,
            usage,
            status,
            error_type,
            response_model,
            response_id,
            cached,
            estimated,
            tools,
            notes,
            corrects,
        )

    def _finish_joined(self, call: Call, told: Told, corrects: UsageRecord | None) -> Record:
        """A call whose request was seen on the wire: what was seen there counts."""
        try:
            told = reconcile(call, told)
        except Exception as error:
            self.plugins.failed("wire", "reconcile", error)
        record = self._finish(
            call,
            told.usage,
            told.status,
            told.error_type,
            told.response_model,
            told.response_id,
            False,
            told.estimated,
            told.tools,
            told.notes,
            corrects,
            attempts=told.attempts,
        )
        for extra in told.passes:
            self.record_pass(call, extra.usage, kind=extra.kind, model=extra.model, response_model=told.response_model)
        return record

    def _finish(
        self,
        call: Call,
        usage: TokenUsage | None,
        status: Status,
        error_type: str | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        cached: bool = False,
        estimated: bool = False,
        tools: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        corrects: UsageRecord | None = None,
        duration: float | None = _MEASURE,
        attempts: tuple[Attempt, ...] = (),
    ) -> Record:
        if duration is _MEASURE:
            duration = self.monotonic() - call.started
        record: Record
        kind = call.kind
        if kind is TOOL:
            record = self._tool_record(call, status, error_type, duration or 0.0)
        elif kind is RUN or kind is STEP:
            record = self._run_record(call, status, error_type, duration or 0.0)
        else:
            model = call.model or Model()
            if usage is None:
                # A refused or failed call used nothing, unless whoever closes it cannot know that.
                estimated = estimated or (status is not DENIED and status is not ERROR)
            elif usage.missing or _contradicts(usage):
                estimated = True
            cost, priced_as = self._rating.price(call, model, usage, response_model, estimated, cached)
            first = call.first_token_at
            record = UsageRecord(
                call.id,
                call.kind,
                call.started_at,  # type: ignore[arg-type]
                duration,
                None if first is None else first - call.started,
                model.provider,
                model.name,
                response_model,
                priced_as,
                usage,
                cost,
                status,
                error_type,
                cached,
                estimated,
                call.streamed,
                call.attempt,
                response_id,
                call.framework,
                call.run_id,
                None if call.parent is None else call.parent.id,
                call.agent,
                call.task,
                call.user,
                call.session,
                call.step,
                tools,
                call.tags,
                notes,
                corrects,
                attempts,
            )
        call.record = record
        call.done = True
        self.plugins.record(record)
        return record

    # -------------------------------------------------------------------------------- what the path asks for

    def _admit(self, call: Call) -> Denial | None:
        if call.unguarded or call.kind is RUN or call.kind is STEP:
            return None
        if call.reserve is not None and call.rates is not None:
            bound = TokenUsage(call.reserve.input_tokens or 0, call.reserve.output_tokens or 0)
            cost = self._rating.cost(call.rates, bound, call)
            told = call.reserve
            call.reserve = Reserve(told.input_tokens, told.output_tokens, cost.list_pico, told.assumed)
        return self.plugins.admit(call)

    def _tool_record(self, call: Call, status: Status, error_type: str | None, duration: float) -> ToolRecord:
        return ToolRecord(
            call.id,
            call.name,
            call.call_id,
            call.started_at,  # type: ignore[arg-type]
            duration,
            status,
            call.params,
            call.chunk_count,
            call.cost_pico,
            error_type,
            call.framework,
            call.run_id,
            None if call.parent is None else call.parent.id,
            call.agent,
            call.task,
            call.user,
            call.session,
            call.step,
            call.tags,
        )

    def _run_record(self, call: Call, status: Status, error_type: str | None, duration: float) -> RunRecord:
        return RunRecord(
            call.id,
            call.kind,
            call.name,
            call.started_at,  # type: ignore[arg-type]
            duration,
            status,
            self._accounts.own(call.id),
            error_type,
            call.framework,
            call.run_id,
            None if call.parent is None else call.parent.id,
            call.agent,
            call.task,
            call.user,
            call.session,
            call.step,
            call.step_number,
            call.tags,
        )

    # ---------------------------------------------------------------------------- calls that lost their end

    def _adopt(self, call: Call) -> None:
        """What is opened inside a `with meter.run(...)` belongs to it, whichever adapter opens it."""
        around = attribution.running.get()
        while around is not None and (around is call or around.id not in self._open):
            around = around.parent  # ended, or another meter's
        call.parent = around

    def detach(self, call: Call) -> None:
        """A call that outlives its parent, such as a stream handed to the caller, is not given up with it."""
        call.detached = True

    def _abandon(self, calls: dict[str, Call], *, detached: bool = False) -> None:
        for call in list(calls.values()):
            if (detached or not call.detached) and call.id in self._open:
                self.close(call, status=ABANDONED, error_type="abandoned")

    def _ended(self, call: Call) -> Record:
        """The record of a call that has ended, or that another thread is ending at this very moment."""
        for _ in range(2000):
            if call.record is not None:
                return call.record
            if call.started_at is None:
                break
            time.sleep(0.0005)
        raise MeterError(f"close() before open(): {call!r}")

    def _given_up(self, call: Call, status: Status) -> UsageRecord | None:
        """The record that a late end replaces: the call was abandoned or expired, and now answered after all."""
        old = call.record
        if type(old) is UsageRecord and old.status is ABANDONED and status is not ABANDONED:
            self._corrected += 1
            return old
        return None

    def expire(self, older_than: float | None = None) -> int:
        """Give up calls that nobody closed for `older_than` seconds (default: `call_ttl`, `run_ttl`); how many."""
        now, expired = self.monotonic(), 0
        self._next_sweep = now + 60
        for call in list(self._open.values()):
            limit = older_than
            if limit is None:
                limit = self.run_ttl if call.kind is RUN or call.kind is STEP else self.call_ttl
            if now - call.started > limit and call.id in self._open:
                self.close(call, status=ABANDONED, error_type="expired")
                expired += 1
        self._expired += expired
        return expired

    # ---------------------------------------------------------------------------------------------- own loops

    def scope(
        self,
        *,
        agent: str | None = None,
        task: str | None = None,
        user: str | None = None,
        session: str | None = None,
        step: str | None = None,
        **tags: object,
    ) -> attribution.Scope:
        """Say whose calls these are, for a `with` block. Nests; what an inner scope leaves out stays."""
        return attribution.Scope({"agent": agent, "task": task, "user": user, "session": session, "step": step}, tags)

    def run(self, name: str = "", *, messages: Any = None, **attribution: object) -> RunHandle:
        """One run of an agent of your own: `with meter.run("research", user="u1") as run:`.

        `messages` are for observers that want content; never stored.
        """
        return RunHandle(self, name, attribution, messages)

    def step(self, name: str = "", **attribution: object) -> StepHandle:
        return StepHandle(self, name, attribution)

    def llm(
        self,
        model: str,
        *,
        provider: str | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        kind: str = "llm",
        attempt: int = 1,
        messages: Any = None,
        **attribution: object,
    ) -> LlmHandle:
        """One model call of your own loop: `with meter.llm("gpt-4o") as call: call.finish(client.create(...))`.

        `input_tokens` and `max_output_tokens` are what a budget sets aside for it; `messages` let it work out the
        former by itself. They also go to observers that want content, and are never stored.
        """
        return LlmHandle(self, model, provider, input_tokens, max_output_tokens, kind, attribution, attempt, messages)

    def tool(
        self, name: Any, params: Mapping[str, Any] | None = None, *, call_id: str = "", **attribution: object
    ) -> ToolHandle | Any:
        """One tool call, `with meter.tool("search", {"q": q}):`, or a decorator: `@meter.tool`, `@meter.tool("x")`."""
        return tool_handle(self, name, params, call_id, attribution)

    def wrap(self, client: C, ask_for_usage: bool = False, *, cap_output: int | None = None) -> C:
        """Meter every model call of one SDK client (OpenAI, Anthropic, Google, Groq, Mistral, Cohere, Ollama, boto3).

        The client itself is returned, and metered until `unwrap`. With `ask_for_usage`, streams that would end
        without usage are asked for it; the application sees no difference. `cap_output` is put as the maximum into
        requests that name none (OpenAI's client, and those made like it), so that a budget holds what an answer can be,
        and not what it is assumed to be. `MeterError` for what is no such client.
        """
        from .adapters.wire import wrap

        return wrap(self, client, ask_for_usage, cap_output=cap_output)

    def unwrap(self, client: C) -> C:
        """Meter this client no more."""
        from .adapters.wire import unwrap

        return unwrap(self, client)

    # ---------------------------------------------------------------------------------------------- budgets

    def _budgeting(self, budgets: Iterable[Budget]) -> Budgets:
        from .budgets import Budgets
        from .budgets.opening import open_engine

        clock = time.time if self.now is _utc_now else lambda: self.now().timestamp()
        engine, ledger = open_engine(self._budget_engine, self.store, clock)
        return Budgets(budgets, engine=engine, meter=self, ledger=ledger)

    @property
    def has_budgets(self) -> bool:
        return self._budgets is not None and len(self._budgets) > 0

    @property
    def budgets(self) -> Budgets:
        """The budgets: `.set` `.add` `.remove` `.reset` `.status`; iterates over them."""
        if self._budgets is None:
            self._budgets = self._budgeting(())
        return self._budgets

    def status(self) -> dict[str, Any]:
        """Usage and limits by agent, altogether and of this hour, day, week and month; how each budget stands."""
        from .budgets.dashboard import status

        return status(self)

    def alerts(self, threshold: float = 0.8) -> list[Alert]:
        """The budgets of which this fraction is used, or more; `str()` of one is its sentence."""
        from .budgets.dashboard import alerts

        return alerts(self, threshold)

    def forecast(self, per: str = "month", measure: str = "usd", *, confidence: float = 0.9, **scope: str) -> Forecast:
        """What this hour, day, week, month or year (UTC) will have used, `low` to `high`: usd, tokens or requests.

        `scope` picks an agent, a user, a model, a tag … `meter.budgets.forecast()` says where budgets end up.
        """
        from .budgets.forecasting import asking, project

        return project(asking(self), self.now(), per, measure, confidence, scope)

    # --------------------------------------------------------------------------------------------- controls

    @property
    def controls(self) -> Controls:
        """What is paused and stopped: `.pause(agent)` `.stop(run)` `.resume(name)`; iterates over it.

        With a store on disk, other processes see it at their next call, and `agent-meter pause` reaches this one.
        """
        if self._controls is None:
            from .controls import Controls

            self._controls = Controls(self.shelf, now=self.now, plug_in=lambda c: self.register(c, "controls"))
        return self._controls

    @property
    def shelf(self) -> Shelf:
        """The small facts that processes share beside the store: what is paused, which rules have fired."""
        if self._shelf is None:
            from .shelf import shelf_of

            self._shelf = shelf_of(self.store)
            if callable(tell := getattr(self._shelf, "on_failure", None)):
                tell(partial(self.plugins.failed, "controls", "look up"))
        return self._shelf

    # ---------------------------------------------------------------------------------------------- answers

    @property
    def usage(self) -> AgentUsage:
        """Everything so far, as a snapshot; `str()` of it is the summary."""
        return self._answers.usage()

    def usage_by(self, *dimensions: str) -> dict[Any, AgentUsage]:
        """Usage by agent, task, user, session, model, provider, tool, step, hour, day, week, month, or a tag's name.

        Several dimensions give tuple keys. What nobody attributed is under "". A dimension keeps 10,000 keys, what
        comes later sums into "(other)"; periods are UTC.
        """
        return self._answers.usage_by(dimensions)

    def top(self, dimension: str, n: int = 10, by: str = "total_tokens") -> list[tuple[str, AgentUsage]]:
        """The `n` biggest of a dimension, biggest first; `by` is any number of `AgentUsage`, such as "cost_usd"."""
        ranked = sorted(self.usage_by(dimension).items(), key=lambda item: (-getattr(item[1], by), item[0]))
        return ranked[:n]

    @property
    def analytics(self) -> AgentAnalytics:
        """How the tools do. `PluginError` if the meter was made with `analytics=False`."""
        if self._analytics is None:
            raise PluginError("this meter was made with analytics=False")
        return self._analytics

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        """The last records, newest last; at most `keep` of them, unless a store keeps all."""
        return self._answers.history(limit, include_denied)

    @property
    def accounts(self) -> Accounts:
        """What this process has counted, for those who must not wait for a store."""
        return self._accounts

    def tree(self, run_id: str) -> RunTree:
        """What a run used itself and with everything below it. `LookupError` for a run that is not known."""
        return self._answers.run(run_id)

    def health(self) -> dict[str, Any]:
        """What went wrong inside the meter, and what is open: failures by plugin and hook, the last error of each."""
        failures: dict[str, dict[str, int]] = {}
        last_errors: dict[str, dict[str, str]] = {}
        for (plugin, hook), count in list(self.plugins.failures.items()):
            failures.setdefault(plugin, {})[hook] = count
            last_errors.setdefault(plugin, {})[hook] = self.plugins.last_errors.get((plugin, hook), "")
        budgets = {} if self._budgets is None else {"budgets": self._budgets.health()}
        return {
            "ok": not failures,
            "failures": failures,
            "last_errors": last_errors,
            "open_calls": len(self._open),
            "expired_calls": self._expired,
            "corrected_calls": self._corrected,
            "disagreements": self.joining.disagreements,
            "plugins": self.plugins.names(),
            **budgets,
            **({} if self.store is None else {"store": self.store.health()}),
        }

    # ---------------------------------------------------------------------------------------------- plugins

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin (see `hookspecs`). `PluginError` says what is wrong with one that cannot work."""
        self.plugins.register(plugin, name)
        self._rating.forget()

    def unregister(self, plugin: object) -> None:
        self.plugins.unregister(plugin)
        self._rating.forget()

    @property
    def wants_content(self) -> bool:
        """Whether an observer asks for messages and answers: adapters hand them over only then."""
        return self.plugins.wants_content

    def observe(self, observer: object) -> None:
        """Tell an `AgentObserver`, or `WorkflowHooks`, of every call from now on."""
        if not callable(getattr(observer, "meter_record", None)):
            raise PluginError(f"{type(observer).__name__} is no AgentObserver: subclass agent_meter.AgentObserver")
        self.register(observer)

    # ------------------------------------------------------------------------------------------------ ending

    def reset(self, *, session: str | None = None) -> None:
        """Clear usage, history and analytics; never a ledger, a budget or a cache's statistics.

        With `session`, clear that session's view only: totals of everything else keep what it used.
        """
        self._accounts.reset(session)
        if session is None and self._analytics is not None:
            self._analytics.reset()

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything recorded so far is durable; `StoreError` if it is not, or not in `timeout` seconds.

        In memory it is where it should be already.
        """
        if self.store is not None:
            self.store.flush(timeout)
        if self._budgets is not None:
            self._budgets.flush(timeout)

    def shutdown(self) -> None:
        """Give up what is open and close the plugins. Twice is as good as once."""
        if self._shut:
            return
        self._shut = True
        self._abandon(self._open, detached=True)
        for close in self.joining.at_shutdown:
            close()
        self.plugins.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _contradicts(usage: TokenUsage) -> bool:
    """The quick form of `bool(usage.problems)`, for the path."""
    return (
        usage.cache_read_tokens + usage.cache_write_tokens > usage.input_tokens
        or usage.reasoning_tokens > usage.output_tokens
        or usage.cache_write_1h_tokens > usage.cache_write_tokens
        or usage.input_audio_tokens + usage.input_image_tokens > usage.input_tokens
        or usage.output_audio_tokens + usage.output_image_tokens > usage.output_tokens
        or usage.input_tokens < 0
        or usage.output_tokens < 0
    )


_default: Meter | None = None
_default_lock = threading.Lock()


def default_meter() -> Meter:
    """The meter of the process: what adapters use when they are given none."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Meter()
        return _default
