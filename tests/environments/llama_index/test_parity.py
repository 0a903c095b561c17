"""LlamaIndex comes to the same totals for the same agent as the other front ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from openai import InternalServerError
from tests import parity

from agent_meter import Meter, ReplayCache
from agent_meter.adapters.llama_index import MeterHandler


def test_llama_index(loopback: Callable[..., Any]) -> None:
    meter, provider = Meter(), loopback(parity.script())
    model = OpenAI(model=parity.MODEL, api_base=provider.openai_base_url, api_key="none", max_retries=0)
    tools = [
        FunctionTool.from_defaults(function, description=parity.TOOLS[function.__name__])
        for function in (parity.search, parity.divide)
    ]
    agent = FunctionAgent(tools=tools, llm=model, streaming=False)

    async def ask() -> None:
        for _ in range(2):  # FunctionAgent does not try again by itself
            try:
                await agent.run(parity.QUESTION)
            except InternalServerError:
                continue
            return

    cache = ReplayCache()
    frequent = cache.replayed(meter, metered=True)(lambda question: str(model.complete(question)))
    with MeterHandler(meter):
        asyncio.run(ask())
        for _ in range(2):
            frequent(parity.FREQUENT)

    parity.assert_as_expected(meter, provider)
