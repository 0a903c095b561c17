"""A selectools agent, metered, with a budget that stops it. Needs no key and no network.

    python environments/test.py selectools     # makes .venv-selectools
    .venv-selectools/bin/python examples/selectools_agent.py

The client is the real one and so is the HTTP; only the provider is a small server on 127.0.0.1. Leave `OPENAI_BASE_URL`
alone and nothing else changes.
"""

import os

from selectools import Agent, AgentConfig, InMemoryCache, tool
from selectools.providers import OpenAIProvider

from agent_meter import Budget, BudgetExceeded, Meter
from agent_meter.adapters.selectools import MeteredProvider, MeterObserver
from agent_meter.testing import LoopbackProvider, Reply, ToolCall


@tool(name="search", description="Search the archive.")
def search(query: str) -> str:
    return f"3 articles about {query}"


@tool(name="divide", description="Divide a number by nothing.")
def divide(number: int) -> str:
    return str(number // 0)


def answer(request):
    """The provider's script: ask for both tools, then answer."""
    if any(message["role"] == "tool" for message in request.body["messages"]):
        return Reply("Very.", input_tokens=1_200, output_tokens=80, cache_read_tokens=1_000)
    calls = [ToolCall("search", {"query": "pluggy"}), ToolCall("divide", {"number": 12})]
    return Reply(tool_calls=calls, input_tokens=1_000, output_tokens=50)


def main() -> None:
    meter = Meter(budgets=[Budget("desk", requests=4, per="run", agent="librarian"), Budget("day", usd=5)])
    with LoopbackProvider(answer) as served:
        os.environ["OPENAI_BASE_URL"] = served.openai_base_url
        provider = MeteredProvider(OpenAIProvider(api_key="none"), meter)
        config = AgentConfig(model="gpt-4o", observers=[MeterObserver(meter)], cache=InMemoryCache())
        agent = Agent(tools=[search, divide], provider=provider, config=config)

        with meter.scope(agent="librarian", user="ada"):
            print(agent.run("How popular is pluggy?").content)
            agent.reset()
            print(agent.run("How popular is pluggy?").content, "(from selectools' cache)")

        meter.budgets.add(Budget("closed", requests=0))
        try:
            Agent(tools=[], provider=provider, config=AgentConfig(model="gpt-4o")).run("One more?")
        except BudgetExceeded as refused:
            print("refused before it was sent:", refused)
        print(f"{len(served.requests)} requests, {served.total.total_tokens:,} tokens by the provider's count")

    print(meter.usage)
    print(meter.analytics.summary())


if __name__ == "__main__":
    main()
