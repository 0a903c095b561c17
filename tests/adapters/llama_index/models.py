"""Models that answer at once, as integrations of LlamaIndex do: native, built on completions, and with tools."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection


def raw(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """An answer in OpenAI's words."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    return {"id": "r1", "object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], "usage": usage}


class Completing(CustomLLM):
    """Everything is built on `complete`, and every call is a model inside a model."""

    model: str = "gpt-4o"
    asked: list[str] = []
    fails: bool = False
    mute: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.asked.append(prompt)
        if self.fails:
            raise ValueError("no")
        return CompletionResponse(text="yes", raw=None if self.mute else raw(12, 3))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def gen() -> Any:
            self.asked.append(prompt)
            yield CompletionResponse(text="y", delta="y", raw={"choices": [{"delta": {}}]})
            yield CompletionResponse(text="yes", delta="es", raw={"choices": [{"finish_reason": "stop"}]})
            yield CompletionResponse(text="yes", delta="", raw=raw(12, 3))

        return gen()


class Turn(SimpleNamespace):
    """What a scripted model says in one turn."""

    text: str
    tools: list[tuple[str, dict[str, Any]]]


def turn(text: str = "", *tools: tuple[str, dict[str, Any]]) -> Turn:
    return Turn(text=text, tools=list(tools))


class Scripted(FunctionCallingLLM):
    """Says what its script says, turn by turn, in native chat with tool calls."""

    turns: list[Any] = []
    asked: int = 0
    name: str = "gpt-4o"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.name, is_chat_model=True, is_function_calling_model=True)

    def _next(self) -> ChatResponse:
        said = self.turns[min(self.asked, len(self.turns) - 1)]
        self.asked += 1
        if isinstance(said, BaseException):
            raise said
        blocks: list[Any] = [
            ToolCallBlock(tool_call_id=f"call-{self.asked}-{n}", tool_name=name, tool_kwargs=kwargs)
            for n, (name, kwargs) in enumerate(said.tools)
        ]
        message = ChatMessage(role=MessageRole.ASSISTANT, content=said.text)
        message.blocks.extend(blocks)
        return ChatResponse(message=message, delta=said.text, raw=raw(100 * self.asked, 10))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._next()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._next()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        def gen() -> Any:
            yield self._next()

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def gen() -> Any:
            yield self._next()

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer = self.chat([ChatMessage(role=MessageRole.USER, content=prompt)])
        return CompletionResponse(text=answer.message.content or "", raw=answer.raw)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _prepare_chat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kw: Any) -> Any:
        messages = list(chat_history or [])
        if user_msg is not None:
            asked = user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(role="user", content=user_msg)
            messages.append(asked)
        return {"messages": messages, "tools": [{"name": tool.metadata.name} for tool in tools]}

    def get_tool_calls_from_response(self, response: ChatResponse, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        return [
            ToolSelection(tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=block.tool_kwargs)
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]


class Client:
    """An embedding service's client, and what it was sent."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []

    def embed(self, texts: list[str]) -> Any:
        self.sent.append(texts)
        return {"model": "text-embedding-3-small", "usage": {"prompt_tokens": 7 * len(texts), "total_tokens": 0}}


class Embedding(BaseEmbedding):
    """Vectors of nothing; with a client it has an answer that says what was used."""

    model_name: str = "text-embedding-3-small"
    client: Any = None
    sent: list[list[str]] = []

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.sent.append(list(texts))
        if self.client is not None:
            self.client.embed(texts)
        return [[1.0, 0.0] for _ in texts]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]
