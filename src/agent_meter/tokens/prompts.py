"""About how many tokens a prompt is, before a provider has counted it."""

from __future__ import annotations

from typing import Any

from .estimate import estimate_tokens
from .families import family_of
from .images import image_tokens
from .messages import parts_of
from .tools import FRAME, declaration


def estimate_prompt(asked: Any, model: str = "", tools: Any = None) -> int:
    """The tokens of a string or of messages (of any vendor or framework), with the tools that go along.

    Only arithmetic on characters: nothing is loaded, nobody waits.
    """
    if isinstance(asked, str):
        return estimate_tokens(asked, model)
    family = family_of(model)
    total = family.request
    for message in asked or ():
        parts = parts_of(message)
        total += family.message + parts.calls * family.tool_call
        total += sum(estimate_tokens(text, model) for text in parts.texts)
        total += sum(image_tokens(image, model, family.name) for image in parts.images)
    if isinstance(tools, (list, tuple)) and tools:
        total += family.tools + FRAME + estimate_tokens(declaration(tools), model)
    return total


def prompt_size(asked: Any, model: str = "") -> int:
    """The bytes of the text of a prompt, and the tokens of what is around it and of its pictures.

    No fewer than the tokens that it is: a byte-level tokenizer makes no more tokens than there are bytes.
    """
    if isinstance(asked, str):
        return len(asked.encode("utf-8", "replace"))
    family = family_of(model)
    total = family.request
    for message in asked or ():
        parts = parts_of(message)
        total += family.message + parts.calls * family.tool_call
        total += sum(len(text.encode("utf-8", "replace")) for text in parts.texts)
        total += sum(image_tokens(image, model, family.name) for image in parts.images)
    return total
