"""OpenTelemetry: the SDK in memory, an OTLP collector's stand-in over HTTP, and the host's spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agent_meter import Budget, Meter
from agent_meter.exporters import otel
from agent_meter.exporters.names import METRICS, SEMCONV, TOKEN_COUNTERS
from agent_meter.exporters.otel import OpenTelemetryMetrics
from agent_meter.records import ABANDONED, Call, Kind, Model, TokenUsage

from .samples import fill

pytest.importorskip("opentelemetry.sdk.metrics", reason="pip install 'agent-meter[otel]'")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider

Points = dict[str, list[tuple[dict[str, Any], Any]]]
Metered = tuple[Meter, Callable[[], Points]]


def start(semconv: str) -> Metered:
    reader = InMemoryMetricReader()
    meter = Meter([OpenTelemetryMetrics(MeterProvider([reader]), semconv=semconv)])

    def collect() -> Points:
        found: Points = {}
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (dict(point.attributes), point.value if hasattr(point, "value") else point)
                        for point in metric.data.data_points
                    ]
        return found

    return meter, collect


def total(found: Points, name: str, **labels: str) -> float:
    wanted = {key.replace("__", "."): value for key, value in labels.items()}
    return sum(value for has, value in found.get(name, ()) if wanted.items() <= has.items())


@pytest.fixture(params=SEMCONV)
def metered(request: pytest.FixtureRequest) -> Metered:
    return start(request.param)


def test_cost_calls_and_savings_are_those_of_the_meter(metered: Metered):
    meter, collect = metered
    fill(meter)
    usage = meter.usage
    found = collect()

    assert total(found, "agent_meter.cost") == pytest.approx(float(usage.cost_usd), abs=1e-12)
    assert total(found, "agent_meter.cost.billed") == pytest.approx(float(usage.billed_cost_usd), abs=1e-12)
    assert total(found, "agent_meter.cost.saved") == pytest.approx(float(usage.saved_cost_usd), abs=1e-12)
    assert total(found, "agent_meter.calls") == usage.requests
    assert total(found, "agent_meter.calls.cached") == 1
    assert total(found, "agent_meter.calls.unpriced") == 1
    assert total(found, "agent_meter.tool.calls", outcome="error") == 1
    assert total(found, "agent_meter.runs", status="ok") == 1


def test_the_stable_family_has_a_histogram_of_tokens_a_call():
    meter, collect = start("stable")
    fill(meter)
    points = collect()["gen_ai.client.token.usage"]

    def of(type: str) -> int:
        return sum(point.sum for has, point in points if has["gen_ai.token.type"] == type)

    assert of("output") == meter.usage.output_tokens
    assert of("input") == meter.usage.input_tokens + meter.usage.embedding_tokens
    assert points[0][1].explicit_bounds[:3] == (1, 4, 16)
    assert points[0][1].explicit_bounds[-1] == 67108864


def test_the_latest_family_has_a_counter_for_each_class():
    meter, collect = start("latest")
    fill(meter)
    meter.record_usage(model="gpt-4o-audio", input_tokens=10, input_audio_tokens=4)
    found, usage = collect(), meter.usage

    assert total(found, TOKEN_COUNTERS["input_tokens"]) == usage.input_tokens + usage.embedding_tokens
    assert total(found, TOKEN_COUNTERS["output_tokens"]) == usage.output_tokens
    assert total(found, TOKEN_COUNTERS["cache_read_tokens"]) == usage.cache_read_tokens
    assert total(found, TOKEN_COUNTERS["cache_write_tokens"]) == usage.cache_write_tokens
    assert total(found, TOKEN_COUNTERS["input_tokens"], gen_ai__token__modality="audio") == 4
    assert "gen_ai.client.token.usage" not in found


def test_calls_are_told_apart_by_what_the_conventions_name(metered: Metered):
    meter, collect = metered
    meter.record_usage(
        model="gpt-4o", response_model="gpt-4o-2024-08-06", provider="bedrock", agent="a", user="u", session="s",
        duration=0.5,
    )  # fmt: skip
    ((attributes, point),) = collect()["gen_ai.client.operation.duration"]

    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.agent.name": "a",
    }
    assert (point.count, point.sum) == (1, 0.5)


def test_a_failed_call_says_why(metered: Metered):
    meter, collect = metered
    meter.record_usage(model="gpt-4o", status="error", error_type="RateLimitError", duration=0.1)

    assert [has["error.type"] for has, _ in collect()["gen_ai.client.operation.duration"]] == ["RateLimitError"]


def test_iterations_of_a_run_are_its_model_calls(metered: Metered):
    meter, collect = metered
    for calls in (1, 4):
        with meter.run("r", agent="a") as run:
            for _ in range(calls):
                with run.llm("gpt-4o") as call:
                    call.finish(TokenUsage(1, 1))
    ((attributes, point),) = collect()["agent_meter.run.iterations"]

    assert (attributes, point.count, point.sum, point.max) == ({"gen_ai.agent.name": "a"}, 2, 5, 4)


def test_two_collections_count_nothing_twice(metered: Metered):
    meter, collect = metered
    fill(meter)
    first, second = collect(), collect()

    assert total(second, "agent_meter.cost") == total(first, "agent_meter.cost")
    counts = [found["gen_ai.client.operation.duration"][0][1].count for found in (first, second)]
    assert counts[0] == counts[1]


def test_a_correction_is_counted_once_and_no_counter_falls(metered: Metered):
    meter, collect = metered
    call = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o")))
    meter.close(call, status=ABANDONED)
    before = collect()
    meter.close(call, TokenUsage(7, 3))
    after = collect()

    assert total(after, "agent_meter.calls", outcome="ok") == 1
    assert total(after, "agent_meter.cost") == pytest.approx(0.0000475, abs=1e-12)
    for name in ("agent_meter.calls", "agent_meter.calls.unpriced"):
        assert total(after, name) >= total(before, name)


def test_reset_takes_nothing_from_a_counter(metered: Metered):
    meter, collect = metered
    fill(meter)
    before = total(collect(), "agent_meter.calls")
    meter.reset()

    assert total(collect(), "agent_meter.calls") == before


def test_five_thousand_users_and_agents_stay_under_the_limit_of_the_sdk(metered: Metered):
    meter, collect = metered
    for index in range(5000):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1, agent=f"a{index}", user=f"u{index}")
    found = collect()

    assert all(len(points) < 2000 for points in found.values())
    assert not [has for points in found.values() for has, _ in points if "otel.metric.overflow" in has]
    assert not [value for points in found.values() for has, _ in points for value in has.values() if "u1" in str(value)]
    assert total(found, "agent_meter.calls") == 5000
    assert total(found, "agent_meter.calls", gen_ai__agent__name="other") == 4800


def test_values_that_nobody_collects_are_not_lost_and_do_not_pile_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(otel, "MAX_WAITING", 10)
    meter, collect = start("stable")
    for _ in range(100):
        meter.record_usage(model="gpt-4o", duration=0.5, input_tokens=1)
    plugin = next(impl for impl, name in meter.plugins._impls["meter_record"] if name == "OpenTelemetryMetrics")

    assert len(plugin.__self__._waiting) <= 13
    assert collect()["gen_ai.client.operation.duration"][0][1].count == 100


def test_a_meter_records_while_others_collect(metered: Metered):
    meter, collect = metered
    done = threading.Event()

    def record() -> None:
        for _ in range(300):
            meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1, duration=0.1)

    threads = [threading.Thread(target=record) for _ in range(4)]
    reader = threading.Thread(target=lambda: [collect() for _ in iter(done.is_set, True)])
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    found = collect()

    assert total(found, "agent_meter.calls") == 1200
    assert sum(point.count for _, point in found["gen_ai.client.operation.duration"]) == 1200
    assert meter.health()["ok"]


# --------------------------------------------------------------------------------------------------- over OTLP


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP collector's ear: it takes what is posted, and decodes nothing."""
    bodies: list[bytes] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/metrics", bodies
    server.shutdown()
    server.server_close()


def test_a_collector_decodes_the_sums_of_the_meter(collector: tuple[str, list[bytes]]):
    exporter = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    url, bodies = collector
    reader = PeriodicExportingMetricReader(exporter.OTLPMetricExporter(endpoint=url), export_interval_millis=3_600_000)
    provider = MeterProvider([reader])
    meter = Meter([OpenTelemetryMetrics(provider, semconv="latest")])
    fill(meter)

    assert provider.force_flush()
    provider.shutdown()

    request = service.ExportMetricsServiceRequest.FromString(bodies[0])
    metrics = {
        metric.name: metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    points = metrics[TOKEN_COUNTERS["output_tokens"]].sum.data_points
    costs = metrics["agent_meter.cost"].sum
    assert sum(point.as_int for point in points) == meter.usage.output_tokens
    assert sum(Decimal(str(point.as_double)) for point in costs.data_points) == meter.usage.cost_usd
    assert costs.is_monotonic
    assert {metric.unit for metric in metrics.values() if "cost" in metric.name} == {"{USD}"}
    assert set(metrics) <= {metric.otel for metric in METRICS.values()} | set(TOKEN_COUNTERS.values())


# ------------------------------------------------------------------------------------------------------- spans


def span_of(semconv: str, *, cached: bool = False, **attributes: str) -> dict[str, Any]:
    """The attributes of a span that was current while a call was recorded."""
    meter, _ = start(semconv)
    with TracerProvider().get_tracer("host").start_as_current_span("chat gpt-4o", attributes=attributes) as span:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=100, cached=cached)
    return dict(span.attributes or {})  # type: ignore[attr-defined]


def test_the_cost_is_put_on_the_hosts_span_of_the_call():
    found = span_of("stable", **{"gen_ai.operation.name": "chat"})

    assert found["gen_ai.usage.cost"] == 0.0035
    assert found["agent_meter.cost.status"] == "priced"
    assert len(found["agent_meter.record.id"]) == 36


def test_the_latest_family_names_amount_currency_and_source():
    found = span_of("latest", **{"gen_ai.operation.name": "chat"})

    assert found["gen_ai.usage.cost.amount"] == 0.0035
    assert (found["gen_ai.usage.cost.currency"], found["gen_ai.usage.cost.source"]) == ("USD", "local")
    assert "gen_ai.usage.cost" not in found


def test_a_replayed_call_cost_nothing_and_says_what_it_saved():
    found = span_of("stable", cached=True, **{"gen_ai.operation.name": "chat"})

    assert (found["gen_ai.usage.cost"], found["agent_meter.cost.saved"]) == (0.0, 0.0035)


@pytest.mark.parametrize("attributes", [{}, {"gen_ai.operation.name": "invoke_agent"}, {"http.method": "POST"}])
def test_a_span_of_something_else_is_left_as_it_is(attributes: dict[str, str]):
    assert span_of("stable", **attributes) == attributes


def test_an_unpriced_call_has_no_cost_on_its_span():
    meter, _ = start("stable")
    tracer = TracerProvider().get_tracer("host")
    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as span:
        meter.record_usage(model="acme-unknown", input_tokens=1)
    found = dict(span.attributes or {})  # type: ignore[attr-defined]

    assert found["agent_meter.cost.status"] == "unpriced"
    assert "gen_ai.usage.cost" not in found


def test_the_tightest_budget_is_put_beside_the_cost_as_of_the_last_collection():
    reader = InMemoryMetricReader()
    meter = Meter(
        [OpenTelemetryMetrics(MeterProvider([reader]))], budgets=[Budget("daily", usd=10), Budget("loose", usd=1000)]
    )
    meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1_000_000)
    reader.get_metrics_data()
    tracer = TracerProvider().get_tracer("host")
    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as span:
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1)
    found = dict(span.attributes or {})  # type: ignore[attr-defined]

    assert (found["agent_meter.budget.name"], found["agent_meter.budget.used_ratio"]) == ("daily", 0.25)


def test_what_is_neither_family_is_refused():
    with pytest.raises(ValueError, match="'stable' or 'latest', not 'newest'"):
        OpenTelemetryMetrics(MeterProvider(), semconv="newest")


def test_a_record_costs_little_on_the_callers_path():
    import time

    meter, collect = start("stable")
    plugin = next(impl for impl, name in meter.plugins._impls["meter_record"] if name == "OpenTelemetryMetrics")
    record = meter.record_usage(model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=100, duration=0.5)
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(500):
            plugin(record)
        best = min(best, (time.perf_counter() - begin) / 500)
    collect()

    assert best < 30e-6  # the SDK's own instruments cost 57 µs a call
