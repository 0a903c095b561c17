"""A mamba-agents workflow, metered: its run, its steps, and each request in them. Needs no key and no network.

    python environments/test.py mamba     # makes .venv-mamba; needs Python 3.12 or 3.13
    .venv-mamba/bin/python examples/mamba_workflow.py

The client is the real one and so is the HTTP; only the provider is a small server on 127.0.0.1. Leave out `base_url`
and nothing else changes. (mamba-agents itself counts with a file that tiktoken fetches once; the first lines of
`main` do without.)
"""

import tiktoken.registry
from mamba_agents import Agent
from mamba_agents.workflows.react import ReActHooks, ReActWorkflow
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.toolsets import FunctionToolset

from agent_meter import Budget, Meter
from agent_meter.adapters.mamba import MeteredModel, MeteredToolset, MeterWorkflowHooks
from agent_meter.testing import LoopbackProvider, Reply, ToolCall


def search(query: str) -> str:
    """Search the archive."""
    return f"3 articles about {query}"


def log_usage(state, step):
    used = state.metadata["usage"]
    print(f"step {step.step_number}: {used['requests']} requests, {used['tokens']:,} tokens, ${used['cost_usd']}")


def main() -> None:
    bytewise = {bytes([value]): value for value in range(256)}
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        "cl100k_base", pat_str=r".+", mergeable_ranks=bytewise, special_tokens={}
    )
    meter = Meter(budgets=[Budget("workflow", usd=1, per="run")])
    script = [
        Reply("I should look it up.", input_tokens=400, output_tokens=20),
        Reply(tool_calls=[ToolCall("search", {"query": "pluggy"})], input_tokens=1_000, output_tokens=50),
        Reply(tool_calls=[ToolCall("final_answer", {"answer": "Very."})], input_tokens=1_200, output_tokens=80),
        Reply("Done.", input_tokens=1_400, output_tokens=5),
    ]
    with LoopbackProvider(script) as served:
        provider = OpenAIProvider(base_url=served.openai_base_url, api_key="none")
        model = MeteredModel(OpenAIChatModel("gpt-4o", provider=provider), meter)
        agent = Agent(model, toolsets=[MeteredToolset(FunctionToolset([search]), meter)])
        hooks = MeterWorkflowHooks(meter, hooks=ReActHooks(on_step_complete=log_usage))
        with meter.scope(agent="librarian", user="ada"):
            result = ReActWorkflow(agent, hooks=hooks).run_sync("How popular is pluggy?")
        print("answer:", result.output)
        print(f"{len(served.requests)} requests, {served.total.total_tokens:,} tokens by the provider's count")

    print(meter.usage)
    print(meter.analytics.summary())


if __name__ == "__main__":
    main()
