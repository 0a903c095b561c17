"""Prometheus, read by its own parser: over HTTP, and from a file."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_meter import Budget, Meter
from agent_meter.exporters import export
from agent_meter.exporters.figures import MAX_AGENTS, MAX_SERIES
from agent_meter.exporters.names import METRICS
from agent_meter.exporters.prometheus import PrometheusMetrics
from agent_meter.patterns import printable
from agent_meter.records import ABANDONED, Call, Kind, Model, TokenUsage

from .samples import HOSTILE, START, fill, records

parser = pytest.importorskip("prometheus_client.parser", reason="pip install 'agent-meter[prometheus]'")


@pytest.fixture
def metered() -> Iterator[tuple[Meter, PrometheusMetrics]]:
    metrics = PrometheusMetrics()
    with Meter([metrics]) as meter:
        yield meter, metrics


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(found: dict[str, list[Any]], name: str, **labels: str) -> float:
    return sum(value for has, value in found.get(name, ()) if labels.items() <= has.items())


def test_the_sums_that_are_scraped_are_those_of_the_meter(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    fill(meter)
    usage = meter.usage
    found = samples(metrics.text())

    assert total(found, "agent_meter_tokens_total", type="input", operation="chat") == usage.input_tokens
    assert total(found, "agent_meter_tokens_total", type="input", operation="embeddings") == usage.embedding_tokens
    assert total(found, "agent_meter_tokens_total", type="output") == usage.output_tokens
    assert total(found, "agent_meter_token_parts_total", part="cache_read") == usage.cache_read_tokens
    assert total(found, "agent_meter_calls_total", outcome="ok") == usage.requests - usage.failed_requests
    assert total(found, "agent_meter_cached_calls_total") == usage.cached_requests
    assert total(found, "agent_meter_unpriced_calls_total") == usage.unpriced_requests
    assert total(found, "agent_meter_cost_usd_total") == pytest.approx(float(usage.cost_usd), abs=1e-12)
    assert total(found, "agent_meter_billed_cost_usd_total") == pytest.approx(float(usage.billed_cost_usd), abs=1e-12)
    assert total(found, "agent_meter_saved_cost_usd_total") == pytest.approx(float(usage.saved_cost_usd), abs=1e-12)


def test_tools_and_runs_are_scraped(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    fill(meter)
    found = samples(metrics.text())

    assert total(found, "agent_meter_tool_calls_total", tool="search", outcome="ok") == 1
    assert total(found, "agent_meter_tool_calls_total", tool="search", outcome="error") == 1
    assert total(found, "agent_meter_tool_success_ratio", tool="search", agent="researcher") == 1
    assert total(found, "agent_meter_tool_duration_seconds_sum", tool="search") == 0.75
    assert total(found, "agent_meter_tool_cost_usd_total", tool="search") == 0.01
    assert total(found, "agent_meter_runs_total", agent="researcher", status="ok") == 1
    assert total(found, "agent_meter_run_iterations_sum", agent="researcher") == 2
    assert total(found, "agent_meter_run_iterations_count", agent="researcher") == 1


def test_buckets_are_cumulative_and_end_in_the_count(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    for seconds in (0.01, 0.05, 3.0, 1000.0):
        meter.record_usage(model="gpt-4o", provider="openai", duration=seconds)
    found = samples(metrics.text())
    buckets = [value for _, value in found["agent_meter_operation_duration_seconds_bucket"]]

    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (1, 4)  # 0.01 is inside the bucket of that bound
    assert total(found, "agent_meter_operation_duration_seconds_count") == 4
    assert total(found, "agent_meter_operation_duration_seconds_sum") == pytest.approx(1003.06)


def test_every_name_is_in_the_table_and_says_what_it_is(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    fill(meter)
    known = {metric.prometheus.removesuffix("_total"): metric for metric in METRICS.values()}

    for family in parser.text_string_to_metric_families(metrics.text()):
        assert family.name.removesuffix("_total") in known
        assert family.documentation == known[family.name.removesuffix("_total")].help


def test_no_user_task_run_or_session_is_ever_a_label(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    for index in range(50):
        with meter.run(f"r{index}", agent="a", user=f"user-{index}", task=f"task-{index}", session=f"s-{index}") as run:
            with run.llm("gpt-4o") as call:
                call.finish(TokenUsage(1, 1))
    text = metrics.text()

    assert not [word for word in ("user-", "task-", "s-1") if word in text]
    assert total(samples(text), "agent_meter_runs_total") == 50


def test_ten_thousand_agents_models_and_tools_are_a_bounded_number_of_series_and_an_exact_sum(
    metered: tuple[Meter, PrometheusMetrics],
):
    meter, metrics = metered
    for index in range(10_000):
        meter.record_usage(model=f"m{index % 997}", input_tokens=1, agent=f"a{index}", started_at=START)
        meter.record_tool_call(f"t{index}", True, 0.1, None, started_at=START)
    found = samples(metrics.text())

    assert len(found["agent_meter_calls_total"]) <= MAX_SERIES + MAX_AGENTS + 2
    assert len({labels["agent"] for labels, _ in found["agent_meter_calls_total"]}) <= MAX_AGENTS + 1
    assert total(found, "agent_meter_tokens_total", type="input") == 10_000
    assert total(found, "agent_meter_tool_calls_total") == 10_000
    assert len(found["agent_meter_tool_calls_total"]) <= 201


def test_hostile_names_are_labels_like_any_other(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    meter.record_usage(model="m", agent=HOSTILE)

    assert printable(HOSTILE) in {labels["agent"] for labels, _ in samples(metrics.text())["agent_meter_calls_total"]}


def test_a_correction_is_counted_once_and_no_counter_falls(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    call = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o")))
    meter.close(call, status=ABANDONED)
    before = samples(metrics.text())
    meter.close(call, TokenUsage(7, 3))
    after = samples(metrics.text())

    assert total(after, "agent_meter_tokens_total", type="input") == 7
    assert total(after, "agent_meter_calls_total", outcome="ok") == 1
    for name, found in before.items():
        if name.endswith("_total"):
            assert total(after, name) >= total({name: found}, name), name


def test_the_endpoint_answers_on_this_machine_and_stops_with_the_meter(metered: tuple[Meter, PrometheusMetrics]):
    meter, metrics = metered
    fill(meter)
    url = f"http://127.0.0.1:{metrics.serve(0)}/metrics"

    with urllib.request.urlopen(url, timeout=10) as answer:
        body = answer.read().decode()

    assert total(samples(body), "agent_meter_calls_total") >= 6
    meter.shutdown()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=2)


def test_the_textfile_is_whole_and_says_the_same(metered: tuple[Meter, PrometheusMetrics], tmp_path: Path):
    meter, metrics = metered
    fill(meter)
    metrics.write_textfile(tmp_path / "agent.prom")

    assert (tmp_path / "agent.prom").read_text() == metrics.text()


def test_an_export_of_records_has_the_sums_of_the_meter(tmp_path: Path):
    found, meter = records()
    export(found, tmp_path / "agent.prom")
    scraped = samples((tmp_path / "agent.prom").read_text())

    assert total(scraped, "agent_meter_tokens_total", type="output") == meter.usage.output_tokens
    assert Decimal(str(round(total(scraped, "agent_meter_cost_usd_total"), 12))) == round(meter.usage.cost_usd, 12)
    assert total(scraped, "agent_meter_run_iterations_sum") == 2


def test_a_budget_is_scraped_by_its_name_alone_at_its_tightest():
    metrics = PrometheusMetrics()
    meter = Meter([metrics], budgets=[Budget("each user", usd=20, tokens=5_000_000, user="*")])
    for user, tokens in (("ada", 2_000_000), ("bob", 1_000_000)):
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=tokens, user=user)
    text = metrics.text()
    found = samples(text)

    assert found["agent_meter_budget_used"] == [
        ({"budget": "each user", "unit": "usd"}, 5.0),
        ({"budget": "each user", "unit": "tokens"}, 2_000_000.0),
    ]
    assert found["agent_meter_budget_used_ratio"][0] == ({"budget": "each user", "unit": "usd"}, 0.25)
    assert "ada" not in text


def test_a_budget_store_that_is_down_does_not_take_the_scrape_with_it(
    metered: tuple[Meter, PrometheusMetrics], monkeypatch: pytest.MonkeyPatch
):
    def down() -> list[Any]:
        raise OSError("no route to host")

    meter, metrics = metered
    monkeypatch.setattr(meter.budgets, "status", down)
    meter.record_usage(model="gpt-4o")

    assert total(samples(metrics.text()), "agent_meter_calls_total") == 1
    assert meter.health()["failures"] == {"budgets": {"status": 1}}
    assert total(samples(metrics.text()), "agent_meter_failures_total", plugin="budgets") == 1
