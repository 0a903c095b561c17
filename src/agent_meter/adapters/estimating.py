"""Tokens that no provider counted: a stream without usage, an answer that was cut off.

Only arithmetic on characters: nothing is loaded, nobody waits. What comes of it is always marked as estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..records import TokenUsage
from ..tokens import estimate_prompt, estimate_tokens

NO_USAGE = "the answer carried no usage; tokens are estimated"
NO_INPUT = "the answer did not count its prompt; input tokens are estimated"
CUT_OFF = "the answer was cut off; tokens are estimated"
INPUT_CLASSES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


def missing_input(usage: TokenUsage) -> TokenUsage:
    """No prompt has no tokens: some integrations lose the input of streams that name it only at their start."""
    return also_missing(usage, INPUT_CLASSES)


def also_missing(usage: TokenUsage, names: Sequence[str]) -> TokenUsage:
    found = tuple(name for name in names if name not in usage.missing)
    return msgspec.structs.replace(usage, missing=(*usage.missing, *found)) if found else usage


def incomplete(usage: TokenUsage) -> bool:
    return "input_tokens" in usage.missing or "output_tokens" in usage.missing


def nothing_counted(usage: TokenUsage) -> bool:
    return "input_tokens" in usage.missing and "output_tokens" in usage.missing


def fill(
    usage: TokenUsage, asked: Any, params: Mapping[str, Any] | None, said: str, model: str, *, cut: bool
) -> tuple[TokenUsage, str]:
    """Fill in what the provider did not count, with a note that says so; what it did count is never lowered."""
    missing = usage.missing
    prompt, completion = usage.input_tokens, usage.output_tokens
    if "input_tokens" in missing:
        tools = (params or {}).get("tools") or (params or {}).get("functions")
        prompt = max(prompt, estimate_prompt(asked, model, tools))
    if "output_tokens" in missing:
        completion = max(completion, estimate_tokens(said, model))
    note = CUT_OFF if cut else NO_USAGE if "output_tokens" in missing else NO_INPUT
    return msgspec.structs.replace(usage, input_tokens=prompt, output_tokens=completion), note
