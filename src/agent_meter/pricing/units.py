"""What can be priced: units, how many of them a price is quoted for, and which unit is part of which.

The table is that of genai-prices (a test keeps them equal), written down here so that own rates need no import
of it. A unit whose dimensions contain those of another is a part of it: cached input is a part of input.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal

from ..records import TOKEN_CLASSES

MILLION = 1_000_000

# Wide enough for every count and rate there is: the process's own decimal context must not decide what is owed.
WIDE = Context(prec=400)

Dimensions = frozenset[tuple[str, str]]


class Unit:
    """One thing that is counted and billed; its price is quoted per `per` of them."""

    __slots__ = ("dimensions", "direction", "name", "per", "tokens")

    def __init__(self, name: str, per: int, **dimensions: str) -> None:
        self.name = name
        self.per = per
        self.dimensions: Dimensions = frozenset(dimensions.items())
        self.direction = dimensions.get("direction", "")
        self.tokens = dimensions.get("family") == "tokens"

    def __repr__(self) -> str:
        return f"<Unit {self.name} per {self.per:,}>"

    def covers(self, other: Unit) -> bool:
        """Whether `other` is this unit or a part of it, so that a rate for this one covers it."""
        return self.dimensions <= other.dimensions


def _tokens(name: str, **dimensions: str) -> Unit:
    return Unit(name, MILLION, family="tokens", **dimensions)


def _table() -> dict[str, Unit]:
    units = []
    for modality in ("", "text", "audio", "image", "video"):
        of = {"modality": modality} if modality else {}
        into = {**of, "direction": "input"}
        out = {**of, "direction": "output"}
        write = {**into, "kind": "cache_write"}
        part = f"{modality}_" if modality else ""
        units += [
            _tokens(f"input_{part}tokens", **into),
            _tokens(f"output_{part}tokens", **out),
            _tokens(f"cache_{part}read_tokens", **into, kind="cache_read"),
            _tokens(f"cache_{part}write_tokens", **write),
            _tokens(f"cache_{part}write_5m_tokens", **write, cache_ttl="5m"),
            _tokens(f"cache_{part}write_1h_tokens", **write, cache_ttl="1h"),
            _tokens(f"input_{part}tool_tokens", **into, kind="tool"),
            _tokens(f"output_{part}reasoning_tokens", **out, kind="reasoning"),
            _tokens(f"output_{part}citation_tokens", **out, kind="citation"),
        ]
    units += [
        Unit("input_characters", MILLION, family="characters", direction="input"),
        Unit("input_text_messages", 1000, family="messages", direction="input", modality="text"),
        Unit("audio_seconds", 3600, family="durations", modality="audio"),
        Unit("input_audio_seconds", 3600, family="durations", direction="input", modality="audio"),
        Unit("output_audio_seconds", 3600, family="durations", direction="output", modality="audio"),
        Unit("input_pixels", 10**9, family="pixels", direction="input"),
        Unit("input_document_pages", 1000, family="document_pages", direction="input"),
        Unit("input_annotated_document_pages", 1000, family="document_pages", direction="input", page_type="annotated"),
        Unit("rerank_searches", 1000, family="rerank"),
        Unit("web_searches", 1000, family="tool_calls", tool_type="web_search"),
        Unit("social_searches", 1000, family="tool_calls", tool_type="social_search"),
        Unit("storage_searches", 1000, family="tool_calls", tool_type="storage_search"),
        Unit("code_executions", 1000, family="tool_calls", tool_type="code_execution"),
        Unit("requests", 1000, family="requests"),
    ]  # fmt: skip
    return {unit.name: unit for unit in units}


UNITS: Mapping[str, Unit] = _table()

# How providers and people call the same thing.
ALIASES: Mapping[str, str] = {
    "reasoning_tokens": "output_reasoning_tokens",
    "seconds": "audio_seconds",
    "input_seconds": "input_audio_seconds",
    "output_seconds": "output_audio_seconds",
    "pages": "input_document_pages",
    "annotated_pages": "input_annotated_document_pages",
    "characters": "input_characters",
    "pixels": "input_pixels",
    "search_units": "rerank_searches",
    "web_search_requests": "web_searches",
    "file_searches": "storage_searches",
    "images": "output_images",
}

# The unit that each of the ten fields of TokenUsage counts, in the order of the fields.
FIELD_UNITS: tuple[str, ...] = tuple(ALIASES.get(field, field) for field in TOKEN_CLASSES)

# The words of rate cards written by people (US$ per 1M tokens), and the units they price.
CLASSES: Mapping[str, str] = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "output_reasoning_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
    "input_image": "input_image_tokens",
    "output_image": "output_image_tokens",
    "cache_audio_read": "cache_audio_read_tokens",
    "cache_image_read": "cache_image_read_tokens",
}


def unit(name: str) -> Unit:
    """The unit of that name or alias; an unknown one is its own family and priced per piece."""
    name = ALIASES.get(name, name)
    return UNITS.get(name) or Unit(name, 1, family=name)


def exact(value: object) -> Decimal | int | None:
    """A count as an exact number, `None` when it is not one. A float is read by its shortest decimal form."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal) and value.is_finite():
        return value
    return None


def divide(numerator: int, denominator: int) -> int:
    """The quotient rounded half-even; `denominator` is positive."""
    quotient, rest = divmod(numerator, denominator)
    rest *= 2
    if rest > denominator or (rest == denominator and quotient & 1):
        quotient += 1
    return quotient
