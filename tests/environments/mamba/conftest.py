"""Agents of mamba-agents that talk to a provider on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import tiktoken
import tiktoken.registry
from mamba_agents import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_meter import Meter
from agent_meter.testing import LoopbackProvider, RecordingPlugin


@pytest.fixture(scope="session", autouse=True)
def _encodings() -> None:
    """mamba-agents counts its own context with a file that tiktoken would fetch; a token a byte will do here."""
    for name in ("cl100k_base", "o200k_base"):
        tiktoken.registry.ENCODINGS[name] = tiktoken.Encoding(
            name, pat_str=r".+", mergeable_ranks={bytes([value]): value for value in range(256)}, special_tokens={}
        )


@pytest.fixture
def meter() -> Iterator[Meter]:
    with Meter() as meter:
        yield meter


@pytest.fixture
def heard(meter: Meter) -> RecordingPlugin:
    meter.register(plugin := RecordingPlugin())
    return plugin


@pytest.fixture
def model() -> Callable[[LoopbackProvider], OpenAIChatModel]:
    """pydantic-ai's model of OpenAI, pointed at a loopback provider; the SDK's own retries are off."""

    def make(served: LoopbackProvider) -> OpenAIChatModel:
        # pydantic-ai keeps one client a process, and each `run_sync` of a workflow has an event loop of its own.
        client = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0))
        provider = OpenAIProvider(base_url=served.openai_base_url, api_key="none", http_client=client)
        provider.client.max_retries = 0
        return OpenAIChatModel("gpt-4o", provider=provider)

    return make


def search(query: str) -> str:
    """Look something up."""
    return f"found {query}"


def divide(number: int) -> str:
    """Divide by nothing."""
    return str(number // 0)


@pytest.fixture
def agent() -> Callable[..., Agent[Any, Any]]:
    """`agent(model)`: with two tools, one of which fails."""

    def make(model: Any, *, tools: Any = (search, divide), **options: Any) -> Agent[Any, Any]:
        return Agent(model, tools=list(tools) or None, **options)

    return make
