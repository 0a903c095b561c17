"""A LangChain agent, metered live, and a runaway one, stopped at ten cents. No API key, no network: `make demo`.

The clients are the real ones (`ChatOpenAI`, `ChatAnthropic`) and so is the HTTP; only the provider is a small server
on 127.0.0.1 that answers from a script. Point `base_url` at the real ones and nothing else changes.
"""

from threading import Thread

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.tools import ToolException, tool
from langchain_openai import ChatOpenAI

from agent_meter import AgentObserver, Budget, BudgetExceeded, Meter, hookimpl
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.pricing import calculate_cost
from agent_meter.testing import LoopbackProvider, Reply, Request, ToolCall


class Ticker(AgentObserver):
    """One line for each call, as it happens."""

    def on_usage(self, run_id, usage):
        tokens = f"{usage.input_tokens:>6,} in {usage.output_tokens:>4,} out"
        parts = [
            (usage.cache_read_tokens, "cached"),
            (usage.cache_write_tokens, "written"),
            (usage.reasoning_tokens, "reasoning"),
        ]
        detail = ", ".join(f"{count:,} {word}" for count, word in parts if count)
        cost = "replayed, $0 billed" if usage.cached else f"${usage.cost_usd:.6f}"
        print(f"  {usage.agent:<10} {usage.model:<18} {tokens}  {cost:<20} {usage.duration * 1000:>5.0f} ms  {detail}")

    def on_tool_end(self, run_id, call_id, tool_name, result, duration_ms):
        print(f"  {'':<10} · {tool_name} ok, {duration_ms:.0f} ms")

    def on_tool_error(self, run_id, call_id, tool_name, error, tool_args, duration_ms):
        print(f"  {'':<10} · {tool_name} failed, {duration_ms:.0f} ms")


@tool
def search(query: str) -> str:
    """Search the archive."""
    if "2031" in query:
        raise ToolException("nothing from the future")
    return f"3 articles about {query}"


@tool
def calculate(expression: str) -> str:
    """Work out a product, such as 12*3."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


search.handle_tool_error = True


class Alarm:
    """One line for each threshold of a budget that is crossed."""

    @hookimpl
    def meter_alert(self, alert):
        print(f"  {alert}")


def main() -> None:
    count_everything()
    stop_a_runaway()


def count_everything() -> None:
    meter = Meter()
    meter.observe(Ticker())
    config = {"callbacks": [MeterCallback(meter)], "metadata": {"user_id": "ada"}}

    with LoopbackProvider(answer) as provider:
        gpt = ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none")
        claude = ChatAnthropic(model="claude-sonnet-4-6", base_url=provider.anthropic_base_url, api_key="none")
        writer = create_agent(claude, [], name="writer")

        @tool
        def write(outline: str) -> str:
            """Have the writer turn an outline into a text."""
            return writer.invoke({"messages": [("user", outline)]})["messages"][-1].text

        researcher = create_agent(gpt, [search, calculate, write], name="researcher")

        print("A researcher (OpenAI) with tools and a writer (Anthropic) as its sub-agent:\n")
        researcher.invoke({"messages": [("user", "How popular is pluggy?")]}, config)

        print("\nThe same question twice, with LangChain's cache on:\n")
        cached = ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", cache=InMemoryCache())
        for _ in range(2):
            with meter.scope(agent="faq"):
                cached.invoke("What is a meter?", config)
        served = provider.total

    print(meter.usage)
    print("By agent")
    for agent, usage in meter.usage_by("agent").items():
        print(f"  {agent or '(nobody)':<12} {usage.total_tokens:>6,} tokens  ${usage.cost_usd:.6f}")
    print(meter.analytics.summary())
    paid = meter.usage.total_tokens - sum(record.total_tokens for record in meter.history() if record.cached)
    print(f"The provider says it served {served.total_tokens:,} tokens; the meter says {paid:,} were paid for.")


def stop_a_runaway() -> None:
    """Eight threads improve a text for ever; together they may spend ten cents."""
    meter = Meter([Alarm()], budgets=[Budget("editing", usd="0.10", per="total", agent="editor")])
    config = {"callbacks": [MeterCallback(meter)]}
    refused = []

    def improve_for_ever(editor):
        text = DRAFT
        try:
            while True:
                turn = editor.invoke({"messages": [("user", f"Improve this: {text}")]}, config)
                text = turn["messages"][-1].text
        except BudgetExceeded as error:
            refused.append(error)

    print("\nA runaway loop in 8 threads, with a budget of $0.10:\n")
    with LoopbackProvider(never_good_enough) as provider:
        gpt = ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", max_tokens=150)
        editor = create_agent(
            gpt, [], name="editor", system_prompt="You are an editor. No text is good enough for you."
        )
        threads = [Thread(target=improve_for_ever, args=(editor,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        served = sum(calculate_cost("gpt-4o", usage.input_tokens, usage.output_tokens) for usage in provider.truth)
        calls = len(provider.requests)

    budget = meter.budgets.status("editing")
    print(
        f"\n  {len(refused)} threads were refused, the last one so:\n  {max(refused, key=lambda error: error.used)}\n"
    )
    print(f"The provider answered {calls} calls, ${served}; the meter says ${budget.used} of ${budget.limit:.2f}.")
    print(f"Spent / limit: {budget.used / budget.limit:.2f}. Held by calls in flight: ${budget.reserved}.")


DRAFT = "It counts what is used. " * 25


def never_good_enough(request: Request) -> Reply:
    """Another draft, $0.002 at gpt-4o's prices."""
    return Reply(DRAFT, input_tokens=200, output_tokens=150, delay=0.02)


def answer(request: Request) -> Reply:
    """The provider's script: search twice, calculate, have it written, conclude."""
    if request.dialect == "anthropic.messages":
        return Reply(
            "pluggy is small, and everywhere.",
            input_tokens=2_600,
            output_tokens=210,
            cache_read_tokens=2_048,
            cache_write_tokens=512,
        )
    if "What is a meter?" in request.last_text:
        return Reply("It counts what is used.", input_tokens=31, output_tokens=7)
    turns = [
        [ToolCall("search", {"query": "pluggy"}), ToolCall("search", {"query": "pluggy in 2031"})],
        [ToolCall("calculate", {"expression": "24*7"})],
        [ToolCall("write", {"outline": "pluggy: where it is used"})],
    ]
    turn = sum(message.get("role") == "assistant" for message in request.body["messages"])
    tokens = {"input_tokens": 420 + 160 * turn, "cache_read_tokens": 256 if turn else 0}
    if turn < len(turns):
        return Reply(tool_calls=turns[turn], output_tokens=42, reasoning_tokens=12, **tokens)
    return Reply("Very popular.", output_tokens=18, **tokens)


if __name__ == "__main__":
    main()
