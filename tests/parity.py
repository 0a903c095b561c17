"""One scripted agent, whatever runs it: what it must come to, under every front end.

It has two tools, one of which fails; its first request is refused and made again; and it is asked a question twice
that its cache answers the second time. The front ends live in several environments: each runs its own against this.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agent_meter import Meter
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply, ToolCall

MODEL = "gpt-4o"
QUESTION, FREQUENT = "How popular is pluggy, by two?", "What is a meter?"
TOOLS = {"search": "Look something up.", "divide": "Divide a number by nothing."}


def search(query: str) -> str:
    return f"3 articles about {query}"


def divide(number: int) -> str:
    return str(number // 0)


def script() -> list[Any]:
    """What the provider answers, request by request; the frequent question comes last, and once."""
    calls = [ToolCall("search", {"query": "pluggy"}), ToolCall("divide", {"number": 12})]
    return [
        ErrorReply(503, should_retry=False),
        Reply(tool_calls=calls, input_tokens=1_000, output_tokens=50, cache_read_tokens=400),
        Reply("Very.", input_tokens=1_200, output_tokens=80, cache_read_tokens=1_000),
        Reply("It counts what is used.", input_tokens=31, output_tokens=7),
    ]


# gpt-4o: $2.50, $1.25 cached, $10.00 for a million.
_TURNS = Decimal("0.0015") + Decimal("0.0005") + Decimal("0.0005")
_TURNS += Decimal("0.0005") + Decimal("0.00125") + Decimal("0.0008")
_FREQUENT = Decimal("0.0000775") + Decimal("0.00007")
EXPECTED = {
    "requests": 5,
    "failed_requests": 1,
    "cached_requests": 1,
    "estimated_requests": 0,
    "unpriced_requests": 0,
    "input_tokens": 2_262,
    "output_tokens": 144,
    "cache_read_tokens": 1_400,
    "reasoning_tokens": 0,
    "total_tokens": 2_406,
    "cost_usd": _TURNS + 2 * _FREQUENT,
    "billed_cost_usd": _TURNS + _FREQUENT,
    "saved_cost_usd": _FREQUENT,
    "tool_usage": {"search": 1, "divide": 1},
    "tool_tokens": {"search": 525, "divide": 525},
}
EXPECTED_TOOLS = {"search": (1, 1, 0), "divide": (1, 0, 1)}
EXPECTED_DOCUMENT = {
    "total_tokens": 2_406,
    "total_prompt_tokens": 2_262,
    "total_completion_tokens": 144,
    "iterations": 5,
    "api_calls": 4,
    "list_pico": 5_345_000_000,
    "billed_pico": 5_197_500_000,
    "saved_pico": 147_500_000,
}


def assert_as_expected(meter: Meter, provider: LoopbackProvider) -> None:
    """The whole of `AgentUsage`, the counts of `ToolMetrics`, the cost, and that the provider counted the same."""
    usage = meter.usage
    tools = meter.analytics.get_all_metrics()

    assert {name: getattr(usage, name) for name in EXPECTED} == EXPECTED
    assert {
        name: (tool.total_calls, tool.successful_calls, tool.failed_calls) for name, tool in tools.items()
    } == EXPECTED_TOOLS
    document = usage.to_dict()
    assert {name: document[name] for name in EXPECTED_DOCUMENT} == EXPECTED_DOCUMENT
    assert provider.remaining == 0
    assert usage.total_tokens - provider.total.total_tokens == 38  # the replay
    assert meter.health()["open_calls"] == 0
    assert meter.health()["ok"]
