"""Real clients of a loopback provider, and a model that says what it is told to, as the tests use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from agent_meter import Meter, TokenUsage
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import LoopbackProvider


def openai(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    defaults = {"model": "gpt-4o", "api_key": "none", "stream_usage": True, "max_retries": 0, "timeout": 20}
    return ChatOpenAI(base_url=provider.openai_base_url, **{**defaults, **options})


def anthropic(provider: LoopbackProvider, **options: Any) -> ChatAnthropic:
    defaults = {"model": "claude-sonnet-4-6", "api_key": "none", "max_retries": 0, "timeout": 20, "max_tokens": 1000}
    return ChatAnthropic(base_url=provider.anthropic_base_url, **{**defaults, **options})


def usage(prompt: int, completion: int, **more: Any) -> Any:
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion, **more}


class Scripted(BaseChatModel):
    """Says what its script says, message by message, or chunk by chunk."""

    message: Any = None
    chunks: list[Any] = []
    about: dict[str, Any] = {}

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = self.message.model_copy(deep=True)
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output=dict(self.about))

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for usage in self.chunks:
            yield ChatGenerationChunk(message=AIMessageChunk("word ", usage_metadata=usage))


def counts(usage: TokenUsage | None) -> tuple[int, ...]:
    return () if usage is None else tuple(getattr(usage, name) for name in TOKEN_CLASSES)


def agrees(meter: Meter, provider: LoopbackProvider) -> bool:
    """Record for record what the provider served, whatever the order in which the answers came."""
    recorded = sorted(counts(record.usage) for record in meter.history())
    return bool(recorded) and recorded == sorted(counts(usage) for usage in provider.truth)
