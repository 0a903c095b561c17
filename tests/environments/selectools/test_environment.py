"""selectools runs here, beside the meter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_meter.testing import Reply


def test_a_selectools_agent_talks_to_the_loopback_provider(
    loopback: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selectools import Agent, AgentConfig
    from selectools.providers import OpenAIProvider

    provider = loopback([Reply("Hello", input_tokens=120, output_tokens=30)])
    monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_base_url)
    speaking = OpenAIProvider(api_key="none")
    agent = Agent(tools=[], provider=speaking, config=AgentConfig(model="gpt-4o"))
    result = agent.run("Hi")

    assert (result.content, agent.total_tokens) == ("Hello", provider.total.total_tokens)
