"""Own loops: runs, steps, model calls and tool calls as `with` blocks.

    with meter.run("research", user="u1") as run:
        with run.step() as step:
            with step.llm("gpt-4o") as call:
                call.finish(client.chat.completions.create(...))
            with step.tool("search", {"q": "pluggy"}):
                ...

An exception inside a block is recorded as that call's error and goes on its way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextvars import Token
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import attribution
from .counted import counted
from .records import EMPTY, Call, Kind, Model, Record, Reserve, Status, TokenUsage, UsageRecord, pico
from .streaming import Streamed, streamed
from .tool_functions import metered
from .usage import AgentUsage

if TYPE_CHECKING:
    from .meter import Meter

H = TypeVar("H", bound="Handle")
F = TypeVar("F", bound=Callable[..., Any])
FRAMEWORK = "native"
HOLDERS = frozenset((Kind.RUN, Kind.STEP, Kind.TOOL))
MODEL_CALLS = frozenset((Kind.LLM, Kind.EMBEDDING, Kind.RERANK))
_CANCELLATIONS = frozenset(("CancelledError", "GeneratorExit", "KeyboardInterrupt"))


def status_of(error: BaseException | type[BaseException] | None) -> Status:
    if error is None:
        return Status.OK
    kind = error if isinstance(error, type) else type(error)
    return Status.CANCELLED if kind.__name__ in _CANCELLATIONS else Status.ERROR


class Handle:
    """One call of an own loop, open for the length of a `with` block. Not to be entered twice."""

    kind: Kind

    def __init__(self, meter: Meter, name: str, named: Mapping[str, object], model: Model | None = None) -> None:
        self._meter = meter
        self._entered = False
        self._token: Token[Call | None] | None = None
        self.call = Call(self.kind, name, model=model, framework=FRAMEWORK)
        attribution.fill(self.call, named)
        self._scope = attribution.inside(named)

    @property
    def id(self) -> str:
        return self.call.id

    @property
    def record(self) -> Record | None:
        """What the meter recorded, once the call has ended."""
        return self.call.record

    def _open(self) -> None:
        if self.call.started_at:
            return
        try:
            if self._scope is None:
                self._meter.open(self.call)
                return
            with self._scope:
                self._meter.open(self.call)
        finally:
            self.call.prompt = None  # nobody needs it any more

    def _close(self, error: BaseException | None) -> None:
        self.call.error = error
        self._meter.close(
            self.call, status=status_of(error), error_type=None if error is None else type(error).__name__
        )

    async def _aopen(self) -> None:
        """`_open` where a budget may have to wait."""
        if self.call.started_at:
            return
        try:
            if self._scope is None:
                await self._meter.aopen(self.call)
                return
            with self._scope:
                await self._meter.aopen(self.call)
        finally:
            self.call.prompt = None

    def __enter__(self) -> Self:
        self._enter()
        self._open()
        return self._inside()

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError(f"{self.call!r} is one call and was entered before: make a new one for the next call")
        self._entered = True

    def _inside(self) -> Self:
        if self.call.kind in HOLDERS:  # a model call holds no other calls
            self._token = attribution.running.set(self.call)
            if self._scope is not None:
                self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            if self._scope is not None:
                self._scope.__exit__(kind, error, trace)
            # Inside a block of its consumer a generator's block leaves it alone; calls that ended are passed over.
            if attribution.running.get() is self.call:
                try:
                    attribution.running.reset(self._token)
                except ValueError:
                    attribution.running.set(self.call.parent)
        self._close(error)

    async def __aenter__(self) -> Self:
        self._enter()
        await self._aopen()
        return self._inside()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class _Parent(Handle):
    def llm(self, model: str, **options: Any) -> LlmHandle:
        return self._child(self._meter.llm(model, **options))

    def tool(self, name: str, params: Mapping[str, Any] | None = None, *, call_id: str = "") -> ToolHandle:
        return self._child(ToolHandle(self._meter, name, params, call_id, {}))

    def _child(self, handle: H) -> H:
        handle.call.parent = self.call
        return handle

    def result(self, value: Any) -> None:
        """What came out of it, for observers that want content; never stored."""
        self.call.response = value

    def thought(self, text: str) -> None:
        """Tell `WorkflowHooks` what the agent thinks; kept nowhere."""
        self._meter.tell("on_thought", self.call.run_id or self.call.id, text)

    @property
    def usage(self) -> AgentUsage:
        """This run's own snapshot: everything used in it so far, sub-agents and steps included."""
        if not self.call.started_at:
            return AgentUsage()
        return self._meter.tree(self.call.id).usage


class RunHandle(_Parent):
    """One run of an agent."""

    kind = Kind.RUN

    def __init__(self, meter: Meter, name: str, named: Mapping[str, object], messages: Any = None) -> None:
        super().__init__(meter, name, named)
        self._numbers = itertools.count(1)
        if meter.wants_content:
            self.call.content = messages

    def step(self, name: str = "", **named: object) -> StepHandle:
        """The next step; it is numbered from 1 and called "step N" unless it has a name."""
        return self._child(StepHandle(self._meter, name, named, next(self._numbers)))


class StepHandle(_Parent):
    """One step of a run: what is called inside it has its name as `step`."""

    kind = Kind.STEP

    def __init__(self, meter: Meter, name: str, named: Mapping[str, object], number: int | None = None) -> None:
        name = name or (f"step {number}" if number else "step")
        super().__init__(meter, name, {"step": name, **named})
        self.call.step_number = number

    @property
    def step_number(self) -> int | None:
        return self.call.step_number


class LlmHandle(Handle):
    """One model call. End it with `finish`; a block that ends without it is recorded with unknown usage."""

    kind = Kind.LLM

    def __init__(
        self,
        meter: Meter,
        model: str,
        provider: str | None,
        input_tokens: int | None,
        max_output_tokens: int | None,
        kind: str,
        named: Mapping[str, object],
        attempt: int = 1,
        messages: Any = None,
    ) -> None:
        self.kind = Kind(kind)
        if self.kind not in MODEL_CALLS:
            raise ValueError(f"a model call is one of {', '.join(sorted(MODEL_CALLS))}, not {kind!r}")
        super().__init__(meter, "", named, Model(provider or "", model))
        self._again = (model, provider, input_tokens, max_output_tokens, kind, named, attempt + 1, messages)
        self._stream: Streamed | None = None
        self.call.attempt = attempt
        if isinstance(messages, (str, list, tuple)):
            from .adapters.asking import Prompt

            self.call.prompt = Prompt(messages, model)
        if meter.wants_content:
            self.call.content = messages
        self.call.max_output_tokens = max_output_tokens
        if input_tokens is not None or max_output_tokens is not None:
            self.call.reserve = Reserve(input_tokens, max_output_tokens)

    def first_token(self) -> None:
        """The first token of a stream is here: call it at each, only the first one counts."""
        self.call.streamed = True
        if self.call.first_token_at is None:
            self.call.first_token_at = self._meter.monotonic()

    def stream(self, chunks: Any) -> Any:
        """Hand on the chunks of a stream (sync or async), and finish with them.

            for chunk in call.stream(client.chat.completions.create(..., stream=True)): ...

        The first chunk with a token in it is the first token. A stream that is closed, left or dropped early is
        recorded as cancelled with what was seen of it; one that breaks, as an error. Whatever else the stream can do
        (`.response`, `with`) it still does. Inside of its `with` block a stream ends with the block at the latest; made
        without a block it may be handed on, and ends when it is read, closed or dropped.
        """
        self._open()
        stream = streamed(self, chunks)
        if self._entered:
            self._stream = stream
        else:
            self._meter.detach(self.call)
        return stream

    def again(self) -> LlmHandle:
        """The next attempt at this call: the same model, options and place, numbered one more."""
        handle = LlmHandle(self._meter, *self._again)
        handle.call.parent = self.call.parent
        return handle

    def _close(self, error: BaseException | None) -> None:
        if self._stream is not None:
            self._stream.left(error)
        super()._close(error)

    def finish(
        self,
        response: Any,
        *,
        response_model: str | None = None,
        response_id: str | None = None,
        cached: bool = False,
        estimated: bool = False,
        tools: tuple[str, ...] = (),
        error: BaseException | None = None,
    ) -> UsageRecord:
        """End the call with its `TokenUsage`, or with a provider's answer (SDK object, JSON body, stream events).

        `error` is what kept the answer from being whole: the call has failed, or was cancelled, with what is known.
        Exact once: a second `finish` changes nothing and returns the first record.
        """
        self._open()
        usage: TokenUsage | None
        status, error_type = status_of(error), None if error is None else type(error).__name__
        reading = None
        if response is None or isinstance(response, TokenUsage):
            usage = None if response is None else counted(response)
        else:
            # Vendors' dialects load on first use, for loops that have no framework in between.
            from .adapters.payloads import read
            from .adapters.payloads.fields import MISSING_BOTH

            reading = read(response, self.call.model.provider if self.call.model else None)
            usage = reading.own_usage
            response_model = response_model or reading.response_model
            response_id = response_id or reading.response_id
            tools = tools or reading.tools
            if reading.error_type is not None:
                status, error_type = Status.ERROR, reading.error_type
                usage = None if usage.missing == MISSING_BOTH else usage  # it was never answered
        self.call.error = error
        self.call.response = response
        first_end = not self.call.done
        record = self._meter.close(
            self.call,
            usage,
            status=status,
            error_type=error_type,
            response_model=response_model,
            response_id=response_id,
            cached=cached,
            estimated=estimated,
            tools=tuple(tools),
        )
        if reading is not None and first_end:
            self._meter.record_passes(self.call, reading.passes, response_model=response_model, cached=cached)
        assert isinstance(record, UsageRecord)
        return record


class ToolHandle(Handle):
    """One tool call, or a decorator that makes one of each call of a function."""

    kind = Kind.TOOL

    def __init__(
        self,
        meter: Meter,
        name: str,
        params: Mapping[str, Any] | None,
        call_id: str,
        named: Mapping[str, object],
    ) -> None:
        super().__init__(meter, name, named)
        self._named = named
        self._failure: str | None = None
        self.call.params = params or EMPTY
        self.call.call_id = call_id

    def chunk(self, number: int = 1, *, content: Any = None) -> None:
        """A streaming tool has produced another chunk; `content` is for observers that want it, and kept nowhere."""
        self.call.chunk_count += number
        if self._meter.plugins.listeners:
            self._meter.plugins.tell("chunk", self.call, content)

    def cost(self, amount: Decimal | float | str) -> None:
        """What the tool call itself cost, in US dollars."""
        self.call.cost_pico = pico(amount)

    def fail(self, error_type: str = "error") -> None:
        """The tool did not succeed, and told the model so instead of raising."""
        self._failure = error_type

    def result(self, value: Any) -> None:
        """What the tool answered, for observers; never stored."""
        self.call.response = value

    def _close(self, error: BaseException | None) -> None:
        if error is None and self._failure is not None:
            self._meter.close(self.call, status=Status.ERROR, error_type=self._failure)
        else:
            super()._close(error)

    def __call__(self, function: F) -> F:
        return _tool_function(self._meter, function, self.call.name, self._named)


def tool_handle(
    meter: Meter, name: Any, params: Mapping[str, Any] | None, call_id: str, named: Mapping[str, object]
) -> Any:
    if callable(name):
        return _tool_function(meter, name, getattr(name, "__name__", type(name).__name__), named)
    return ToolHandle(meter, name, params, call_id, named)


def _tool_function(meter: Meter, function: F, name: str, named: Mapping[str, object]) -> F:
    return metered(function, lambda params: ToolHandle(meter, name, params, "", named))
