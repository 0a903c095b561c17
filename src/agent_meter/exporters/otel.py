"""OpenTelemetry metrics of what the meter records, and the cost on the host's own spans.

    meter.register(OpenTelemetryMetrics())            # through the meter provider that the application has set

A record costs a look-up and an addition; the SDK's instruments are fed when the SDK collects. Attributes are the
operation, provider, models, agent and tool: bounded, and never a user, task, run or session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..hookspecs import hookimpl
from ..records import DENIED, Record, RunRecord, ToolRecord, UsageRecord, dollars
from . import names
from .figures import ITERATIONS, SECONDS, Figures, Series
from .names import METRICS
from .providers import vendor
from .sinks import require
from .watching import Budgeted, budgets_of

if TYPE_CHECKING:
    from ..meter import Meter

MAX_WAITING = 50_000  # values for histograms, between two collections
_SCOPE = "agent_meter"
_TOKENS = tuple(float(4**power) for power in range(14))  # the conventions' buckets: 1, 4, 16 … 67108864
_BUCKETS = {"duration": SECONDS, "tool_duration": SECONDS, "iterations": ITERATIONS}

Attributes = Mapping[str, str]


class OpenTelemetryMetrics:
    """A plugin. `semconv` is the family of GenAI conventions that token metrics and span attributes follow:
    "stable", the released one, or "latest".

    `meter_provider` is the application's unless one is given. `spans` puts the cost of a call on the span that is
    current when it ends, if that is a recording span of a GenAI call. Raises `ImportError` without the
    OpenTelemetry API.
    """

    def __init__(self, meter_provider: Any = None, *, semconv: str = "stable", spans: bool = True) -> None:
        if semconv not in names.SEMCONV:
            raise ValueError(f"semconv is 'stable' or 'latest', not {semconv!r}")
        metrics = require("opentelemetry.metrics", "otel", "OpenTelemetryMetrics")
        self._trace = require("opentelemetry.trace", "otel", "OpenTelemetryMetrics") if spans else None
        self._observation: Any = metrics.Observation
        self.semconv = semconv
        self.figures = Figures()
        self._meter: Meter | None = None
        self._budgets: list[Budgeted] = []  # as of the last collection: asking may take long
        self._waiting: deque[tuple[str, float, Any]] = deque()
        from .._version import __version__

        provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
        self._instruments: dict[str, Any] = {}
        self._create(provider.get_meter(_SCOPE, __version__))

    # ------------------------------------------------------------------------------------------- the hooks

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        where = self.figures.add(record)
        if where is None:
            return
        wait = self._waiting.append
        if type(record) is UsageRecord:
            if record.duration is not None and record.status is not DENIED:
                wait(("duration", record.duration, (where, record.error_type)))
            usage, wrong = record.usage, record.corrects
            # What a histogram has been given cannot be taken back: the first usage of a call is the one in it.
            if self.semconv == "stable" and usage is not None and (wrong is None or wrong.usage is None):
                wait((names.TOKEN_HISTOGRAM, usage.input_tokens, (where, "input")))
                wait((names.TOKEN_HISTOGRAM, usage.output_tokens, (where, "output")))
            if self._trace is not None:
                self._on_span(record)
        elif type(record) is ToolRecord:
            if record.status is not DENIED:
                wait(("tool_duration", record.duration, (where, record.error_type)))
        elif type(record) is RunRecord:
            agent, iterations = where
            wait(("iterations", iterations, (agent, None)))
        if len(self._waiting) > MAX_WAITING:
            self._feed()  # nobody has collected for long: better a slow call than a lost value

    # ------------------------------------------------------------------------------------------ instruments

    def _create(self, meter: Any) -> None:
        for metric in METRICS.values():
            if not metric.otel:
                continue
            if metric.kind == names.HISTOGRAM:
                self._instruments[metric.key] = meter.create_histogram(
                    metric.otel, metric.unit, metric.help, explicit_bucket_boundaries_advisory=_BUCKETS[metric.key]
                )
            elif metric.kind == names.COUNTER:
                meter.create_observable_counter(metric.otel, [self._observing(metric.key)], metric.unit, metric.help)
            else:
                meter.create_observable_gauge(metric.otel, [self._observing(metric.key)], metric.unit, metric.help)
        if self.semconv == "stable":
            self._instruments[names.TOKEN_HISTOGRAM] = meter.create_histogram(
                names.TOKEN_HISTOGRAM, "{token}", "Tokens of a model call.", explicit_bucket_boundaries_advisory=_TOKENS
            )
        else:
            for field, name in names.TOKEN_COUNTERS.items():
                meter.create_observable_counter(name, [self._observing(field)], "{token}", "Tokens of model calls.")

    def _observing(self, key: str) -> Callable[[Any], list[Any]]:
        def observe(_: Any) -> list[Any]:
            self._feed()
            return [self._observation(value, attributes) for value, attributes in self._values(key)]

        return observe

    def _feed(self) -> None:
        """Give the histograms what has been waiting: in the collecting thread, before they are read."""
        waiting = self._waiting
        while waiting:
            try:
                name, value, (where, what) = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            self._instruments[name].record(value, self._of_value(name, where, what))

    def _of_value(self, name: str, where: Any, what: str | None) -> Attributes:
        if name == "iterations":
            return _agent(where)
        if name == "tool_duration":
            found = {names.OPERATION: "execute_tool", names.TOOL: where[0]}
            return {**found, names.ERROR_TYPE: what} if what else found
        attributes = dict(_attributes(where))
        if name == names.TOKEN_HISTOGRAM:
            attributes[names.TOKEN_TYPE] = what or ""
        elif what:
            attributes[names.ERROR_TYPE] = what
        return attributes

    # --------------------------------------------------------------------------------------------- reading

    def _values(self, key: str) -> Iterable[tuple[float, Attributes]]:
        if key in _SUMS or key == "runs" or key.startswith("tool_"):
            with self.figures.lock:
                return list(self._counted(key))
        return self._watched(key)

    def _counted(self, key: str) -> Iterable[tuple[float, Attributes]]:
        figures = self.figures
        if key in _SUMS:
            for series, totals in figures.usage.items():
                for count, extra in _SUMS[key](totals):
                    count = figures.rising(key, *series, *extra.values(), value=count)
                    value = float(dollars(count)) if key in _MONEY else count
                    yield value, {**_attributes(series), **extra}
        elif key == "runs":
            for (agent, status), count in figures.runs.items():
                yield count, {**_agent(agent), "status": status}
        else:
            yield from self._tool_values(key)

    def _watched(self, key: str) -> Iterable[tuple[float, Attributes]]:
        if key.startswith("budget_"):
            if key == "budget_limit":  # the first of the four that is asked for at a collection
                self._budgets = budgets_of(self._meter)
            for budget in self._budgets:
                value = getattr(budget, key.removeprefix("budget_"))
                if value is not None:
                    yield value, {"budget": budget.name, "unit": budget.unit}
        elif self._meter is not None:
            health = self._meter.health()
            if key == "open_calls":
                yield health["open_calls"], {}
            else:
                for plugin, hooks in health["failures"].items():
                    for hook, count in hooks.items():
                        yield count, {"plugin": plugin, "hook": hook}

    def _tool_values(self, key: str) -> Iterable[tuple[float, Attributes]]:
        for (name, agent), tool in self.figures.tools.items():
            attributes = {names.TOOL: name, **_agent(agent)}
            if key == "tool_calls":
                for outcome, count in tool.calls.items():
                    yield count, {**attributes, "outcome": outcome}
            elif key == "tool_cost":
                yield float(dollars(tool.pico)), attributes
            elif tool.success_ratio is not None:
                yield tool.success_ratio, attributes

    # ----------------------------------------------------------------------------------------------- spans

    def _on_span(self, record: UsageRecord) -> None:
        """Put the cost on the current span if it is the host's span of a GenAI call, and still recording."""
        span = self._trace.get_current_span()  # type: ignore[union-attr]
        if not span.is_recording():
            return
        attributes: Any = getattr(span, "attributes", None) or {}
        if attributes.get(names.OPERATION) not in names.INFERENCE and not attributes.get("gen_ai.system"):
            return
        cost = record.cost
        span.set_attribute(names.SPAN_RECORD, record.id)
        span.set_attribute(names.SPAN_COST_STATUS, cost.status.value)
        if cost.billed_pico is not None:
            billed = float(dollars(cost.billed_pico))
            if self.semconv == "stable":
                span.set_attribute(names.SPAN_COST, billed)
            else:
                span.set_attribute(names.SPAN_COST_AMOUNT, billed)
                span.set_attribute(names.SPAN_COST_CURRENCY, "USD")
                span.set_attribute(names.SPAN_COST_SOURCE, "provider" if cost.status == "reported" else "local")
            if record.cached and cost.list_pico is not None:
                span.set_attribute(names.SPAN_SAVED, float(dollars(cost.list_pico - cost.billed_pico)))
        tightest = max(self._budgets, key=lambda budget: budget.ratio or 0, default=None)
        if tightest is not None and tightest.ratio is not None:
            span.set_attribute(names.SPAN_BUDGET, tightest.name)
            span.set_attribute(names.SPAN_BUDGET_RATIO, tightest.ratio)


def _attributes(series: Series) -> dict[str, str]:
    found = {
        names.OPERATION: series.operation,
        names.PROVIDER: vendor(series.provider).telemetry,
        names.REQUEST_MODEL: series.request_model,
        names.RESPONSE_MODEL: series.response_model,
        names.AGENT: series.agent,
    }
    return {name: value for name, value in found.items() if value}


def _agent(name: str) -> dict[str, str]:
    return {names.AGENT: name} if name else {}


_MONEY = ("cost", "billed", "saved")


def _by_modality(totals: Any, direction: str) -> list[tuple[int, dict[str, str]]]:
    """Tokens of the modalities that were told apart; the rest is of a modality that nobody named."""
    whole = getattr(totals, f"{direction}_tokens") + (totals.embedding_tokens if direction == "input" else 0)
    parts = [(modality, getattr(totals, f"{direction}_{modality}_tokens")) for modality in ("audio", "image")]
    found = [(count, {names.MODALITY: modality}) for modality, count in parts if count]
    return [(whole - sum(count for _, count in parts), {names.MODALITY: "unknown"}), *found]


def _outcomes(totals: Any) -> list[tuple[int, dict[str, str]]]:
    counts = [
        ("ok", totals.requests - totals.failed_requests),
        ("failed", totals.failed_requests),
        ("denied", totals.denied_requests),
    ]
    return [(count, {"outcome": outcome}) for outcome, count in counts if count]


def _one(name: str, **extra: str) -> Callable[[Any], list[tuple[int, dict[str, str]]]]:
    return lambda totals: [(getattr(totals, name), extra)]


_UNKNOWN = {names.MODALITY: "unknown"}
_SUMS: dict[str, Callable[[Any], list[tuple[int, dict[str, str]]]]] = {
    "calls": _outcomes,
    "cached_calls": _one("cached_requests"),
    "unpriced_calls": lambda totals: [(totals.unpriced_requests + totals.partial_requests, {})],
    "cost": _one("list_pico"),
    "billed": _one("billed_pico"),
    "saved": _one("saved_pico"),
    "input_tokens": lambda totals: _by_modality(totals, "input"),
    "output_tokens": lambda totals: _by_modality(totals, "output"),
    "cache_read_tokens": lambda totals: [(totals.cache_read_tokens, _UNKNOWN)],
    "cache_write_tokens": lambda totals: [(totals.cache_write_tokens, _UNKNOWN)],
    "reasoning_tokens": lambda totals: [(totals.reasoning_tokens, _UNKNOWN)],
}
