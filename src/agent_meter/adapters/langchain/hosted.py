"""What a provider did besides answering, told by the content of the answer: LangChain drops the counts of it.

Searches and containers have a fee; another model's turn has tokens of its own. In streams, and from OpenAI's
Responses API, the blocks of the answer are all that is left to count them by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ...records import FrozenMap, TokenUsage
from ..payloads import hosted_fees

BILLED_BESIDE = "the provider bills another pass beside this answer; LangChain tells nothing of its tokens"
BESIDE = "pass_tokens"

# LangChain's own form of hosted calls, and the items of OpenAI's that they stand for.
_STANDARD = {
    "web_search": "web_search_call",
    "file_search": "file_search_call",
    "code_interpreter": "code_interpreter_call",
}


def with_fees(usage: TokenUsage, choices: Sequence[Any]) -> TokenUsage:
    """`usage` with the hosted calls that only the content shows; what the provider counted itself stands."""
    blocks = [block for choice in choices for block in _blocks(choice.message)]
    if not blocks:
        return usage
    found = hosted_fees([_item(block) for block in blocks])
    searched = sum(block.get("type") == "server_tool_use" and block.get("name") == "web_search" for block in blocks)
    units = {**({"web_searches": searched} if searched else {}), **found, **usage.units}
    return usage if units == usage.units else msgspec.structs.replace(usage, units=FrozenMap(units))


def with_unseen_passes(usage: TokenUsage, choices: Sequence[Any]) -> TokenUsage:
    """Say so when the answer shows a pass with a bill of its own, of which no tokens were seen.

    The pass becomes a unit without a rate, so that the price can only be a lower bound.
    """
    passes = sum(_is_pass(block) for choice in choices for block in _blocks(choice.message))
    if not passes:
        return usage
    units = FrozenMap({**usage.units, "passes": passes})
    return msgspec.structs.replace(usage, units=units, missing=(*usage.missing, BESIDE))


def _is_pass(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    calls = kind in ("server_tool_use", "server_tool_call") and block.get("name") == "advisor"
    return kind == "compaction" or calls


def _blocks(message: Any) -> Iterator[Mapping[str, Any]]:
    content = message.content
    if isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and block.get("type") != "text":
                yield block
    outputs = message.additional_kwargs.get("tool_outputs")  # where ChatOpenAI's output_version "v0" puts them
    if isinstance(outputs, list):
        yield from (block for block in outputs if isinstance(block, dict))


def _item(block: Mapping[str, Any]) -> Mapping[str, Any]:
    if block.get("type") != "server_tool_call":
        return block
    kind = _STANDARD.get(str(block.get("name")))
    extras = block.get("extras")
    container = extras.get("container_id") if isinstance(extras, dict) else None
    if kind == "code_interpreter_call" and container is None:
        return {}  # Anthropic's, which bills hours of containers and not calls
    return {"type": kind, "action": block.get("args"), "container_id": container}
