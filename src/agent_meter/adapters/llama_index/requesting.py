"""Asking for the usage of streams, where the server has it and does not send it unasked.

OpenAI's chat completions end a stream with its usage only if `stream_options` says so. The field is put among the
model's own `additional_kwargs`, which LlamaIndex sends along, and taken away again when the meter is unregistered.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ...pricing.names import host_of
from .asking import provider_of
from .touched import Touched

OPTION = "stream_options"
ASKED = {"include_usage": True}
# Integrations whose server takes the field. One that may stand for any server asks only a host that is known to.
_TAKES = frozenset(("openai", "groq", "deepseek", "openrouter", "together", "fireworks", "cerebras", "xai"))
_ANYBODYS = frozenset(("openai_like",))
_HOSTS = (
    "api.openai.com",
    "api.groq.com",
    "api.deepseek.com",
    "openrouter.ai",
    "api.together.xyz",
    "api.fireworks.ai",
    "api.x.ai",
    "api.cerebras.ai",
)
AZURE_SINCE = "2024-09"  # the API versions before refuse the field
_asked = Touched()


def ask_for_usage(instance: Any) -> None:
    """Make the streams of `instance` tell their usage; whatever the user said of it stands."""
    fields = getattr(instance, "__dict__", None)
    own = fields.get("additional_kwargs") if fields is not None else None
    if type(own) is not dict:
        return
    options = own.get(OPTION)
    if options is not None and (not isinstance(options, dict) or "include_usage" in options):
        return
    if not _takes(instance):
        return
    with suppress(AttributeError, TypeError, ValueError):
        instance.additional_kwargs = {**own, OPTION: {**(options or {}), **ASKED}}
        _asked.add(instance, options)


def _takes(instance: Any) -> bool:
    kind = type(instance)
    names = {base.__name__ for base in kind.__mro__}
    if "OpenAI" not in names or "OpenAIResponses" in names:
        return False
    provider = provider_of(kind)
    if provider == "azure_openai":
        version = str(getattr(instance, "api_version", "") or "")
        return version >= AZURE_SINCE
    if provider in _ANYBODYS:
        return host_of(str(getattr(instance, "api_base", "") or "")) in _HOSTS
    return provider in _TAKES


def withdraw_all() -> None:
    """Give every model its own options back."""
    for instance, options in _asked.take():
        own = instance.additional_kwargs
        if type(own) is not dict or not (own.get(OPTION) or {}).get("include_usage"):
            continue
        rest = {name: value for name, value in own.items() if name != OPTION}
        with suppress(AttributeError, TypeError, ValueError):
            instance.additional_kwargs = rest if options is None else {**rest, OPTION: options}
