"""Agents of selectools that talk to a provider on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selectools import Agent, AgentConfig, RetryConfig, tool
from selectools.providers import OpenAIProvider

from agent_meter import Meter
from agent_meter.testing import LoopbackProvider


@pytest.fixture
def meter() -> Iterator[Meter]:
    with Meter() as meter:
        yield meter


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Callable[[LoopbackProvider], OpenAIProvider]:
    """selectools' provider of OpenAI, pointed at a loopback provider; the SDK's own retries are off."""

    def make(served: LoopbackProvider) -> OpenAIProvider:
        monkeypatch.setenv("OPENAI_BASE_URL", served.openai_base_url)
        provider = OpenAIProvider(api_key="none", default_model="gpt-4o")
        provider._client.max_retries = provider._async_client.max_retries = 0
        return provider

    return make


@tool(name="search", description="Look something up.")
def search(query: str) -> str:
    return f"found {query}"


@tool(name="divide", description="Divide by nothing.")
def divide(number: int) -> str:
    return str(number // 0)


@pytest.fixture
def agent() -> Callable[..., Agent]:
    """`agent(provider, observer, …)`: with two tools, one of which fails, and no waiting between attempts."""

    def make(provider: Any, *observers: Any, tools: Any = (search, divide), retries: int = 2, **config: Any) -> Agent:
        retry = RetryConfig(max_retries=retries, backoff_seconds=0.0, rate_limit_cooldown_seconds=0.0)
        settings = AgentConfig(model="gpt-4o", observers=list(observers), retry=retry, **config)
        return Agent(tools=list(tools), provider=provider, config=settings)

    return make
