"""What a span is to us, by the class of its object and the method: looked up once for each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import BasePydanticProgram
from workflows.events import Event

from .nodes import Role

_ASKS = frozenset(
    ("chat", "achat", "stream_chat", "astream_chat", "complete", "acomplete", "stream_complete", "astream_complete")
)
_STRUCTURED = frozenset(
    ("structured_predict", "astructured_predict", "stream_structured_predict", "astream_structured_predict")
)
_EMBEDS = frozenset(
    (
        "get_query_embedding",
        "aget_query_embedding",
        "get_text_embedding",
        "aget_text_embedding",
        "get_text_embedding_batch",
        "aget_text_embedding_batch",
    )
)
_TOOL = frozenset(("__call__", "call", "acall"))
_RETRIEVE = frozenset(("retrieve", "aretrieve"))
_QUERY = frozenset(("query", "aquery"))
_CHAT = frozenset(("chat", "achat", "stream_chat", "astream_chat"))
_RANK = frozenset(("_postprocess_nodes", "_apostprocess_nodes", "postprocess_nodes", "apostprocess_nodes"))

_roles: dict[tuple[type, str], int] = {}
_MOST = 8192


def role_of(instance: Any, method: str, arguments: Mapping[str, Any]) -> int:
    if instance is None:  # a step of a workflow is a function; what it is called with tells
        return Role.STEP if any(isinstance(value, Event) for value in arguments.values()) else Role.NOTHING
    key = (type(instance), method)
    role = _roles.get(key)
    if role is None:
        if len(_roles) >= _MOST:
            _roles.clear()
        role = _roles[key] = _role(instance, method, arguments)
    return role


def _role(instance: Any, method: str, arguments: Mapping[str, Any]) -> int:
    if isinstance(instance, BaseLLM):
        return Role.ASK if method in _ASKS else Role.STRUCTURED if method in _STRUCTURED else Role.NOTHING
    if isinstance(instance, BaseEmbedding):
        return Role.EMBED if method in _EMBEDS else Role.NOTHING
    if isinstance(instance, BaseTool):
        return Role.TOOL if method in _TOOL else Role.NOTHING
    if isinstance(instance, BaseNodePostprocessor):
        return Role.RANK if method in _RANK else Role.NOTHING
    if isinstance(instance, BasePydanticProgram):
        return Role.PROGRAM
    if isinstance(instance, BaseRetriever):
        return Role.RETRIEVE if method in _RETRIEVE else Role.NOTHING
    if isinstance(instance, BaseQueryEngine):
        return Role.QUERY if method in _QUERY else Role.NOTHING
    if isinstance(instance, BaseChatEngine):
        return Role.QUERY if method in _CHAT else Role.NOTHING
    return Role.RUN if method == "run" and "start_event" in arguments else Role.NOTHING
