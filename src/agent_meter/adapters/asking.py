"""What a request says of how much it may use: its prompt, and the most that it lets the model answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# Where both of the first two are there, LangChain's parameters have the call's own as max_tokens.
_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "maxTokens",
    "maxOutputTokens",
    "num_predict",
)
# Where some vendors keep it: Google, Bedrock, Ollama, LangChain.
_INSIDE = ("generationConfig", "generation_config", "inferenceConfig", "options", "model_kwargs")


class Prompt(msgspec.Struct, frozen=True):
    """What is asked, in any vendor's or framework's form; counted only when a budget wants to know."""

    asked: Any
    model: str = ""
    tools: Any = None

    def size(self) -> int:
        """No fewer than the tokens that it is: a token is at least a byte."""
        from ..tokens.prompts import prompt_size  # on first use: most programs have no budget

        return prompt_size(self.asked, self.model, self.tools)

    def tokens(self) -> int:
        """About the tokens that it is, on the high side."""
        from ..tokens.prompts import prompt_at_most

        return prompt_at_most(self.asked, self.model, self.tools)


def output_limit(*told: Mapping[str, Any] | None) -> int | None:
    """The most tokens that may be answered, by the first of these that says so; all choices (`n`) together."""
    limit = choices = None
    for place in told:
        if not place:
            continue
        if limit is None:
            limit = _first(place, _LIMITS)
            if limit is None:
                inner = (place.get(name) for name in _INSIDE)
                limit = next(
                    (found for one in inner if isinstance(one, Mapping) and (found := _first(one, _LIMITS))), None
                )
        if choices is None:
            choices = _first(place, ("n", "candidateCount", "candidate_count"))
    return limit if limit is None or choices is None else limit * choices


def _first(place: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = place.get(name)
        if type(value) is int and value > 0:
            return value
    return None
