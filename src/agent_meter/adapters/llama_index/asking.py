"""What LlamaIndex says of a call before it is made: which model is asked, and whose call it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...records import EMPTY, Call, FrozenMap, Model

# Tags that name somebody, the most explicit first.
USER = ("user_id", "user")
SESSION = ("session_id", "thread_id", "session", "conversation_id")
TASK = ("task", "task_id")
AGENT = ("agent", "agent_name")
_WHOSE = (("user", USER), ("session", SESSION), ("task", TASK), ("agent", AGENT))
_NAMED = frozenset((*USER, *SESSION, *TASK, *AGENT))
# LlamaIndex's own tags: some of them hold the text of prompts.
_THEIRS = "llamaindex."

_BY_RANK = ("azure_endpoint", "api_base", "base_url", "endpoint_url", "endpoint", "host")
_ENDPOINTS = frozenset(_BY_RANK)
# Packages of integrations that are named after something else than who answers.
_PROVIDERS = {
    "openai_like": "openai_like",
    "bedrock_converse": "bedrock",
    "huggingface_api": "huggingface",
    "nvidia": "nvidia",
    "cohere_rerank": "cohere",
    "voyageai_rerank": "voyageai",
    "jinaai_rerank": "jina",
}
_NOBODYS = frozenset(("core",))
_providers: dict[type, str] = {}
_MOST = 4096


def model_of(instance: object, told: Mapping[str, Any], params: Mapping[str, Any]) -> Model:
    """The model as it is asked for: by this call, by the event, by the object itself."""
    name = params.get("model") or told.get("model_name") or told.get("model")
    if not isinstance(name, str) or not name:
        name = _text(instance, "model") or _text(instance, "model_name")
    return Model(provider_of(type(instance)), name, _endpoint(instance))


def _endpoint(instance: object) -> str:
    fields = getattr(instance, "__dict__", EMPTY)
    if _ENDPOINTS.isdisjoint(fields):
        return ""
    return next((value for name in _BY_RANK if isinstance(value := fields.get(name), str)), "")


def _text(instance: object, name: str) -> str:
    value = getattr(instance, name, None)
    return value if isinstance(value, str) else ""


def provider_of(kind: type) -> str:
    """Whose integration a class is, by its package: `llama_index.llms.mistralai` is Mistral's.

    Empty for a class of the user's own.
    """
    provider = _providers.get(kind)
    if provider is None:
        if len(_providers) >= _MOST:
            _providers.clear()
        provider = _providers[kind] = _provider(kind)
    return provider


def _provider(kind: type) -> str:
    for base in kind.__mro__:
        parts = base.__module__.split(".")
        if len(parts) > 2 and parts[0] == "llama_index" and parts[1] not in _NOBODYS:
            return _PROVIDERS.get(parts[2], parts[2])
    return ""


def attribute(call: Call, tags: Mapping[str, Any] | None) -> None:
    """Whose call it is, by the tags that were active when it began."""
    if not tags:
        return
    own = {name: value for name, value in tags.items() if not name.startswith(_THEIRS) and value is not None}
    if not own:
        return
    for field, names in _WHOSE:
        value = next((own[name] for name in names if name in own and own[name] != ""), None)
        if value is not None:
            setattr(call, field, str(value))
    rest = {name: str(value) for name, value in own.items() if name not in _NAMED}
    if rest:
        call.tags = FrozenMap(rest)
