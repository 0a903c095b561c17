"""Prometheus: an endpoint to scrape, or a file for the node exporter's textfile collector.

    metrics = PrometheusMetrics()
    meter.register(metrics)
    metrics.serve(9464)                       # http://127.0.0.1:9464/metrics, while the program runs
    metrics.write_textfile("agent.prom")      # or: a file, replaced in one step

Labels are operation, provider, model, agent, tool and outcome: bounded, and never a user, task, run or session.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from ..files import replacing
from ..hookspecs import hookimpl
from ..records import Record, dollars
from .figures import Figures, Histogram
from .names import COUNTER, METRICS, Metric
from .sinks import Sink, require
from .watching import Budgeted, budgets_of

if TYPE_CHECKING:
    from ..meter import Meter

_MODEL = ("operation", "provider", "model", "agent")
_TOOL = ("tool", "agent")


class PrometheusMetrics:
    """Counts what the meter records from now on. `registry` is where it is offered; its own unless one is given.

    Raises `ImportError` without prometheus_client.
    """

    def __init__(self, registry: Any = None) -> None:
        self._client = require("prometheus_client", "prometheus", "Prometheus")
        self.registry = self._client.CollectorRegistry() if registry is None else registry
        self.figures = Figures()
        self._meter: Meter | None = None
        self._server: Any = None
        self.registry.register(self)

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._meter = meter

    @hookimpl
    def meter_record(self, record: Record) -> None:
        self.figures.add(record)

    @hookimpl
    def meter_shutdown(self) -> None:
        self.close()

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks for at each scrape."""
        meter = self._meter
        yield from families(self.figures, meter.health() if meter else {}, budgets_of(meter))

    def describe(self) -> Iterator[Any]:
        """Nothing: what there is to scrape is known when it is scraped."""
        return iter(())

    def text(self) -> str:
        """The metrics of this moment in the exposition format."""
        return str(self._client.generate_latest(self.registry).decode())

    def serve(self, port: int = 9464, addr: str = "127.0.0.1") -> int:
        """Answer scrapes on a thread of its own; the port, which is a free one if 0 was asked for."""
        self.close()
        server, _ = self._client.start_http_server(port, addr=addr, registry=self.registry)
        self._server = server
        return int(server.server_port)

    def close(self) -> None:
        """Stop answering."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def write_textfile(self, path: str | os.PathLike[str]) -> None:
        """Write a file that whoever reads it finds whole; its name must end in .prom for the node exporter."""
        with replacing(path) as file:
            file.write(self.text().encode())


class Textfile(Sink):
    """The sink behind `export(records, "agent.prom")`: the counters of finished records, each in its last version."""

    def __init__(self, file: BinaryIO) -> None:
        self._client = require("prometheus_client", "prometheus", "Prometheus")
        self._file = file
        self._figures = Figures(corrections=False)

    def write(self, record: Record) -> None:
        self._figures.add(record)

    def close(self) -> None:
        registry = self._client.CollectorRegistry()
        registry.register(_Fixed(list(families(self._figures))))
        self._file.write(self._client.generate_latest(registry))


class _Fixed:
    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def collect(self) -> list[Any]:
        return self._found


def families(figures: Figures, health: dict[str, Any] | None = None, budgets: Iterable[Budgeted] = ()) -> Iterator[Any]:
    """The figures as prometheus_client's metric families, names and help from the one table."""
    core = require("prometheus_client.core", "prometheus", "Prometheus")

    def family(key: str, labels: tuple[str, ...]) -> Any:
        metric = METRICS[key]
        made = core.CounterMetricFamily if metric.kind == COUNTER else core.GaugeMetricFamily
        return made(metric.prometheus, metric.help, labels=labels)

    def counted(key: str, labels: tuple[str, ...], counts: Mapping[Any, int], *, money: bool = False) -> Any:
        found = family(key, labels)
        for values, count in counts.items():
            count = figures.rising(key, *values, value=count)
            found.add_metric(values, float(dollars(count)) if money else count)
        return found

    with figures.lock:
        yield from _usage(figures, counted)
        yield _histograms(core, METRICS["duration"], _MODEL, _merged(figures))
        yield from _tools(figures, core, family, counted)
        yield counted("runs", ("agent", "status"), figures.runs)
        yield _histograms(
            core, METRICS["iterations"], ("agent",), {(agent,): h for agent, h in figures.iterations.items()}
        )
    for key in ("budget_limit", "budget_used", "budget_reserved", "budget_ratio"):
        found = family(key, ("budget", "unit"))
        for budget in budgets:
            value = getattr(budget, key.removeprefix("budget_"))
            if value is not None:
                found.add_metric((budget.name, budget.unit), value)
        yield found
    if health is not None:
        failures = family("failures", ("plugin", "hook"))
        for plugin, hooks in health.get("failures", {}).items():
            for hook, count in hooks.items():
                failures.add_metric((plugin, hook), count)
        yield failures
        if "open_calls" in health:
            open_calls = family("open_calls", ())
            open_calls.add_metric((), health["open_calls"])
            yield open_calls


def _usage(figures: Figures, counted: Any) -> Iterator[Any]:
    sums: dict[str, dict[tuple[str, ...], int]] = {}

    def add(key: str, values: tuple[str, ...], count: int) -> None:
        found = sums.setdefault(key, {})
        found[values] = found.get(values, 0) + count

    for series, totals in figures.usage.items():
        where = (series.operation, series.provider, series.model, series.agent)
        add("tokens", ("input", *where), totals.input_tokens + totals.embedding_tokens)
        add("tokens", ("output", *where), totals.output_tokens)
        for part in ("cache_read", "cache_write", "reasoning"):
            if count := getattr(totals, f"{part}_tokens"):
                add("token_parts", (part, *where), count)
        add("calls", ("ok", *where), totals.requests - totals.failed_requests)
        for outcome in ("failed", "denied"):
            if count := getattr(totals, f"{outcome}_requests"):
                add("calls", (outcome, *where), count)
        add("cached_calls", where, totals.cached_requests)
        add("unpriced_calls", where, totals.unpriced_requests + totals.partial_requests)
        add("cost", where, totals.list_pico)
        add("billed", where, totals.billed_pico)
        add("saved", where, totals.saved_pico)
    first = {"tokens": ("type",), "token_parts": ("part",), "calls": ("outcome",)}
    for key in ("tokens", "token_parts", "calls", "cached_calls", "unpriced_calls", "cost", "billed", "saved"):
        money = key in ("cost", "billed", "saved")
        yield counted(key, (*first.get(key, ()), *_MODEL), sums.get(key, {}), money=money)


def _tools(figures: Figures, core: Any, family: Any, counted: Any) -> Iterator[Any]:
    tools = figures.tools
    calls = {(outcome, *key): count for key, tool in tools.items() for outcome, count in tool.calls.items()}
    yield counted("tool_calls", ("outcome", *_TOOL), calls)
    ratio = family("tool_success", _TOOL)
    for key, tool in tools.items():
        if tool.success_ratio is not None:
            ratio.add_metric(key, tool.success_ratio)
    yield ratio
    yield _histograms(core, METRICS["tool_duration"], _TOOL, {key: tool.durations for key, tool in tools.items()})
    yield counted("tool_cost", _TOOL, {key: tool.pico for key, tool in tools.items()}, money=True)


def _merged(figures: Figures) -> dict[tuple[str, ...], Histogram]:
    """Durations by the labels that are scraped, which tell the model that was asked for no more."""
    found: dict[tuple[str, ...], Histogram] = {}
    for series, one in figures.durations.items():
        where = (series.operation, series.provider, series.model, series.agent)
        histogram = found.get(where)
        if histogram is None:
            histogram = found[where] = Histogram(one.bounds)
        histogram.counts = [left + right for left, right in zip(histogram.counts, one.counts, strict=True)]
        histogram.sum += one.sum
    return found


def _histograms(core: Any, metric: Metric, labels: tuple[str, ...], found: dict[tuple[str, ...], Histogram]) -> Any:
    family = core.HistogramMetricFamily(metric.prometheus, metric.help, labels=labels)
    for values, histogram in found.items():
        total, buckets = 0, []
        for bound, count in zip((*map(repr, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(values, buckets, histogram.sum)
    return family
