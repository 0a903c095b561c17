"""About how many tokens a prompt is, before a provider has counted it."""

from __future__ import annotations

from typing import Any

from .estimate import ERROR, estimate_tokens
from .families import family_of
from .images import image_tokens
from .messages import parts_of
from .tools import FRAME, declaration

_TELLING = 64  # characters from which blanks say something
_RARE = 20  # one in so many characters of running text, at least, is a blank


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


def prompt_at_most(asked: Any, model: str = "", tools: Any = None) -> int:
    """The estimate on the high side: with the error on top that nine of ten texts stay within.

    Text with hardly a blank in it (base64, hashes, minified data) takes two to three times what an estimate from
    characters says; it counts as four tokens for five bytes.
    """
    texts = [asked] if isinstance(asked, str) else [text for message in asked or () for text in parts_of(message).texts]
    estimate = round(estimate_prompt(asked, model, tools) * (1 + ERROR))
    dense = 0.0
    for text in texts:
        blanks = text.count(" ") + text.count("\n")
        if len(text) > _TELLING and blanks * _RARE < len(text):
            dense += max(0.0, 0.8 * len(text) - estimate_tokens(text, model) * (1 + ERROR))
    return estimate + round(dense)


def prompt_size(asked: Any, model: str = "", tools: Any = None) -> int:
    """The bytes of the text of a prompt and of its tools, and the tokens of what is around it and of its pictures.

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
    if isinstance(tools, (list, tuple)) and tools:
        total += family.tools + FRAME + len(declaration(tools).encode("utf-8", "replace"))
    return total
