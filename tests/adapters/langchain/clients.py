"""Real clients of a loopback provider, as the tests use them."""

from __future__ import annotations

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from agent_meter.testing import LoopbackProvider


def openai(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    defaults = {"model": "gpt-4o", "api_key": "none", "stream_usage": True, "max_retries": 0, "timeout": 20}
    return ChatOpenAI(base_url=provider.openai_base_url, **{**defaults, **options})


def anthropic(provider: LoopbackProvider, **options: Any) -> ChatAnthropic:
    defaults = {"model": "claude-sonnet-4-6", "api_key": "none", "max_retries": 0, "timeout": 20, "max_tokens": 1000}
    return ChatAnthropic(base_url=provider.anthropic_base_url, **{**defaults, **options})
