"""What every metric is called: the one table that Prometheus, OpenTelemetry and docs/reference/metrics.md follow.

A name of the OpenTelemetry GenAI conventions that changes is changed here, and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Metric(NamedTuple):
    """One metric. `prometheus` is the name that is scraped; "" where a system has none."""

    key: str
    kind: str
    otel: str
    unit: str
    prometheus: str
    help: str


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            "tokens", COUNTER, "", "{token}", "agent_meter_tokens_total",
            "Tokens by type: input (cache reads and writes included) and output (reasoning included).",
        ),
        Metric(
            "token_parts", COUNTER, "", "{token}", "agent_meter_token_parts_total",
            "Parts of agent_meter_tokens_total: cache_read and cache_write of input, reasoning of output.",
        ),
        Metric("calls", COUNTER, "agent_meter.calls", "{call}", "agent_meter_calls_total", "Model calls by outcome."),
        Metric(
            "cached_calls", COUNTER, "agent_meter.calls.cached", "{call}", "agent_meter_cached_calls_total",
            "Model calls that were answered from a cache, and not sent.",
        ),
        Metric(
            "unpriced_calls", COUNTER, "agent_meter.calls.unpriced", "{call}", "agent_meter_unpriced_calls_total",
            "Model calls without a price, or with a part without one: where it is not 0, costs are lower bounds.",
        ),
        Metric(
            "cost", COUNTER, "agent_meter.cost", "{USD}", "agent_meter_cost_usd_total",
            "List price of model calls in US dollars, replayed ones included.",
        ),
        Metric(
            "billed", COUNTER, "agent_meter.cost.billed", "{USD}", "agent_meter_billed_cost_usd_total",
            "What is owed for model calls in US dollars.",
        ),
        Metric(
            "saved", COUNTER, "agent_meter.cost.saved", "{USD}", "agent_meter_saved_cost_usd_total",
            "List price of replayed calls in US dollars: what the cache saved.",
        ),
        Metric(
            "duration", HISTOGRAM, "gen_ai.client.operation.duration", "s",
            "agent_meter_operation_duration_seconds", "Duration of model calls in seconds.",
        ),
        Metric(
            "tool_calls", COUNTER, "agent_meter.tool.calls", "{call}", "agent_meter_tool_calls_total",
            "Tool calls by outcome: ok, error, denied.",
        ),
        Metric(
            "tool_success", GAUGE, "agent_meter.tool.success_ratio", "1", "agent_meter_tool_success_ratio",
            "Part of the tool calls made that succeeded, 0 to 1.",
        ),
        Metric(
            "tool_duration", HISTOGRAM, "gen_ai.execute_tool.duration", "s", "agent_meter_tool_duration_seconds",
            "Duration of tool calls in seconds.",
        ),
        Metric(
            "tool_cost", COUNTER, "agent_meter.tool.cost", "{USD}", "agent_meter_tool_cost_usd_total",
            "What tool calls themselves cost in US dollars.",
        ),
        Metric("runs", COUNTER, "agent_meter.runs", "{run}", "agent_meter_runs_total", "Runs that ended, by status."),
        Metric(
            "iterations", HISTOGRAM, "agent_meter.run.iterations", "{call}", "agent_meter_run_iterations",
            "Model calls of a run, when it ended.",
        ),
        Metric(
            "budget_limit", GAUGE, "agent_meter.budget.limit", "", "agent_meter_budget_limit",
            "Limit of a budget, in its unit (usd, tokens, requests).",
        ),
        Metric(
            "budget_used", GAUGE, "agent_meter.budget.used", "", "agent_meter_budget_used",
            "What of a budget is spent in this window, in its unit.",
        ),
        Metric(
            "budget_reserved", GAUGE, "agent_meter.budget.reserved", "", "agent_meter_budget_reserved",
            "What of a budget is held for calls in flight, in its unit.",
        ),
        Metric(
            "budget_ratio", GAUGE, "agent_meter.budget.used_ratio", "1", "agent_meter_budget_used_ratio",
            "Spent of limit; 1 is all of it.",
        ),
        Metric(
            "failures", COUNTER, "agent_meter.failures", "{failure}", "agent_meter_failures_total",
            "Failures inside the meter, by plugin and hook.",
        ),
        Metric(
            "open_calls", GAUGE, "agent_meter.open_calls", "{call}", "agent_meter_open_calls",
            "Calls that are on their way.",
        ),
    )
}  # fmt: skip

# Tokens have a name in each family of the OpenTelemetry conventions. `stable`: the released one, a histogram of
# tokens a call by `gen_ai.token.type`. `latest`: counters, one for each class, by modality.
TOKEN_HISTOGRAM = "gen_ai.client.token.usage"  # noqa: S105 - the name of a metric
TOKEN_COUNTERS = {
    "input_tokens": "gen_ai.client.inference.usage.input_tokens",
    "output_tokens": "gen_ai.client.inference.usage.output_tokens",
    "cache_read_tokens": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.client.inference.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.client.inference.usage.reasoning.output_tokens",
}
SEMCONV = ("stable", "latest")

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
AGENT = "gen_ai.agent.name"
TOOL = "gen_ai.tool.name"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105
MODALITY = "gen_ai.token.modality"
ERROR_TYPE = "error.type"

# On the host's own span of a model call. The conventions have no cost yet: `stable` is what tools in use read,
# `latest` is the proposal (semantic-conventions-genai, pull request 443).
SPAN_COST = "gen_ai.usage.cost"
SPAN_COST_AMOUNT = "gen_ai.usage.cost.amount"
SPAN_COST_CURRENCY = "gen_ai.usage.cost.currency"
SPAN_COST_SOURCE = "gen_ai.usage.cost.source"
SPAN_COST_STATUS = "agent_meter.cost.status"
SPAN_RECORD = "agent_meter.record.id"
SPAN_SAVED = "agent_meter.cost.saved"
SPAN_BUDGET = "agent_meter.budget.name"
SPAN_BUDGET_RATIO = "agent_meter.budget.used_ratio"
INFERENCE = ("chat", "text_completion", "generate_content", "embeddings")
