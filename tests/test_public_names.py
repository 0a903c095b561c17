"""The names that others rely on: to add one is a decision, to lose one is a breach."""

from __future__ import annotations

import inspect
import pickle
from importlib import import_module
from typing import Any

import pytest

import agent_meter
from agent_meter import AgentUsage, Cost, Meter, TokenUsage, UsageRecord
from agent_meter.handles import LlmHandle, RunHandle, StepHandle, ToolHandle

NAMES = [
    "AgentAnalytics",
    "AgentObserver",
    "AgentUsage",
    "Alert",
    "AsyncAgentObserver",
    "Attempt",
    "Budget",
    "BudgetError",
    "BudgetExceeded",
    "CacheStats",
    "Call",
    "Cost",
    "CostBreakdown",
    "CostEstimator",
    "CostStatus",
    "Denial",
    "Installation",
    "Kind",
    "LoggingObserver",
    "Meter",
    "MeterError",
    "Model",
    "PluginError",
    "PriceBook",
    "PriceError",
    "Rates",
    "ReplayCache",
    "RunRecord",
    "SimpleStepObserver",
    "Status",
    "StepObserver",
    "StoreError",
    "TokenCounter",
    "TokenUsage",
    "ToolMetrics",
    "ToolRecord",
    "UnknownModel",
    "UsageRecord",
    "UsageStats",
    "UsageTracker",
    "WorkflowHooks",
    "WorkflowResult",
    "WorkflowState",
    "WorkflowStep",
    "__version__",
    "default_meter",
    "hookimpl",
    "install",
]


def public(owner: object) -> list[str]:
    return sorted(name for name in dir(owner) if not name.startswith("_"))


def test_the_front_door_has_exactly_these_names() -> None:
    assert agent_meter.__all__ == NAMES
    assert dir(agent_meter) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_imported(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from agent_meter import {name}", namespace)

    assert namespace[name] is getattr(agent_meter, name)


def test_everything_can_be_imported_at_once() -> None:
    namespace: dict[str, Any] = {}
    exec("from agent_meter import *", namespace)

    assert set(NAMES) <= set(namespace)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'agent_meter' has no attribute 'Budgett'"):
        agent_meter.Budgett  # type: ignore[attr-defined]  # noqa: B018


def test_an_alias_of_the_seed_documents_is_the_same_thing() -> None:
    assert agent_meter.UsageStats is UsageRecord
    assert agent_meter.CostBreakdown is Cost


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("agent_meter.replay", ["CacheKeyBuilder", "CacheReport", "CacheStats", "ReplayCache"]),
        ("agent_meter.testing", ["FakeClock", "LoopbackProvider", "RecordingPlugin", "Reply", "ToolCall"]),
        ("agent_meter.pricing", ["Rates", "PriceBook", "CostEstimator", "calculate_cost", "calculate_embedding_cost"]),
        ("agent_meter.tokens", ["TokenCounter"]),
        ("agent_meter.exporters", ["FORMATS", "Exported", "export"]),
        ("agent_meter.exporters.otel", ["OpenTelemetryMetrics"]),
        ("agent_meter.exporters.prometheus", ["PrometheusMetrics"]),
        ("agent_meter.importers", ["Imported", "import_file", "read"]),
        ("agent_meter.controls", ["Control", "Controls"]),
        ("agent_meter.shelf", ["FileShelf", "MemoryShelf", "Shelf", "shelf_of"]),
        ("agent_meter.budgets", ["Budget", "BudgetForecast", "BudgetStatus", "Budgets", "Engine", "MemoryEngine"]),
        ("agent_meter.adapters.payloads", ["read_usage"]),
        (
            "agent_meter.adapters.llama_index",
            ["MeterCallbackHandler", "MeterHandler", "MeteredEmbeddingCache", "tagged"],
        ),
        ("agent_meter.adapters.selectools", ["MeterObserver", "MeteredProvider"]),
        ("agent_meter.adapters.mamba", ["MeterWorkflowHooks"]),
    ],
)
def test_the_rooms_have_the_names_of_the_contract(room: str, names: list[str]) -> None:
    module = import_module(room)

    assert all(hasattr(module, name) for name in names)


def test_a_meter_has_the_methods_of_the_contract() -> None:
    expected = {
        "alerts", "analytics", "aopen", "budgets", "close", "controls", "detach", "expire", "flush", "forecast",
        "health", "history", "llm", "observe", "open", "plugins", "prices", "record_tool_call", "record_usage",
        "register", "replay", "reset", "run", "scope", "shelf", "shutdown", "status", "step", "tool", "top", "tree",
        "unregister", "usage", "usage_by", "with_installed_plugins",
    }  # fmt: skip

    assert expected <= set(public(Meter()))


def test_positions_and_names_of_arguments_are_those_of_the_contract() -> None:
    def parameters(function: Any) -> list[str]:
        return [str(parameter).split(":")[0] for parameter in inspect.signature(function).parameters.values()]

    assert parameters(Meter().record_tool_call)[:6] == [
        "tool_name",
        "success",
        "duration",
        "params",
        "cost",
        "chunk_count",
    ]
    assert parameters(Meter().usage_by) == ["*dimensions"]
    assert parameters(Meter().history) == ["limit", "include_denied"]
    assert parameters(Meter().top)[:2] == ["dimension", "n"]
    assert parameters(AgentUsage().add_usage) == ["stats", "tool_name"]
    given = set(inspect.signature(Meter().record_usage).parameters)
    assert given >= {"model", "provider", "kind", "cached", "duration", "started_at", "id", "response_id"}
    assert given >= set(TokenUsage.__struct_fields__) - {"reported_pico"}
    assert all(
        parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD
        for parameter in inspect.signature(Meter().record_usage).parameters.values()
    )


@pytest.mark.parametrize(
    ("handle", "names"),
    [
        (RunHandle, {"id", "llm", "record", "result", "step", "thought", "tool", "usage"}),
        (StepHandle, {"id", "llm", "record", "result", "step_number", "thought", "tool", "usage"}),
        (LlmHandle, {"again", "finish", "first_token", "id", "record", "stream"}),
        (ToolHandle, {"chunk", "cost", "fail", "id", "record", "result"}),
    ],
)
def test_blocks_have_the_methods_of_the_contract(handle: type, names: set[str]) -> None:
    assert names <= set(public(handle))


def test_the_nouns_have_the_names_of_the_contract() -> None:
    usage_record = {
        "agent", "attempt", "billed_cost_usd", "cached", "completion_tokens", "cost", "cost_usd", "duration",
        "embedding_cost_usd", "embedding_tokens", "error_type", "estimated", "framework", "id", "kind", "model",
        "parent_id", "prompt_tokens", "provider", "request_model", "response_id", "response_model", "run_id",
        "session", "started_at", "status", "step", "streamed", "tags", "task", "time_to_first_token", "timestamp",
        "tool_name", "total_tokens", "usage", "user",
    }  # fmt: skip
    agent_usage = {
        "add_usage", "billed_cost_usd", "completion_cost", "completion_tokens", "cost_usd", "embedding_cost_usd",
        "input_tokens", "iterations", "merge", "output_tokens", "prompt_cost", "prompt_tokens", "request_count",
        "requests", "saved_cost_usd", "to_dict", "tool_tokens", "tool_usage", "total_completion_tokens",
        "total_cost_usd", "total_embedding_cost_usd", "total_embedding_tokens", "total_prompt_tokens",
        "total_tokens", "unpriced_requests",
    }  # fmt: skip

    assert usage_record <= set(public(UsageRecord))
    assert agent_usage <= set(public(AgentUsage))
    assert {"amount", "completion_cost", "model", "prompt_cost", "status", "total_cost"} <= set(public(Cost))
    assert {"completion_tokens", "prompt_tokens", "total_tokens", "uncached_input_tokens"} <= set(public(TokenUsage))


def test_the_version_is_a_version() -> None:
    assert [part.isdigit() for part in agent_meter.__version__.split(".")[:2]] == [True, True]


def test_public_values_pickle_under_their_public_names() -> None:
    assert pickle.loads(pickle.dumps(AgentUsage())) == AgentUsage()
    assert pickle.loads(pickle.dumps(TokenUsage(1))) == TokenUsage(1)
