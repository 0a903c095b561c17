"""A LlamaIndex agent, metered. Needs no API key and no network: `python examples/quickstart_llama_index.py`.

The model and the agent are the real ones (`pip install llama-index-llms-openai`) and so is the HTTP; only the provider
is a small server on 127.0.0.1 that answers from a script. Leave out `api_base` and nothing else changes.
"""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI

from agent_meter import BudgetExceeded, Meter, hookimpl
from agent_meter.adapters.llama_index import MeterHandler, tagged
from agent_meter.records import Call, Denial, Kind
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

SCRIPT = [
    Reply(
        tool_calls=[ToolCall("search", {"query": "pluggy"}), ToolCall("divide", {"number": 12})],
        input_tokens=900,
        output_tokens=60,
        cache_read_tokens=512,
    ),
    Reply("Very popular.", input_tokens=1_000, output_tokens=40, reasoning_tokens=32),
]


def search(query: str) -> str:
    """Look something up."""
    return f"3 articles about {query}"


def divide(number: int) -> str:
    """Divide a number by nothing."""
    return str(number // 0)


class OneQuestion:
    """A guard: two model calls are enough."""

    left = 2

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        if call.kind is not Kind.LLM:
            return None
        self.left -= 1
        return Denial("one question was paid for") if self.left < 0 else None


async def main() -> None:
    meter = Meter(plugins=[OneQuestion()])
    with LoopbackProvider(SCRIPT) as provider, MeterHandler(meter):
        llm = OpenAI(model="gpt-4o", api_base=provider.openai_base_url, api_key="none")
        agent = FunctionAgent(name="researcher", llm=llm, tools=[search, divide])

        with tagged(user_id="u1", team="search"):
            print(await agent.run("How popular is pluggy?"))
        try:
            await agent.run("And now?")
        except BudgetExceeded as denied:
            print(f"Denied before it was sent: {denied.denial.reason}.")

        served = provider.total.total_tokens
    print(f"The provider served {served:,} tokens; the meter says {meter.usage.total_tokens:,}.")
    print(meter.usage)
    for name, usage in meter.usage_by("agent").items():
        print(f"{name}: {usage.total_tokens:,} tokens, ${usage.cost_usd}")
    print(meter.analytics.summary())


if __name__ == "__main__":
    asyncio.run(main())
