"""What came in: one request for a model, and what it was answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..records import TokenUsage
from .replies import Answer, count_tokens

Dialect = Literal["openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages"]


@dataclass
class Request:
    """One request for a model. `number` counts from 1, over all dialects.

    `answer`, `status` and `usage` are set once it has been answered: `usage` is what the answer reports, in
    the reading of `TokenUsage` and as far as the dialect can say it; None for errors and broken answers.
    """

    number: int
    dialect: Dialect
    model: str
    stream: bool
    path: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # names in lower case; holds the API key that was sent
    answer: Answer | None = field(default=None, repr=False)
    status: int | None = None
    usage: TokenUsage | None = None

    @property
    def choices(self) -> int:
        """How many answers were asked for (`n`)."""
        n = self.body.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    @property
    def include_usage(self) -> bool:
        """Whether a chat stream was asked to end with its usage."""
        options = self.body.get("stream_options")
        return isinstance(options, Mapping) and bool(options.get("include_usage"))

    @property
    def max_output_tokens(self) -> int | None:
        for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
            if isinstance(limit := self.body.get(name), int):
                return limit
        return None

    @property
    def text(self) -> str:
        """All that there is to read: system prompt, messages, tool results; no roles, no tool definitions."""
        return "\n".join(self._parts)

    @property
    def _parts(self) -> list[str]:
        names = ("system", "instructions", "messages", "input")
        return [text for name in names for text in _texts(self.body.get(name))]

    @property
    def last_text(self) -> str:
        """The text of the last message."""
        for name in ("messages", "input"):
            turns = self.body.get(name)
            if isinstance(turns, list) and turns:
                return "\n".join(_texts(turns[-1]))
            if isinstance(turns, str):
                return turns
        return ""

    @property
    def input_tokens(self) -> int:
        """The count where the answer gives none, at least 1. Embedding input may come as tokens already."""
        given = self.body.get("input") if self.dialect == "openai.embeddings" else None
        if isinstance(given, list) and not all(isinstance(item, str) for item in given):
            return sum(len(item) if isinstance(item, list) else 1 for item in given)
        return max(1, count_tokens("".join(self._parts)))


def _texts(value: object) -> Iterator[str]:
    """The strings of a message however it is wrapped: text, parts, tool results of all three dialects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name in ("content", "text", "output"):
            yield from _texts(value.get(name))
