"""What selectools says of an answer: its `UsageStats` in our reading, and what it keeps to itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Model, TokenUsage
from ...tokens import estimate_prompt, estimate_tokens

Finding = tuple[TokenUsage, tuple[str, ...]]

NO_USAGE = "the answer carried no usage; tokens are estimated"
CUT_OFF = "the answer was cut off; tokens are estimated"
STREAMED = "selectools drops the usage of streams; tokens are estimated"
BOTH = ("input_tokens", "output_tokens")
# Names that say how a request was sent on, not who answered it.
GO_BETWEENS = frozenset(("fallback", "router"))
NAMES = {"azure-openai": "azure"}
# Whose cached tokens come in addition to the prompt's; elsewhere they are a part of them.
_BESIDE_THE_PROMPT = frozenset(("anthropic",))
_THINKING = ("o1", "o3", "o4", "gpt-5")


def model_of(provider: str, name: str) -> Model:
    provider = NAMES.get(provider, provider)
    return Model("" if provider in GO_BETWEENS else provider, name)


def is_silent(stats: Any) -> bool:
    """Nothing was counted, which is not the same as nothing being used. selectools' own echo uses nothing indeed."""
    return _said(stats, "provider") != "local" and not (
        _count(stats, "prompt_tokens") or _count(stats, "completion_tokens") or _count(stats, "total_tokens")
    )


def read(stats: Any) -> Finding:
    """`stats` is copied, never kept: selectools replays the very object, and anybody may have written into it."""
    provider, model = _said(stats, "provider"), _said(stats, "model")
    read_tokens, written = _count(stats, "cache_read_input_tokens"), _count(stats, "cache_creation_input_tokens")
    prompt, completion = _count(stats, "prompt_tokens"), _count(stats, "completion_tokens")
    if provider in _BESIDE_THE_PROMPT:
        prompt += read_tokens + written
    missing, notes = _kept_back(provider, model, stats)
    return TokenUsage(prompt, completion, read_tokens, written, missing=missing), notes


def _kept_back(provider: str, model: str, stats: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that selectools' integration was told of and does not pass on."""
    if provider == "gemini" and not model.startswith(("gemini-1", "gemini-2.0")):
        # `candidates_token_count` leaves the thoughts out, and they are billed.
        return ("output_tokens", "reasoning_tokens"), ("selectools does not count Gemini's thoughts",)
    if provider == "litellm" and getattr(stats, "cache_read_input_tokens", None) is None:
        return ("cache_read_tokens", "cache_write_tokens"), ("selectools drops what LiteLLM says of caches",)
    if model.rpartition("/")[2].startswith(_THINKING):
        return ("reasoning_tokens",), ("selectools does not tell reasoning from the rest of the output",)
    return (), ()


def estimated(asked: Prompt, said: str, note: str) -> Finding:
    """What an answer may have used of which no provider has told."""
    return TokenUsage(asked.tokens(), estimate_tokens(said, asked.model), missing=BOTH), (note,)


class Prompt:
    """What was asked, for estimates: the first `count` of `messages`, selectools' own list that goes on growing."""

    __slots__ = ("_tools", "count", "messages", "model", "system")

    def __init__(self, model: str, system: str, messages: Sequence[Any], tools: Sequence[Any] | None = None) -> None:
        self.model = model
        self.system = system
        self.messages = messages
        self.count = len(messages) if isinstance(messages, Sequence) else 0
        self._tools = tools

    def tokens(self) -> int:
        asked = [{"role": "system", "content": self.system}] if self.system else []
        tools = [tool.schema() if callable(getattr(tool, "schema", None)) else tool for tool in self._tools or ()]
        said = self.messages[: self.count] if self.count else ()
        return estimate_prompt([*asked, *map(_message, said)], self.model, tools)


def _message(message: Any) -> Any:
    """A message with its tool calls and pictures under the names that others give them."""
    calls = getattr(message, "tool_calls", None)
    parts = getattr(message, "content_parts", None)
    picture = getattr(message, "image_base64", None)
    if not (calls or parts or picture):
        return message
    content: list[Any] = [{"type": "text", "text": getattr(message, "content", None) or ""}]
    content += [_part(part) for part in parts or ()]
    if picture and not parts:
        content.append(_picture(picture, None))
    return {
        "role": getattr(getattr(message, "role", None), "value", "user"),
        "content": content,
        "tool_calls": [
            {"function": {"name": call.tool_name, "arguments": str(call.parameters)}} for call in calls or ()
        ],
    }


def _part(part: Any) -> dict[str, Any]:
    if url := getattr(part, "image_url", None):
        return {"type": "image_url", "image_url": {"url": url}}
    if data := getattr(part, "image_base64", None):
        return _picture(data, getattr(part, "media_type", None))
    return {"type": "text", "text": getattr(part, "text", None) or ""}


def _picture(data: str, media_type: str | None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{media_type or 'image/jpeg'};base64,{data}"}}


def _count(stats: Any, name: str) -> int:
    value = getattr(stats, name, None)
    return value if isinstance(value, int) else 0


def _said(stats: Any, name: str) -> str:
    return str(getattr(stats, name, None) or "")
