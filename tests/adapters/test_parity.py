"""LangChain and an own loop come to the same totals for the same agent; the others do so in their environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests import parity

from agent_meter import Meter, ReplayCache


def test_langchain(loopback: Callable[..., Any]) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelRetryMiddleware
    from langchain_core.caches import InMemoryCache
    from langchain_core.tools import StructuredTool, ToolException
    from langchain_openai import ChatOpenAI

    from agent_meter.adapters.langchain import MeterCallback

    def divide(number: int) -> str:
        try:
            return parity.divide(number)
        except ZeroDivisionError as error:
            raise ToolException(str(error)) from error

    meter, provider = Meter(), loopback(parity.script())
    tools = [
        StructuredTool.from_function(parity.search, description=parity.TOOLS["search"]),
        StructuredTool.from_function(divide, description=parity.TOOLS["divide"], handle_tool_error=True),
    ]
    about = {"model": parity.MODEL, "base_url": provider.openai_base_url, "api_key": "none", "max_retries": 0}
    agent = create_agent(ChatOpenAI(**about), tools, middleware=[ModelRetryMiddleware(max_retries=1, initial_delay=0)])
    config = {"callbacks": [MeterCallback(meter)]}
    agent.invoke({"messages": [("user", parity.QUESTION)]}, config)
    cached = ChatOpenAI(**about, cache=InMemoryCache())
    for _ in range(2):
        cached.invoke(parity.FREQUENT, config)

    parity.assert_as_expected(meter, provider)


def test_an_own_loop(loopback: Callable[..., Any]) -> None:
    from openai import InternalServerError, OpenAI

    meter, provider = Meter(), loopback(parity.script())
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": parity.QUESTION}]
    tools = {"search": meter.tool(parity.search), "divide": meter.tool(parity.divide)}

    def ask(step: Any) -> Any:
        attempt = step.llm(parity.MODEL, provider="openai")
        while True:
            try:
                with attempt as call:
                    answer = client.chat.completions.create(model=parity.MODEL, messages=messages)
                    call.finish(answer)
                    return answer.choices[0].message
            except InternalServerError:
                attempt = attempt.again()

    with meter.run("agent") as run:
        while True:
            with run.step() as step:
                answer = ask(step)
                messages.append(answer)
                for call in answer.tool_calls or ():
                    try:
                        said = tools[call.function.name](**eval(call.function.arguments))
                    except ZeroDivisionError as error:
                        said = str(error)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
            if not answer.tool_calls:
                break

    cache = ReplayCache()
    create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
    for _ in range(2):
        create(model=parity.MODEL, messages=[{"role": "user", "content": parity.FREQUENT}])

    parity.assert_as_expected(meter, provider)
