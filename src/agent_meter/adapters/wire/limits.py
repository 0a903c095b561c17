"""What a budget is told of a request before it is sent, and the maximum that is put into one which names none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...tokens.estimate import ERROR
from ..asking import Prompt
from .asking import tokens_in
from .endpoints import Endpoint

if TYPE_CHECKING:
    from .taps import Owner

# OpenAI's own newer models refuse `max_tokens`; other servers of its dialect know nothing else.
_NAMES = {"openai.chat": "max_tokens", "openai.completions": "max_tokens", "openai.responses": "max_output_tokens"}
_OWN = frozenset(("openai", "azure"))


class Body(Prompt, frozen=True):
    """A request's body, in any vendor's form, as bytes or as a mapping."""

    def size(self) -> int:
        text = self.asked
        return len(text) if isinstance(text, (bytes, bytearray)) else _bytes_in(text)

    def tokens(self) -> int:
        return round(tokens_in(self.asked) * (1 + ERROR))


def _bytes_in(content: Any) -> int:
    """No fewer than its tokens: names and numbers count as the bytes that they are written with, about."""
    size, left = 0, [content]
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "replace"))
        elif isinstance(value, Mapping):
            size += sum(len(str(name)) + 6 for name in value)
            left += value.values()
        elif isinstance(value, (list, tuple)):
            left += value
        else:
            size += 8
    return size


def capped(body: Any, endpoint: Endpoint, most: int | None, owners: Sequence[Owner]) -> dict[str, Any] | None:
    """The body with the smallest `cap_output` of those who want it in it; None where there is nothing to put in."""
    caps = [owner.cap_output for owner in owners if owner.cap_output is not None]
    name = _NAMES.get(endpoint.dialect)
    if not caps or most is not None or name is None or not isinstance(body, dict):
        return None
    if name == "max_tokens" and endpoint.dialect == "openai.chat" and endpoint.provider in _OWN:
        name = "max_completion_tokens"
    return {**body, name: min(caps)}
