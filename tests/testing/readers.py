"""Real clients, each asked one question: what usage do you see, and what tool calls?

A reader takes the provider and gives a `Read`; the async ones are coroutine functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from anthropic import Anthropic, AsyncAnthropic
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

from agent_meter import TokenUsage
from agent_meter.testing import LoopbackProvider

PROMPT = "What is the answer?"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
TOOLS = [{"name": "search", "description": "look it up", "input_schema": {"type": "object", "properties": {}}}]


class Read(NamedTuple):
    text: str
    usage: TokenUsage | None
    tools: list[tuple[str, dict[str, Any]]]
    model: str


def openai(provider: LoopbackProvider, kind: Any = OpenAI) -> Any:
    return kind(base_url=provider.openai_base_url, api_key="none", max_retries=0, timeout=10)


def ask(provider: LoopbackProvider, text: str = PROMPT, **options: Any) -> Any:
    """One chat completion of OpenAI's SDK."""
    turns = [{"role": "user", "content": text}]
    return openai(provider).chat.completions.create(model="gpt-4o", messages=turns, **options)


def anthropic(provider: LoopbackProvider, kind: Any = Anthropic) -> Any:
    return kind(base_url=provider.anthropic_base_url, api_key="none", max_retries=0, timeout=10)


def chat_openai(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    settings = {"stream_usage": True, "max_retries": 0, **options}
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", timeout=10, **settings)


def chat_anthropic(provider: LoopbackProvider, **options: Any) -> ChatAnthropic:
    settings = {"max_retries": 0, **options}
    url = provider.anthropic_base_url
    return ChatAnthropic(model="claude-sonnet-4-6", base_url=url, api_key="none", timeout=10, **settings)


# ----------------------------------------------------------------------------------------------- vendors' SDKs


def _chat_usage(usage: Any) -> TokenUsage | None:
    if usage is None:
        return None
    inputs, outputs = usage.prompt_tokens_details, usage.completion_tokens_details
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return TokenUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        inputs.cached_tokens,
        inputs.cache_write_tokens,
        0,
        outputs.reasoning_tokens,
    )


def _chat(answer: Any) -> Read:
    message = answer.choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return Read(message.content or "", _chat_usage(answer.usage), calls, answer.model)


def openai_chat(provider: LoopbackProvider) -> Read:
    return _chat(openai(provider).chat.completions.create(model="gpt-4o", messages=MESSAGES))


def openai_chat_stream(provider: LoopbackProvider) -> Read:
    """Through the SDK's own accumulator."""
    ask = {"model": "gpt-4o", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    with openai(provider).chat.completions.stream(**ask) as stream:
        return _chat(stream.get_final_completion())


async def openai_chat_async(provider: LoopbackProvider) -> Read:
    async with openai(provider, AsyncOpenAI) as client:
        return _chat(await client.chat.completions.create(model="gpt-4o", messages=MESSAGES))


async def openai_chat_stream_async(provider: LoopbackProvider) -> Read:
    ask = {"model": "gpt-4o", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    async with openai(provider, AsyncOpenAI) as client, client.chat.completions.stream(**ask) as stream:
        return _chat(await stream.get_final_completion())


def _responses(answer: Any) -> Read:
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    counts = TokenUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.input_tokens_details.cache_write_tokens,
        0,
        usage.output_tokens_details.reasoning_tokens,
    )
    calls = [(item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"]
    return Read(answer.output_text, counts, calls, answer.model)


def openai_responses(provider: LoopbackProvider) -> Read:
    return _responses(openai(provider).responses.create(model="gpt-4o", input=PROMPT))


def openai_responses_stream(provider: LoopbackProvider) -> Read:
    with openai(provider).responses.stream(model="gpt-4o", input=PROMPT) as stream:
        return _responses(stream.get_final_response())


async def openai_responses_async(provider: LoopbackProvider) -> Read:
    async with openai(provider, AsyncOpenAI) as client:
        return _responses(await client.responses.create(model="gpt-4o", input=PROMPT))


async def openai_responses_stream_async(provider: LoopbackProvider) -> Read:
    async with openai(provider, AsyncOpenAI) as client:
        async with client.responses.stream(model="gpt-4o", input=PROMPT) as stream:
            return _responses(await stream.get_final_response())


def _message(message: Any) -> Read:
    usage = message.usage
    writes = usage.cache_creation.ephemeral_5m_input_tokens + usage.cache_creation.ephemeral_1h_input_tokens
    assert usage.cache_creation_input_tokens == writes
    counts = TokenUsage(
        usage.input_tokens + usage.cache_read_input_tokens + writes,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        writes,
        usage.cache_creation.ephemeral_1h_input_tokens,
        usage.output_tokens_details.thinking_tokens,
    )
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    return Read(text, counts, calls, message.model)


ASK_CLAUDE = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": MESSAGES}


def anthropic_messages(provider: LoopbackProvider) -> Read:
    return _message(anthropic(provider).messages.create(**ASK_CLAUDE))


def anthropic_messages_stream(provider: LoopbackProvider) -> Read:
    with anthropic(provider).messages.stream(**ASK_CLAUDE) as stream:
        return _message(stream.get_final_message())


async def anthropic_messages_async(provider: LoopbackProvider) -> Read:
    async with anthropic(provider, AsyncAnthropic) as client:
        return _message(await client.messages.create(**ASK_CLAUDE))


async def anthropic_messages_stream_async(provider: LoopbackProvider) -> Read:
    async with anthropic(provider, AsyncAnthropic) as client, client.messages.stream(**ASK_CLAUDE) as stream:
        return _message(await stream.get_final_message())


# ---------------------------------------------------------------------------------------------------- LangChain


def _langchain(message: Any) -> Read:
    usage = message.usage_metadata
    if usage is None:
        return Read(message.text, None, [], message.response_metadata["model_name"])
    inputs, outputs = usage.get("input_token_details", {}), usage.get("output_token_details", {})
    hour = inputs.get("ephemeral_1h_input_tokens") or 0
    writes = (inputs.get("cache_creation") or 0) + (inputs.get("ephemeral_5m_input_tokens") or 0) + hour
    counts = TokenUsage(
        usage["input_tokens"],
        usage["output_tokens"],
        inputs.get("cache_read") or 0,
        writes,
        hour,
        outputs.get("reasoning") or 0,
    )
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    return Read(message.text, counts, calls, message.response_metadata["model_name"])


def _merged(chunks: list[Any]) -> Read:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return _langchain(whole)


def _invoke(make: Callable[..., Any], **options: Any) -> Any:
    def read(provider: LoopbackProvider) -> Read:
        return _langchain(make(provider, **options).bind_tools(TOOLS).invoke(PROMPT))

    return read


def _stream(make: Callable[..., Any], **options: Any) -> Any:
    def read(provider: LoopbackProvider) -> Read:
        return _merged(list(make(provider, **options).bind_tools(TOOLS).stream(PROMPT)))

    return read


def _ainvoke(make: Callable[..., Any], **options: Any) -> Any:
    async def read(provider: LoopbackProvider) -> Read:
        return _langchain(await make(provider, **options).bind_tools(TOOLS).ainvoke(PROMPT))

    return read


def _astream(make: Callable[..., Any], **options: Any) -> Any:
    async def read(provider: LoopbackProvider) -> Read:
        return _merged([chunk async for chunk in make(provider, **options).bind_tools(TOOLS).astream(PROMPT)])

    return read


MODES = {"invoke": _invoke, "stream": _stream, "ainvoke": _ainvoke, "astream": _astream}
LANGCHAIN = {
    "ChatOpenAI": (chat_openai, {}),
    "ChatOpenAI-responses": (chat_openai, {"use_responses_api": True}),
    "ChatAnthropic": (chat_anthropic, {}),
}

READERS: dict[str, Any] = {
    reader.__name__: reader
    for reader in (
        openai_chat, openai_chat_stream, openai_chat_async, openai_chat_stream_async,
        openai_responses, openai_responses_stream, openai_responses_async, openai_responses_stream_async,
        anthropic_messages, anthropic_messages_stream, anthropic_messages_async, anthropic_messages_stream_async,
    )
}  # fmt: skip
READERS |= {
    f"{client}-{mode}": make_reader(make, **options)
    for client, (make, options) in LANGCHAIN.items()
    for mode, make_reader in MODES.items()
}
