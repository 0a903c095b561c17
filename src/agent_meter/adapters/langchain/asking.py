"""What a LangChain start event says: which model is asked, whose call it is, which kind of call a chain is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

from ...records import Call, FrozenMap, Model, pico
from .flights import Flight

# Metadata keys, the most explicit first.
USER = ("user_id", "user", "langfuse_user_id", "ls_user_id")
SESSION = ("session_id", "thread_id", "session", "conversation_id", "langfuse_session_id")
TASK = ("task", "task_id")
NODE = "graph:step:"
# The custom event by which a tool says what it cost; the plain name is as good, where nobody else has taken it.
TOOL_COST = ("agent_meter.tool_cost", "tool_cost")
# Names that LangChain gives to chains which nobody has named.
UNNAMED = frozenset(("LangGraph", "RunnableSequence", "RunnableParallel", "RunnableLambda", "RunnableWithFallbacks"))
# What some integrations call themselves in `_type`, where they give no `ls_provider`.
PROVIDER_OF_TYPE = {
    "openai-chat": "openai",
    "azure-openai-chat": "azure",
    "anthropic-chat": "anthropic",
    "amazon_bedrock_chat": "amazon_bedrock",
    "mistralai-chat": "mistralai",
    "groq-chat": "groq",
    "chat-ollama": "ollama",
}
_ENDPOINTS = dict.fromkeys(
    ("openai_api_base", "anthropic_api_url", "base_url", "api_base", "azure_endpoint", "endpoint_url", "endpoint")
)  # in this order


def model_of(serialized: Mapping[str, Any] | None, metadata: Mapping[str, Any], params: Mapping[str, Any]) -> Model:
    """The model as it is asked for: `ls_model_name` (a per-call `bind(model=)` shows there), else the parameters."""
    name = (
        metadata.get("ls_model_name")
        or params.get("model")
        or params.get("model_name")
        or params.get("model_id")
        or params.get("azure_deployment")
    )
    kwargs = (serialized or {}).get("kwargs") or {}
    if not name:
        name = kwargs.get("model_name") or kwargs.get("model") or kwargs.get("model_id") or ""
    provider = metadata.get("ls_provider")
    if not provider:
        kind = str(params.get("_type") or "")
        provider = PROVIDER_OF_TYPE.get(kind, kind.partition("-")[0])
    endpoint = ""
    if kwargs and not _ENDPOINTS.keys().isdisjoint(kwargs):
        endpoint = next((value for key in _ENDPOINTS if (value := kwargs.get(key)) and isinstance(value, str)), "")
    return Model(provider, str(name), endpoint)


# One look at all of them at once: the metadata of a plain call has none.
_ATTRIBUTES = frozenset((*USER, *SESSION, *TASK, "lc_agent_name", "langgraph_step", "langgraph_node", "lc_source"))


def attribute(call: Call, metadata: Mapping[str, Any], parent: Flight | None = None) -> None:
    """Whose call it is, by the metadata that LangChain hands down to every start."""
    if not _ATTRIBUTES.isdisjoint(metadata):
        agent = metadata.get("lc_agent_name")
        if agent and (parent is None or parent.overruled != agent):
            call.agent = str(agent)
        call.user = _first(metadata, USER)
        call.session = _first(metadata, SESSION)
        call.task = _first(metadata, TASK)
        step = metadata.get("langgraph_step")
        if step is not None:
            call.step = str(step)
        node, source = metadata.get("langgraph_node"), metadata.get("lc_source")
        if source:
            # A call that a middleware makes on its own account: summarisation, tool selection, …
            call.tags = FrozenMap({"node": str(node or ""), "purpose": str(source)})
        elif node:
            call.tags = FrozenMap({"node": str(node)})
    if not call.user or not call.session:
        # Plain LangChain does not copy `configurable` into the metadata of handlers.
        config = var_child_runnable_config.get()
        configurable = config.get("configurable") if config else None
        if configurable:
            call.user = call.user or _first(configurable, USER)
            call.session = call.session or _first(configurable, SESSION)


def is_node(tags: list[str] | None) -> bool:
    """Whether a chain is a node of a graph: LangGraph marks it so, and nothing that runs inside of it."""
    return any(tag.startswith(NODE) for tag in tags or ())


def ambient_parent() -> UUID | None:
    """The run around a call that was given callbacks of its own.

    `callbacks=` inside a node or a tool takes the place of what it would have inherited, its parent included.
    """
    config = var_child_runnable_config.get()
    callbacks = config.get("callbacks") if config else None
    return getattr(callbacks, "parent_run_id", None)


def tool_cost(name: str, data: Any) -> int | None:
    """What a tool says it cost, in pico-dollars; `None` for an event of another name."""
    if name not in TOOL_COST:
        return None
    amount = pico(data["usd"] if isinstance(data, Mapping) else data)
    if amount < 0:
        raise ValueError(f"a tool cannot cost {data!r}")
    return amount


def _first(mapping: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = mapping.get(key)
        if value is not None and value != "":
            return str(value)
    return ""
