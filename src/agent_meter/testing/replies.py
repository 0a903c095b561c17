"""What a scripted provider answers: the nouns of a script, free of any dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..records import TokenUsage

if TYPE_CHECKING:
    from .request import Request

Finish = Literal["stop", "length", "tool_calls"]


def count_tokens(text: str) -> int:
    """The count where a script gives none: one token for every four characters begun."""
    return (len(text) + 3) // 4


@dataclass(frozen=True)
class ToolCall:
    """A tool that the answer asks for. Without `id`, each answer gets one of its own."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A complete answer, and the usage that the provider reports for it.

    Token counts are in the reading of `TokenUsage`: `input_tokens` includes cache reads and writes,
    `output_tokens` includes reasoning; each dialect encodes them its own way. Counts not given are derived
    from lengths, one token for every four characters begun, and are never less than their parts. `model` is
    the model that answers; not given, the one that was asked for.

    A stream carries the text in `chunks` pieces (fewer when the text is shorter). `delay` is in seconds,
    before the first byte; `chunk_delay` in seconds, between the events of a stream. Where the request asks
    for `n` choices all of them are this answer, and the usage covers them together.

    Raises `ValueError` when a part exceeds its whole, for no provider answers so.
    """

    text: str = field(default="", kw_only=False)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # of which; only Anthropic's dialect can say it
    reasoning_tokens: int = 0
    tool_calls: Sequence[ToolCall] = ()
    thinking: str = ""  # shown as a thinking block (Anthropic) or a reasoning summary (OpenAI responses)
    model: str | None = None
    finish: Finish | None = None  # not given: tool_calls where there are any, else stop
    delay: float = 0.0
    chunk_delay: float = 0.0
    chunks: int = 5
    _encoded: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise ValueError(f"a stream has at least one chunk, got chunks={self.chunks}")
        if self.delay < 0 or self.chunk_delay < 0:
            raise ValueError(f"a delay is seconds from now, got {min(self.delay, self.chunk_delay)}")
        if problems := self.usage(1 << 60, 1 << 60).problems:
            raise ValueError(f"no provider reports this usage: {'; '.join(problems)}")

    def usage(self, input_tokens: int, output_tokens: int) -> TokenUsage:
        """The usage of this answer, the arguments standing in for the counts that it does not give."""
        cached = self.cache_read_tokens + self.cache_write_tokens
        return TokenUsage(
            max(input_tokens, cached) if self.input_tokens is None else self.input_tokens,
            max(output_tokens, self.reasoning_tokens) if self.output_tokens is None else self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.reasoning_tokens,
        )

    @property
    def ending(self) -> Finish:
        return self.finish or ("tool_calls" if self.tool_calls else "stop")

    @property
    def pieces(self) -> list[str]:
        return split(self.text, self.chunks)


def split(text: str, parts: int) -> list[str]:
    """The text in `parts` pieces of about the same length; none of them is empty."""
    parts = min(parts, len(text))
    return [text[i * len(text) // parts : (i + 1) * len(text) // parts] for i in range(parts)]


@dataclass(frozen=True)
class ErrorReply:
    """An HTTP error in the words of the dialect. `type` and `message` have the provider's defaults by status.

    `retry_after` is seconds; 0 asks for a retry at once (sent as `retry-after-ms: 1` too, for the SDKs of
    OpenAI and Anthropic take a zero for no answer and wait half a second). `should_retry` sets
    `x-should-retry`, which those SDKs obey before they look at the status.
    """

    status: int = 500
    type: str | None = None
    message: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"an error has a status from 400 to 599, got {self.status}")


@dataclass(frozen=True)
class Cut:
    """A stream that breaks: the first `after_chunks` pieces (of text or tool arguments) of `reply`, no more.

    The connection is closed in the middle of the body; with `error`, the dialect's error event comes instead.
    An answer that is no stream breaks in the middle of its JSON, or is the error. No usage of it is counted.
    """

    after_chunks: int = 3
    reply: Reply | None = None
    error: ErrorReply | None = None

    def __post_init__(self) -> None:
        if self.after_chunks < 0:
            raise ValueError(f"a stream is cut after 0 or more chunks, got {self.after_chunks}")

    @property
    def told(self) -> Reply:
        """What would have been said without the cut."""
        return self.reply or Reply("This answer ends before its end has been said.", chunks=self.after_chunks + 2)


@dataclass(frozen=True)
class Hang:
    """No answer at all: silence for `seconds`, then the connection is closed."""

    seconds: float = 30.0


Answer = Reply | ErrorReply | Cut | Hang
Script = Sequence[Answer | str] | Answer | str | Callable[["Request"], Answer | str]
