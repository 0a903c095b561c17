"""Facts that are told afterwards: a model call or a tool call that has happened, and what was billed beside one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from . import attribution as whose
from .counted import counted
from .records import (
    EMPTY,
    ERROR,
    LLM,
    OK,
    RUN,
    STEP,
    TOOL,
    Call,
    FrozenMap,
    Kind,
    Model,
    Status,
    TokenUsage,
    ToolRecord,
    UsageRecord,
    new_id,
    pico,
)

if TYPE_CHECKING:
    from .adapters.payloads import Pass
    from .plugins import Plugins
    from .records import Rates, Record


class Facts:
    """The part of a `Meter` that records what it was not asked about before."""

    if TYPE_CHECKING:  # what the meter has for it
        plugins: Plugins
        monotonic: Callable[[], float]
        rates: Callable[[Model], Rates | None]
        now: Callable[[], datetime]
        _finish: Callable[..., Record]
        _adopt: Callable[[Call], None]

    def record_usage(
        self,
        *,
        model: str,
        provider: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        reasoning_tokens: int = 0,
        input_audio_tokens: int = 0,
        output_audio_tokens: int = 0,
        input_image_tokens: int = 0,
        output_image_tokens: int = 0,
        units: Mapping[str, int | Decimal] = EMPTY,
        missing: tuple[str, ...] = (),
        context: Mapping[str, str] = EMPTY,
        reported_cost_usd: Decimal | float | str | None = None,
        kind: str = "llm",
        cached: bool = False,
        estimated: bool = False,
        status: str = "ok",
        error_type: str | None = None,
        streamed: bool = False,
        duration: float | None = None,
        started_at: datetime | None = None,
        id: str | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        tool_name: str | None = None,
        tools: tuple[str, ...] = (),
        run_id: str | None = None,
        **attribution: object,
    ) -> UsageRecord:
        """Record a model call that has happened. No guard is asked: it is too late to deny it.

        `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning. `attribution` is agent,
        task, user, session, step, or tags of your own. `started_at` must be aware.
        """
        if Kind(kind) in (TOOL, RUN, STEP):
            raise ValueError(f"a model call is one of llm, embedding, rerank, not {kind!r}")
        usage = TokenUsage(
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
            cache_write_1h_tokens,
            reasoning_tokens,
            input_audio_tokens,
            output_audio_tokens,
            input_image_tokens,
            output_image_tokens,
            FrozenMap(units) if units else EMPTY,
            tuple(missing),
            FrozenMap(context) if context else EMPTY,
            None if reported_cost_usd is None else pico(reported_cost_usd),
        )
        if not isinstance(model, str):
            model = "" if model is None else str(model)
        call = Call(Kind(kind), model=Model(provider or "", model), id=id or new_id())
        call.run_id = run_id
        call.streamed = streamed
        self._facts(call, attribution, started_at)
        call.rates = self.rates(call.model or Model())
        record = self._finish(
            call,
            counted(usage),
            Status(status),
            error_type,
            response_model,
            response_id,
            cached,
            estimated,
            tools or ((tool_name,) if tool_name else ()),
            duration=duration,
        )
        assert type(record) is UsageRecord
        return record

    def replay(
        self, record: UsageRecord, *, duration: float | None = None, response: Any = None, **attribution: object
    ) -> UsageRecord:
        """Record that an answer which was paid for before was given again: `record`'s usage, cached, nothing to pay.

        It is told as a call that opens and ends, and belongs to who asks now; no guard is asked, for it costs
        nothing. The list price is today's. `response` is for observers that want content, and is not stored.
        """
        call = Call(record.kind, model=Model(record.provider, record.request_model), framework=record.framework)
        call.streamed, call.response = record.streamed, response
        self._facts(call, attribution, None)
        call.started = self.monotonic()
        call.rates = self.rates(call.model or Model())
        self.plugins.opened(call)
        replayed = self._finish(
            call,
            record.usage,
            OK,
            None,
            record.response_model,
            record.response_id,
            True,
            record.estimated,
            record.tools,
            record.notes,
            duration=duration,
        )
        assert type(replayed) is UsageRecord
        return replayed

    def record_call(
        self,
        call: Call,
        usage: TokenUsage | None,
        *,
        status: Status = OK,
        error_type: str | None = None,
        response_model: str | None = None,
        cached: bool = False,
        estimated: bool = False,
        notes: tuple[str, ...] = (),
        duration: float | None = None,
    ) -> UsageRecord:
        """Record an adapter's `call` that was never opened, for it was heard of afterwards. No guard is asked."""
        self._facts(call, EMPTY, None)
        call.rates = self.rates(call.model or Model())
        record = self._finish(
            call,
            usage,
            status,
            error_type,
            response_model,
            cached=cached,
            estimated=estimated,
            notes=notes,
            duration=duration,
        )
        assert type(record) is UsageRecord
        return record

    def record_pass(
        self,
        call: Call,
        usage: TokenUsage,
        *,
        kind: str = "",
        model: str | None = None,
        response_model: str | None = None,
        cached: bool = False,
    ) -> UsageRecord:
        """Record what the provider bills beside the answer to `call`: a compaction, an advisor's turn, a picture.

        It becomes a record of its own, attributed as `call` is; `model` is who did it, where that is another one
        than was asked. No guard is asked: it has happened.
        """
        asked = call.model or Model()
        if model is not None:
            asked, response_model = Model(asked.provider, model, asked.endpoint), model or None
        extra = Call(LLM, model=asked, parent=call.parent, framework=call.framework)
        for name in (*whose.NAMES, "tags", "run_id", "attempt", "streamed", "started_at"):
            setattr(extra, name, getattr(call, name))
        extra.rates = self.rates(asked)
        note = f"{kind or 'another'} pass, billed beside the answer of {call.id}"
        record = self._finish(
            extra, usage, response_model=response_model, cached=cached, notes=(note,), status=OK, duration=None
        )
        assert type(record) is UsageRecord
        return record

    def record_passes(
        self, call: Call, passes: Iterable[Pass], *, response_model: str | None = None, cached: bool = False
    ) -> None:
        """Record each pass of an answer (`Reading.passes`) beside the answer to `call`.

        Where the answer was seen on the wire, its passes were seen there and are recorded already.
        """
        if call.wire is not None and call.wire.told:
            return
        for extra in passes:
            self.record_pass(
                call, extra.usage, kind=extra.kind, model=extra.model, response_model=response_model, cached=cached
            )

    def record_tool_call(
        self,
        tool_name: str,
        success: bool,
        duration: float,
        params: Mapping[str, Any] | None,
        cost: float | Decimal = 0.0,
        chunk_count: int = 0,
        *,
        error_type: str | None = None,
        call_id: str = "",
        started_at: datetime | None = None,
        **attribution: object,
    ) -> ToolRecord:
        """Record a tool call that has happened; `duration` is seconds, `cost` US dollars."""
        call = Call(TOOL, tool_name)
        call.call_id = call_id
        call.params = params or EMPTY
        call.chunk_count = chunk_count
        call.cost_pico = pico(cost) if cost else 0
        self._facts(call, attribution, started_at)
        status = OK if success else ERROR
        record = self._finish(call, None, status, error_type, duration=duration)
        assert type(record) is ToolRecord
        return record

    def tell(self, event: str, *about: object) -> None:
        """Tell the observers an event that a meter does not see, by its name and arguments in `AgentObserver`.

        `meter.tell("on_memory_trim", run.id, 12, 4, "full")`. Nothing is recorded. An observer without a method of
        that name is not told.
        """
        if not event.startswith("on_"):
            raise ValueError(f"an event is named like those of AgentObserver, on_memory_trim, not {event!r}")
        self.plugins.tell(event, *about)

    def _facts(self, call: Call, named: Mapping[str, object], started_at: datetime | None) -> None:
        """What `open` would have found out about a call that is told afterwards."""
        if started_at is not None and started_at.tzinfo is None:
            raise ValueError(f"started_at must be aware, for example datetime.now(UTC); got {started_at!r}")
        if call.parent is None:
            self._adopt(call)
        whose.complete(call)
        whose.overrule(call, named)
        if self.plugins.tagged:
            self.plugins.tag(call)
        call.started_at = started_at.astimezone(UTC) if started_at is not None else self.now()
        if call.parent is not None and call.run_id is None:
            call.run_id = call.parent.run_id
