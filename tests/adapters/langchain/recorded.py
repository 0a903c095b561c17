"""Recorded conversations, asked for again through LangChain's own clients, and what a record may say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_meter import UsageRecord

APIS = ("openai.chat", "openai.responses", "anthropic.messages")
# The corpus's name of each class of token, and ours.
CLASSES = {
    "input_total": "input_tokens",
    "output_total": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "audio_in": "input_audio_tokens",
    "audio_out": "output_audio_tokens",
}


def client(server: Any, document: Mapping[str, Any], index: int) -> Any:
    """The client for one interaction of a conversation."""
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    interaction, truth = document["interactions"][index], document["truth"][index]
    options: dict[str, Any] = {
        "model": truth.get("model_requested") or truth["model"] or "some-model",
        "base_url": server.base_url(document["id"]),
        "api_key": "none",
        "max_retries": 0,
        "timeout": 20,
    }
    if interaction["api"] == "anthropic.messages":
        return ChatAnthropic(max_tokens=1000, **options)
    return ChatOpenAI(use_responses_api=interaction["api"] == "openai.responses", stream_usage=True, **options)


def ask(model: Any, stream: bool, config: Any, question: Any = "hello") -> Exception | None:
    """One call; what the client made of an error, or of an answer that it cannot read."""
    try:
        if stream:
            for _ in model.stream(question, config):
                pass
        else:
            model.invoke(question, config)
    except Exception as error:
        return error
    return None


async def aask(model: Any, stream: bool, config: Any, question: Any = "hello") -> Exception | None:
    try:
        if stream:
            async for _ in model.astream(question, config):
                pass
        else:
            await model.ainvoke(question, config)
    except Exception as error:
        return error
    return None


def wrong(record: UsageRecord, truth: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The classes of token in which a record differs from what the provider said: (recorded, said)."""
    usage = record.usage
    return {
        ours: (0 if usage is None else getattr(usage, ours), truth[theirs])
        for theirs, ours in CLASSES.items()
        if truth.get(theirs) is not None and truth[theirs] != (0 if usage is None else getattr(usage, ours))
    }
