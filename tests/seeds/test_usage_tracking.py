"""The seed document "Usage Tracking Module" (selectools), snippet by snippet, through our names.

Deviations, and why:

* `Agent(tools=…, provider=…, config=AgentConfig(…))`: we have no agent class; `Agent` here is an own loop
  (`tests/seeds/agent.py`), and what the document asks of an agent (`usage`, `total_tokens`, `total_cost`,
  `get_usage_summary`, `get_analytics`, `reset_usage`) is asked of its meter (`usage`, …, `str(meter.usage)`,
  `analytics`, `reset`). `AgentConfig(enable_analytics=…, cost_warning_threshold=…)` are `Meter(analytics=…,
  cost_warning_threshold=…)`; `AgentConfig(cache=…)` is `cache.replayed`.
* `UsageStats` is our `UsageRecord`: a finished call, frozen. It is made by `meter.record_usage(…)` and not by hand, for
  its cost follows from its tokens ($0.000405 for the document's numbers, where the document writes $0.0045).
* Tokens by tool: the document gives each of a turn's tools the whole turn; ours share the turn, so that they never add
  up to more than the total. Where each turn asks for one tool, as here, both are the same.
* "Total Tokens: 5,432" of the RAG sample counts embeddings in; the package does not, nor do we: 4,410, embeddings
  beside them. "Iterations" is printed there, too.
* The analytics summary has a line of percentiles that the document has not.
* The cost warning is logged (`agent_meter`, a warning) and sent to plugins, once; the document prints it.
* `LocalProvider()` answers with 0 tokens and no tools, so that the document's own tests fail on it: ours is a provider
  that is told what to say.
* "Estimated savings" of the document are hits × average cost, half the truth after its `reset()`; `saved_cost_usd` is
  exact.
* `metrics.gauge` and `alert_ops_team` are the reader's; here they write into a list.
* `{:,}` and `${:.6f}` print our `int` and `Decimal` as the document's.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.seeds.agent import Agent

from agent_meter import AgentObserver, AgentUsage, Meter, ReplayCache, ToolMetrics, UsageStats
from agent_meter.pricing import calculate_cost, calculate_embedding_cost, model_info
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

Start = Callable[..., LoopbackProvider]
Printed = pytest.CaptureFixture[str]

# A search of 847 tokens, two calculations of 848 each: the document's 2,543. The answer after them costs nothing here.
SCRIPT = [
    Reply(tool_calls=[ToolCall("search", {"query": "Python"})], input_tokens=630, output_tokens=217),
    Reply(tool_calls=[ToolCall("calculate", {"operation": "add"})], input_tokens=630, output_tokens=218),
    Reply(tool_calls=[ToolCall("calculate", {"operation": "add"})], input_tokens=630, output_tokens=218),
    Reply("Done.", input_tokens=0, output_tokens=0),
]


def search(query: str) -> str:
    return f"found {query}"


def calculate(operation: str) -> str:
    return "3"


def new_agent(loopback: Start, meter: Meter, script: Any = SCRIPT, **options: Any) -> Agent:
    return Agent("gpt-4o-mini", loopback(script, loop=True), meter, tools=(search, calculate), **options)


@pytest.fixture
def meter() -> Meter:
    return Meter()


def test_usage_stats() -> None:
    stats: UsageStats = Meter().record_usage(
        input_tokens=1500,
        output_tokens=300,
        model="gpt-4o-mini",
        provider="openai",
    )

    assert (stats.prompt_tokens, stats.completion_tokens, stats.total_tokens) == (1500, 300, 1800)
    assert (stats.model, stats.provider, stats.cost_usd) == ("gpt-4o-mini", "openai", Decimal("0.000405"))
    assert (stats.embedding_tokens, stats.embedding_cost_usd) == (0, 0)


def test_agent_usage_has_the_fields_of_the_document() -> None:
    usage = AgentUsage()
    totals = (
        usage.total_prompt_tokens,
        usage.total_completion_tokens,
        usage.total_tokens,
        usage.total_cost_usd,
        usage.total_embedding_tokens,
        usage.total_embedding_cost_usd,
    )

    assert totals == (0, 0, 0, 0, 0, 0)
    assert (usage.tool_usage, usage.tool_tokens, usage.iterations) == ({}, {}, [])


def test_automatic_tracking(loopback: Start, meter: Meter, capsys: Printed) -> None:
    agent = new_agent(loopback, meter)
    agent.run("Search for Python")

    # Usage automatically tracked
    print(f"Total tokens: {meter.usage.total_tokens:,}")
    print(f"Total cost: ${meter.usage.total_cost:.6f}")
    print(str(meter.usage))

    # 1,890 in at $0.15 and 653 out at $0.60 for 1M
    assert capsys.readouterr().out == (
        "Total tokens: 2,543\n"
        "Total cost: $0.000675\n"
        "\n"
        "============================================================\n"
        "📊 Usage Summary\n"
        "============================================================\n"
        "Total Tokens: 2,543\n"
        "  - Prompt: 1,890\n"
        "  - Completion: 653\n"
        "Total Cost: $0.000675\n"
        "Iterations: 4\n"
        "\n"
        "Tool Usage:\n"
        "  - calculate: 2 calls, 1,696 tokens\n"
        "  - search: 1 calls, 847 tokens\n"
        "============================================================\n"
        "\n"
    )


def test_real_time_usage_through_an_observer(loopback: Start, meter: Meter, capsys: Printed) -> None:
    class UsageTracker(AgentObserver):
        def on_usage(self, run_id: str, usage: UsageStats) -> None:
            print(f"[{run_id}] {usage.total_tokens} tokens, ${usage.cost_usd:.6f}")

    meter.observe(UsageTracker())
    new_agent(loopback, meter).run("Search for Python")

    run_id = meter.history()[0].run_id
    assert capsys.readouterr().out.splitlines() == [
        f"[{run_id}] 847 tokens, $0.000225",
        f"[{run_id}] 848 tokens, $0.000225",
        f"[{run_id}] 848 tokens, $0.000225",
        f"[{run_id}] 0 tokens, $0.000000",
    ]


def test_per_tool_attribution(loopback: Start, meter: Meter, capsys: Printed) -> None:
    new_agent(loopback, meter).run("Search for Python")

    print(meter.usage.tool_usage)
    print(meter.usage.tool_tokens)

    assert capsys.readouterr().out.splitlines() == [
        "{'search': 1, 'calculate': 2}",
        "{'search': 847, 'calculate': 1696}",
    ]


def test_iteration_breakdown(loopback: Start, meter: Meter, capsys: Printed) -> None:
    new_agent(loopback, meter).run("Search for Python")

    for i, iteration in enumerate(meter.usage.iterations):
        print(f"Iteration {i + 1}:")
        print(f"  Tokens: {iteration.total_tokens}")
        print(f"  Cost: ${iteration.cost_usd:.6f}")

    assert capsys.readouterr().out.splitlines()[:6] == [
        "Iteration 1:", "  Tokens: 847", "  Cost: $0.000225", "Iteration 2:", "  Tokens: 848", "  Cost: $0.000225",
    ]  # fmt: skip


def test_reset_usage(loopback: Start, meter: Meter) -> None:
    new_agent(loopback, meter).run("Search for Python")
    meter.reset()

    assert (meter.usage.total_tokens, meter.usage.iterations) == (0, [])


def test_tool_metrics_have_the_fields_of_the_document() -> None:
    metrics = ToolMetrics("search")

    numbers = (metrics.total_calls, metrics.successful_calls, metrics.failed_calls, metrics.total_chunks)
    assert (metrics.name, numbers, metrics.streaming_calls) == ("search", (0, 0, 0, 0), 0)
    assert (metrics.total_duration, metrics.total_cost, metrics.parameter_usage) == (0, 0, {})
    assert (metrics.success_rate, metrics.avg_duration) == (0.0, 0.0)


@pytest.fixture
def measured(meter: Meter) -> Meter:
    """The calls behind the document's output: 15 searches, one of them failed, and 23 calculations."""
    for number in range(15):
        query = "Python tutorials" if number < 8 else f"question {number % 4}"
        cost = Decimal("0.00125") if number == 0 else 0
        meter.analytics.record_tool_call("search", number != 3, 0.234, {"query": query}, cost=cost)
    for number in range(23):
        operation = "add" if number < 12 else ("multiply", "divide", "subtract")[number % 3]
        meter.analytics.record_tool_call("calculate", True, 0.012, {"operation": operation})
    return meter


def test_get_analytics(measured: Meter, tmp_path: Path, capsys: Printed) -> None:
    analytics = measured.analytics
    if analytics:
        # Get specific tool metrics
        search_metrics = analytics.get_metrics("search")
        assert search_metrics is not None
        print(f"Search success rate: {search_metrics.success_rate:.1f}%")
        print(f"Avg duration: {search_metrics.avg_duration:.3f}s")

        # Export to file
        analytics.to_json(tmp_path / "analytics.json")
        analytics.to_csv(tmp_path / "analytics.csv")

    assert capsys.readouterr().out == "Search success rate: 93.3%\nAvg duration: 0.234s\n"


def test_analytics_output(measured: Meter) -> None:
    lines = measured.analytics.summary().splitlines(keepends=True)
    summary = "".join(line for line in lines if not line.startswith("  Percentiles:"))

    search_part, calculate_part = summary.split("search:\n")[1], summary.split("calculate:\n")[1]
    assert search_part.startswith(
        "  Calls: 15\n"
        "  Success rate: 93.3% (14/15)\n"
        "  Failures: 1\n"
        "  Avg duration: 0.234s\n"
        "  Total duration: 3.510s\n"
        "  Total cost: $0.001250\n"
        "  Common parameters:\n"
        '    query: "Python tutorials" (8x, 5 unique)\n'
    )
    assert calculate_part.startswith(
        "  Calls: 23\n"
        "  Success rate: 100.0% (23/23)\n"
        "  Avg duration: 0.012s\n"
        "  Total duration: 0.276s\n"
        "  Common parameters:\n"
        '    operation: "add" (12x, 4 unique)\n'
    )


def test_export_analytics(measured: Meter, tmp_path: Path) -> None:
    # JSON format
    measured.analytics.to_json(tmp_path / "analytics.json")
    # CSV format
    measured.analytics.to_csv(tmp_path / "analytics.csv")

    # Output: {"tools": {...}, "summary": {...}}
    exported = json.loads((tmp_path / "analytics.json").read_text(encoding="utf-8"))
    assert list(exported) == ["tools", "summary"]
    assert (set(exported["tools"]), exported["summary"]["total_calls"]) == ({"search", "calculate"}, 38)
    # Columns: tool_name, total_calls, successful_calls, failed_calls,
    # success_rate, avg_duration, total_duration, total_cost
    with (tmp_path / "analytics.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert ", ".join(header) == (
        "tool_name, total_calls, successful_calls, failed_calls, success_rate, avg_duration, total_duration, total_cost"
    )
    assert [row[0] for row in rows] == ["calculate", "search"]


def test_model_registry(capsys: Printed) -> None:
    # Model info includes pricing
    model = model_info("gpt-4o")
    print(f"Prompt: ${model.prompt_cost}/1M tokens")
    print(f"Completion: ${model.completion_cost}/1M tokens")

    assert capsys.readouterr().out == "Prompt: $2.5/1M tokens\nCompletion: $10/1M tokens\n"


def test_cost_calculation() -> None:
    cost = calculate_cost(
        model="gpt-4o",
        prompt_tokens=1000,
        completion_tokens=500,
    )

    assert cost == Decimal("0.0025") + Decimal("0.005") == Decimal("0.0075")


def test_embedding_cost() -> None:
    cost = calculate_embedding_cost(
        model="text-embedding-3-small",
        tokens=1000,
    )

    assert cost == Decimal("0.00002")


def test_cost_warnings(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(
        cost_warning_threshold=0.10,  # Warn at $0.10
    )
    for _ in range(3):
        meter.record_usage(model="gpt-4o", input_tokens=50_000)

    assert [record.message for record in caplog.records] == [
        "⚠️  Cost Warning: Total cost $0.125000 exceeds threshold $0.100000"
    ]


def test_adding_usage_stats() -> None:
    """The document's implementation of an agent, with its own accumulator."""
    usage, source = AgentUsage(), Meter()
    # Track usage
    usage.add_usage(source.record_usage(model="gpt-4o", input_tokens=1000), tool_name=None)
    usage.add_usage(source.record_usage(model="gpt-4o", input_tokens=500), tool_name="search")

    assert (usage.total_tokens, usage.total_cost_usd, len(usage.iterations)) == (1500, Decimal("0.00375"), 2)
    assert (usage.tool_usage, usage.tool_tokens) == ({"search": 1}, {"search": 500})


def test_recording_tool_calls(meter: Meter) -> None:
    # Track analytics
    meter.analytics.record_tool_call(
        tool_name="search", success=True, duration=0.2, params={"query": "x"}, cost=0.0, chunk_count=3
    )
    # Track failure
    meter.analytics.record_tool_call(tool_name="search", success=False, duration=0.4, params={"query": "x"}, cost=0.0)

    metrics = meter.analytics.get_metrics("search")
    assert metrics is not None
    assert (metrics.total_calls, metrics.failed_calls, metrics.total_chunks, metrics.streaming_calls) == (2, 1, 3, 1)
    assert (metrics.success_rate, metrics.failure_rate) == (50.0, 50.0)


def test_best_practices(measured: Meter, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger, alerts, gauges = logging.getLogger("best practices"), [], {}
    measured.record_usage(model="gpt-4o", input_tokens=4_100_000)
    measured.analytics.record_tool_call("slow", True, 6.5, {})
    measured.analytics.record_tool_call("broken", False, 0.1, {})

    # 1. Check costs periodically
    if measured.usage.total_cost > Decimal("10.00"):
        alerts.append(f"High agent costs: ${measured.usage.total_cost}")

    # 2. Log to monitoring system
    gauges["agent.tokens"] = measured.usage.total_tokens
    gauges["agent.cost_usd"] = measured.usage.total_cost
    gauges["agent.iterations"] = len(measured.usage.iterations)

    # 3. Analyze tool performance
    for tool_name, metrics in measured.analytics.get_all_metrics().items():
        if metrics.failure_rate > 10.0:
            logger.warning(f"Tool {tool_name} has high failure rate: {metrics.failure_rate:.1f}%")
        if metrics.avg_duration > 5.0:
            logger.warning(f"Tool {tool_name} is slow: {metrics.avg_duration:.2f}s")

    # 4. Daily analytics export
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    (tmp_path / "analytics").mkdir()
    measured.analytics.to_json(tmp_path / f"analytics/{date}.json")
    measured.analytics.to_csv(tmp_path / f"analytics/{date}.csv")

    # 5. For chatbots, reset per user session
    measured.reset()
    if measured.analytics:
        measured.analytics.reset()

    assert alerts == ["High agent costs: $10.25"]
    assert gauges == {"agent.tokens": 4_100_000, "agent.cost_usd": Decimal("10.25"), "agent.iterations": 1}
    assert caplog.messages == [
        "Tool broken has high failure rate: 100.0%",
        "Tool slow is slow: 6.50s",
    ]
    assert len(list((tmp_path / "analytics").iterdir())) == 2
    assert measured.analytics.get_all_metrics() == {}


def test_testing(loopback: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The document's three tests, which fail on the package's own LocalProvider."""
    meter = Meter(cost_warning_threshold=0.0001)
    new_agent(loopback, meter).run("Test")

    # test_usage_tracking
    assert meter.usage.total_tokens > 0
    assert len(meter.usage.iterations) > 0
    # test_cost_warning
    assert any("Cost Warning" in msg for msg in caplog.messages)
    # test_analytics
    analytics = meter.analytics
    assert analytics is not None
    assert len(analytics.get_all_metrics()) > 0


@pytest.fixture
def cached(loopback: Start, meter: Meter) -> tuple[Any, ReplayCache]:
    """A function whose answers a cache keeps, after the same question twice."""
    cache = ReplayCache(max_size=500, default_ttl=600)
    agent = new_agent(loopback, meter, [Reply("Hi!", input_tokens=1000, output_tokens=500)])

    @cache.replayed(meter, model="gpt-4o", provider="openai")
    def ask(question: str) -> Any:
        messages: Any = [{"role": "user", "content": question}]
        return agent.client.chat.completions.create(model="gpt-4o", messages=messages)

    # Run some queries
    ask("Hello")
    ask("Hello")  # cache hit
    return ask, cache


def test_cache_stats(cached: tuple[Any, ReplayCache], capsys: Printed) -> None:
    _, cache = cached
    # Cache performance
    stats = cache.stats
    print(f"Hit rate: {stats.hit_rate:.1%}")
    print(f"Hits: {stats.hits}")
    print(f"Misses: {stats.misses}")
    print(f"Evictions: {stats.evictions}")

    assert capsys.readouterr().out == "Hit rate: 50.0%\nHits: 1\nMisses: 1\nEvictions: 0\n"
    assert stats.total_requests == 2


def test_monitoring_cache_and_usage_together(cached: tuple[Any, ReplayCache], meter: Meter, capsys: Printed) -> None:
    _, cache = cached
    # Agent usage (logical)
    print(f"Tokens used: {meter.usage.total_tokens:,}")
    print(f"Cost: ${meter.usage.total_cost:.6f}")

    # Cache efficiency
    print(f"Cache hit rate: {cache.stats.hit_rate:.1%}")
    print(f"API calls saved: {cache.stats.hits}")

    # Cost savings estimate
    avg_cost_per_call = meter.usage.total_cost / cache.stats.total_requests
    savings = cache.stats.hits * avg_cost_per_call
    print(f"Estimated savings: ${savings:.6f}")

    assert capsys.readouterr().out == (
        "Tokens used: 3,000\nCost: $0.015000\nCache hit rate: 50.0%\nAPI calls saved: 1\nEstimated savings: $0.007500\n"
    )
    assert savings == meter.usage.saved_cost_usd
    assert meter.usage.billed_cost_usd == Decimal("0.0075")


def test_rag_usage_tracking(meter: Meter, capsys: Printed) -> None:
    meter.prices.set("embedder", {"input": Decimal("0.00015") / Decimal("0.001022")})
    meter.prices.set("answerer", {"input": Decimal("0.0008") / Decimal("0.00321"), "output": "1"})
    meter.record_usage(model="embedder", kind="embedding", input_tokens=1_022)
    meter.record_usage(model="answerer", input_tokens=3_210, output_tokens=1_200)

    # Usage includes both LLM and embeddings
    print(meter.usage)

    assert capsys.readouterr().out == (
        "\n"
        "============================================================\n"
        "📊 Usage Summary\n"
        "============================================================\n"
        "Total Tokens: 4,410\n"
        "  - Prompt: 3,210\n"
        "  - Completion: 1,200\n"
        "  - Embeddings: 1,022\n"
        "Total Cost: $0.002150\n"
        "  - LLM: $0.002000\n"
        "  - Embeddings: $0.000150\n"
        "Iterations: 2\n"
        "============================================================\n"
        "\n"
    )
