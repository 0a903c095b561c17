"""pydantic-ai's messages in our reading: what an answer used, which tools it asked for, how large a prompt was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...records import EMPTY, TokenUsage
from ...tokens import estimate_prompt, estimate_tokens

NO_USAGE = "the answer carried no usage; tokens are estimated"
CUT_OFF = "the answer was cut off; tokens are estimated"
HOUR_UNSEEN = "pydantic-ai does not tell how long cached tokens are kept"
BOTH = ("input_tokens", "output_tokens")
_CALLS = ("tool-call", "builtin-tool-call")
_ROLES = {"system-prompt": "system", "tool-return": "tool"}
# By what each provider calls the tokens of its thoughts in `details`; all of them are part of the output.
_REASONING = ("reasoning_tokens", "thoughts_tokens", "thinking_tokens")
_HOURLY = ("anthropic", "bedrock")


def read(response: Any) -> tuple[TokenUsage, tuple[str, ...]]:
    """The usage of a `ModelResponse`; with both classes missing where it carries none."""
    usage = getattr(response, "usage", None)
    details = getattr(usage, "details", None) or EMPTY
    reasoning = next((count for name in _REASONING if (count := details.get(name))), 0)
    written = _count(usage, "cache_write_tokens")
    missing, notes = (), ()
    if written and getattr(response, "provider_name", None) in _HOURLY:
        missing, notes = ("cache_write_1h_tokens",), (HOUR_UNSEEN,)  # type: ignore[assignment]
    found = TokenUsage(
        _count(usage, "input_tokens"),
        _count(usage, "output_tokens"),
        _count(usage, "cache_read_tokens"),
        written,
        reasoning_tokens=reasoning,
        input_audio_tokens=_count(usage, "input_audio_tokens"),
        output_audio_tokens=_count(usage, "output_audio_tokens"),
        missing=missing,
    )
    return (found, notes) if found.total_tokens else (TokenUsage(missing=BOTH), ())


def estimated(messages: Sequence[Any], model: str, tools: Any, said: str) -> TokenUsage:
    return TokenUsage(prompt_tokens(messages, model, tools), estimate_tokens(said, model), missing=BOTH)


def prompt_tokens(messages: Sequence[Any], model: str, tools: Any = None) -> int:
    return estimate_prompt(list(_plain(messages)), model, [_tool(tool) for tool in tools or ()])


def said(response: Any) -> str:
    """Everything in an answer that took output tokens and can be seen."""
    return "".join(
        f"{part.tool_name}{part.args}" if part.part_kind in _CALLS else str(getattr(part, "content", "") or "")
        for part in getattr(response, "parts", None) or ()
    )


def tools_of(response: Any) -> tuple[str, ...]:
    return tuple(part.tool_name for part in calls_of(response))


def calls_of(response: Any) -> list[Any]:
    """The tool calls of an answer that are for the agent; a provider runs its own."""
    return [part for part in getattr(response, "parts", None) or () if part.part_kind == "tool-call"]


def arguments(part: Any) -> Mapping[str, Any]:
    try:
        found = part.args_as_dict()
    except Exception:  # no JSON, or no object
        return {"arguments": str(part.args)}
    return found if isinstance(found, Mapping) else EMPTY


def error_of(part: Any) -> str:
    """The error that a `RetryPromptPart` tells the model of, by its class where mamba-agents has written it down."""
    content = getattr(part, "content", "")
    if not isinstance(content, str):
        return "ValidationError"
    if content.startswith("Unknown tool name"):
        return "UnknownTool"
    head, colon, _ = content.partition(":")
    return head if colon and head.isidentifier() else "ModelRetry"


def _plain(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if instructions := getattr(message, "instructions", None):
            yield {"role": "system", "content": str(instructions)}
        calls, text = [], []
        answer = getattr(message, "kind", "") == "response"
        for part in getattr(message, "parts", None) or ():
            if part.part_kind in _CALLS:
                calls.append({"function": {"name": part.tool_name, "arguments": str(part.args)}})
            elif answer:
                text.append(str(getattr(part, "content", "") or ""))
            else:
                yield {"role": _ROLES.get(part.part_kind, "user"), "content": _content(getattr(part, "content", ""))}
        if answer:
            yield {"role": "assistant", "content": "".join(text), "tool_calls": calls}


def _content(content: Any) -> Any:
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, (list, tuple)):
        return str(content)
    return [_piece(piece) for piece in content]


def _piece(piece: Any) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if url := getattr(piece, "url", None):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "text", "text": ""}


def _tool(definition: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": getattr(definition, "name", ""),
            "description": getattr(definition, "description", "") or "",
            "parameters": getattr(definition, "parameters_json_schema", None) or {},
        },
    }


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, 0)
    return value if isinstance(value, int) else 0
