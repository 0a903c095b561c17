"""The seed document "Token Tracking" (mamba-agents), snippet by snippet, through our names.

Deviations, and why:

* `Agent(...)` and `ReActWorkflow(...)`: we have no agent class; `Agent` here is an own loop (`tests/seeds/agent.py`),
  and what the document asks of an agent (`get_usage`, `get_cost`, `get_usage_history`, `reset_tracking`) is asked of
  its meter (`usage`, `usage.total_cost`, `history`, `reset`).
* "Requests": the document says API calls, the package counts runs. We count calls; where each run is one call, as in
  the snippet, both are 3.
* `breakdown.model`: totals have no one model; a record's cost has. `breakdown` here is a record's.
* `AgentSettings(cost_rates=…)` is `Meter(cost_rates=…)`; the environment snippet is empty in the document: ours is
  `AGENT_METER_COST_RATES`.
* `agent.get_token_count(text)` is a `TokenCounter`, without an argument `count_messages` of the context.
* Imports from `mamba_agents.tokens` are imports from `agent_meter`. `TokenCounter(encoding=…)`,
  `record_usage(input_tokens=…)`, `get_summary`, `get_history`, `estimate(input_tokens=…)` raise in the package; here
  they work as printed.
* `estimator.get_rate(model)` answers with `Rates`, for a model has more than one number; the blended one is
  `.blended_per_1k`.
* Costs are `Decimal` and print the same; `$0.0001` in "Request completed" is followed by the model and the time.
* The reset keeps the context: it never was the meter's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from tests.seeds.agent import Agent

from agent_meter import CostEstimator, Meter, TokenCounter, UsageTracker, WorkflowHooks
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

Start = Callable[..., LoopbackProvider]
REPLIES = [
    Reply("Hi!", input_tokens=110, output_tokens=10),
    Reply("A language.", input_tokens=200, output_tokens=20),
    Reply("Functions on functions.", input_tokens=300, output_tokens=30),
]


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def agent(loopback: Start, meter: Meter) -> Agent:
    """The agent of the first snippet, after its three queries."""
    agent = Agent("gpt-4o", loopback(REPLIES), meter)
    # Run some queries
    agent.run("Hello!")
    agent.run("Tell me about Python")
    agent.run("What are decorators?")
    return agent


Printed = pytest.CaptureFixture[str]


def test_built_in_tracking(agent: Agent, meter: Meter, capsys: Printed) -> None:
    # Get aggregate usage
    usage = meter.usage
    print(f"Total tokens: {usage.total_tokens}")
    print(f"Prompt tokens: {usage.prompt_tokens}")
    print(f"Completion tokens: {usage.completion_tokens}")
    print(f"Requests: {usage.request_count}")

    assert capsys.readouterr().out == "Total tokens: 670\nPrompt tokens: 610\nCompletion tokens: 60\nRequests: 3\n"


def test_cost_estimation(agent: Agent, meter: Meter, capsys: Printed) -> None:
    # Get total cost
    cost = meter.usage.total_cost
    print(f"Estimated cost: ${cost:.4f}")

    # Get detailed breakdown
    breakdown = meter.history()[0].cost
    print(f"Prompt cost: ${breakdown.prompt_cost:.4f}")
    print(f"Completion cost: ${breakdown.completion_cost:.4f}")
    print(f"Total cost: ${breakdown.total_cost:.4f}")
    print(f"Model: {breakdown.model}")

    # 610 × $2.50 + 60 × $10.00 for 1M; then the first call alone.
    assert capsys.readouterr().out.splitlines() == [
        "Estimated cost: $0.0021",
        "Prompt cost: $0.0003",
        "Completion cost: $0.0001",
        "Total cost: $0.0004",
        "Model: gpt-4o",
    ]
    assert meter.usage.prompt_cost + meter.usage.completion_cost == cost == Decimal("0.002125")


@pytest.mark.parametrize(
    ("model", "input_rate", "output_rate"),
    [
        ("gpt-4o", "2.50", "10.00"),
        ("gpt-4o-mini", "0.15", "0.60"),
        ("gpt-4-turbo", "10.00", "30.00"),
        ("gpt-3.5-turbo", "0.50", "1.50"),
        ("claude-3-5-sonnet", "3.00", "15.00"),
        ("claude-3-opus", "15.00", "75.00"),
        ("ollama/llama3.1", "0.00", "0.00"),  # Local models
    ],
)
def test_default_pricing(model: str, input_rate: str, output_rate: str, meter: Meter) -> None:
    provider, _, name = model.rpartition("/")
    record = meter.record_usage(model=name, provider=provider or None, input_tokens=1_000_000, output_tokens=1_000_000)

    assert (record.cost.prompt_cost, record.cost.completion_cost) == (Decimal(input_rate), Decimal(output_rate))


def test_custom_cost_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(
        cost_rates={
            "my-custom-model": 0.001,  # Per 1000 tokens
        }
    )
    assert meter.record_usage(model="my-custom-model", input_tokens=1000, output_tokens=500).cost_usd == Decimal(
        "0.0015"
    )

    # Or via environment:
    monkeypatch.setenv("AGENT_METER_COST_RATES", '{"my-custom-model": 0.001}')
    assert Meter().record_usage(model="my-custom-model", input_tokens=1000).cost_usd == Decimal("0.001")


def test_usage_history(loopback: Start, meter: Meter, capsys: Printed) -> None:
    script = [Reply(tool_calls=[ToolCall("search", {"q": "x"})], input_tokens=50, output_tokens=5), REPLIES[0]]
    Agent("gpt-4o", loopback(script), meter, tools=(search,)).run("Hello!")

    history = meter.history()
    for record in history:
        print(f"Time: {record.timestamp}")
        print(f"Prompt tokens: {record.prompt_tokens}")
        print(f"Completion tokens: {record.completion_tokens}")
        print(f"Total: {record.total_tokens}")
        print(f"Model: {record.model}")
        if record.tool_name:
            print(f"Tool: {record.tool_name}")
        print("---")

    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Time: ")]
    assert printed == [
        "Prompt tokens: 50", "Completion tokens: 5", "Total: 55", "Model: gpt-4o", "Tool: search", "---",
        "Prompt tokens: 110", "Completion tokens: 10", "Total: 120", "Model: gpt-4o", "---",
    ]  # fmt: skip
    assert history[0].timestamp.tzinfo is not None


def search(q: str) -> str:
    return f"found {q}"


def test_token_counting(agent: Agent, capsys: Printed) -> None:
    # Count tokens in text
    count = TokenCounter(model=agent.model).count("Hello, how are you today?")
    print(f"Tokens: {count}")

    # Count current context
    context_tokens = TokenCounter(model=agent.model).count_messages(agent.messages)
    print(f"Context tokens: {context_tokens}")

    first, second = capsys.readouterr().out.splitlines()
    assert first == "Tokens: 7"
    assert int(second.removeprefix("Context tokens: ")) > 6 * 4


def test_reset_tracking(agent: Agent, meter: Meter) -> None:
    # Reset usage tracking (keeps context)
    meter.reset()

    assert (meter.usage.total_tokens, meter.history(), len(agent.messages)) == (0, [], 6)


def test_token_counter() -> None:
    counter = TokenCounter(encoding="cl100k_base")

    # Count tokens in text
    count = counter.count("Hello, world!")

    # Count tokens in messages
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi there!"},
    ]
    in_messages = counter.count_messages(messages)

    assert (count, in_messages > counter.count("Hello") + counter.count("Hi there!")) == (4, True)


def test_usage_tracker(capsys: Printed) -> None:
    tracker = UsageTracker()

    # Record usage
    tracker.record_usage(
        input_tokens=100,
        output_tokens=50,
        model="gpt-4o",
    )

    # Get summary
    summary = tracker.get_summary()
    print(f"Total: {summary.total_tokens}")

    # Get history
    history = tracker.get_history()

    # Reset
    tracker.reset()

    assert capsys.readouterr().out == "Total: 150\n"
    assert [(record.model, record.total_tokens) for record in history] == [("gpt-4o", 150)]
    assert (summary.total_tokens, tracker.get_summary().total_tokens, tracker.get_history()) == (150, 0, [])


def test_cost_estimator(capsys: Printed) -> None:
    estimator = CostEstimator()

    # Estimate cost
    cost = estimator.estimate(
        input_tokens=1000,
        output_tokens=500,
        model="gpt-4o",
    )
    print(f"Cost: ${cost.total_cost:.4f}")

    # Get rate for a model
    rate = estimator.get_rate("gpt-4o")

    # Set custom rate
    estimator.set_rate("my-model", 0.002)

    # Get all rates
    all_rates = estimator.get_all_rates()

    assert capsys.readouterr().out == "Cost: $0.0075\n"
    assert (rate.input, rate.output) == (Decimal("2.5"), Decimal(10))
    assert estimator.estimate(input_tokens=1000, output_tokens=500, model="my-model").total_cost == Decimal("0.003")
    assert {"gpt-4o", "my-model"} <= set(all_rates)


def test_integration_with_workflows(loopback: Start, meter: Meter, capsys: Printed) -> None:
    agent = Agent("gpt-4o", loopback(REPLIES), meter)
    with meter.run("workflow") as workflow:
        agent.run("Research Python best practices")

    # Access usage through workflow
    usage = workflow.usage
    cost = workflow.usage.total_cost
    print(f"Workflow cost: ${cost:.4f}")

    assert (usage.total_tokens, capsys.readouterr().out) == (120, "Workflow cost: $0.0004\n")


def test_logging_usage(loopback: Start, meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent("gpt-4o", loopback([Reply("Hi!", input_tokens=42, output_tokens=3)]), meter)
    with caplog.at_level(logging.INFO, logger="agent_meter"):
        agent.run("Hello")
    # Usage is logged automatically

    (line,) = [record for record in caplog.records if record.name == "agent_meter"]
    assert (line.levelname, line.getMessage().split(" (")[0]) == ("INFO", "Request completed: 45 tokens, $0.0001")


def test_usage_callbacks(loopback: Start, meter: Meter, capsys: Printed) -> None:
    def log_usage(state: Any, step: Any) -> None:
        usage = state.context.get("usage", {})
        print(f"Step {step.step_number} used {usage.get('tokens', 0)} tokens")

    hooks = WorkflowHooks(on_step_complete=log_usage)
    meter.observe(hooks)
    script = [Reply(tool_calls=[ToolCall("search", {"q": "x"})], input_tokens=50, output_tokens=5), REPLIES[0]]
    Agent("gpt-4o", loopback(script), meter, tools=(search,)).run("Hello!")

    assert capsys.readouterr().out == "Step 1 used 55 tokens\nStep 2 used 120 tokens\n"
    assert meter.health()["ok"]


def test_monitor_costs_in_production(agent: Agent, meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    logger, budget_limit = logging.getLogger("production"), Decimal("0.002")
    # After each run
    cost = meter.usage.total_cost
    if cost > budget_limit:
        logger.warning(f"Cost ${cost:.4f} exceeded budget ${budget_limit}")

    assert caplog.messages[-1] == "Cost $0.0021 exceeded budget $0.002"


def test_reset_tracking_periodically(loopback: Start, meter: Meter) -> None:
    agent = Agent("gpt-4o", loopback(REPLIES, loop=True), meter)
    logged: dict[str, int] = {}

    # Per-session tracking
    def handle_session(user_id: str) -> None:
        meter.reset()
        # Process requests...
        with meter.scope(user=user_id):
            agent.run("Hello!")
        # Log session usage
        usage = meter.usage
        logged[user_id] = usage.total_tokens

    handle_session("ada")
    handle_session("bob")

    assert logged == {"ada": 120, "bob": 220}


def test_use_cheaper_models_for_high_volume(loopback: Start, meter: Meter) -> None:
    def is_simple_task(query: str) -> bool:
        return len(query) < 10

    for query in ("Hi", "Prove the theorem"):
        # Route based on task complexity
        if is_simple_task(query):
            agent = Agent("gpt-4o-mini", loopback(REPLIES), meter)  # Cheaper
        else:
            agent = Agent("gpt-4o", loopback(REPLIES), meter)  # More capable
        agent.run(query)

    by_model = meter.usage_by("model")
    assert by_model["gpt-4o-mini"].cost_usd < by_model["gpt-4o"].cost_usd
