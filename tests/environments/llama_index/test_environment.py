"""LlamaIndex's own integration runs here, beside the meter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent_meter.testing import Reply


def test_llama_index_talks_to_the_loopback_provider(loopback: Callable[..., Any]) -> None:
    from llama_index.llms.openai import OpenAI

    provider = loopback([Reply("Hello", input_tokens=120, output_tokens=30)])
    answer = OpenAI(model="gpt-4o", api_base=provider.openai_base_url, api_key="none").complete("Hi")

    assert (answer.text, provider.total.total_tokens) == ("Hello", 150)
