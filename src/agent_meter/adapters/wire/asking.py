"""What a request asks for: which model, as a stream or not, how much at most. Nothing of it is kept."""

from __future__ import annotations

from typing import Any

import msgspec

from ...tokens.estimate import characters_to_tokens

# A picture, a sound or a file inside a message is one long word; what a model makes of it is a matter of its size in
# pixels or seconds, which is not looked at.
LONGEST_WORD = 2000
TOKENS_OF_A_FILE = 1500


class _Body(msgspec.Struct):
    """The fields of any vendor's request that matter here; the decoder skips all others."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens_to_sample: Any = None
    n: Any = None
    generationConfig: Any = None  # noqa: N815 - the vendors' own spelling
    generation_config: Any = None
    inferenceConfig: Any = None  # noqa: N815
    options: Any = None
    deployment: Any = None
    modelId: Any = None  # noqa: N815
    model_id: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class Asked:
    """What a request's body says. `usage_in_stream`: it asks for usage in a stream. `readable`: it was JSON."""

    __slots__ = ("_told", "model", "readable", "streamed")

    def __init__(self, told: _Body, readable: bool = True) -> None:
        model = told.model or told.modelId or told.model_id or told.deployment
        self._told = told
        self.model: str = model if isinstance(model, str) else ""
        self.streamed = told.stream is True
        self.readable = readable

    @property
    def usage_in_stream(self) -> bool:
        options = self._told.stream_options
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @property
    def max_output(self) -> int | None:
        """How many tokens it may answer at most, all its answers together; None when it sets no limit."""
        told = self._told
        most = (
            _count(told.max_completion_tokens)
            or _count(told.max_output_tokens)
            or _count(told.max_tokens)
            or _count(told.max_tokens_to_sample)
        )
        for table, names in (
            (told.generationConfig, ("maxOutputTokens", "max_output_tokens")),
            (told.generation_config, ("maxOutputTokens", "max_output_tokens")),
            (told.inferenceConfig, ("maxTokens",)),
            (told.options, ("num_predict",)),
        ):
            if most is None and isinstance(table, dict):
                most = next((found for name in names if (found := _count(table.get(name)))), None)
        times = _count(told.n)
        return most * times if most is not None and times else most


UNREADABLE = Asked(_Body(), readable=False)
_FIELDS = frozenset(_Body.__struct_fields__)


def asked(body: bytes | bytearray | str | None) -> Asked:
    """What a request's body says. Never raises."""
    if not body:
        return UNREADABLE
    try:
        return Asked(_decode(body))
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return UNREADABLE


def asked_by(options: Any) -> Asked:
    """The same of a body that has not been written out yet: a mapping of its fields."""
    if not isinstance(options, dict):
        return UNREADABLE
    return Asked(_Body(**{name: options[name] for name in _FIELDS & options.keys()}))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def tokens_in(content: Any) -> float:
    """About how many tokens a request's body is; a picture or a file in it counts as one of middling size."""
    if isinstance(content, (bytes, bytearray)):
        try:
            content = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeError):
            return 0.0
    tokens, left = 0.0, [content]
    while left:
        value = left.pop()
        if isinstance(value, str):
            if len(value) > LONGEST_WORD and " " not in value[:LONGEST_WORD]:
                tokens += TOKENS_OF_A_FILE
            else:
                tokens += characters_to_tokens(value)
        elif isinstance(value, dict):
            left += value.values()
            tokens += 2 * len(value)
        elif isinstance(value, (list, tuple)):
            left += value
    return tokens


def with_usage(body: bytes) -> bytes | None:
    """The same request, asking for usage at the end of the stream; None where that cannot be added."""
    try:
        told = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        options = msgspec.json.decode(told["stream_options"]) if "stream_options" in told else {}
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return None
    told["stream_options"] = msgspec.Raw(msgspec.json.encode({**(options or {}), "include_usage": True}))
    return msgspec.json.encode(told)
