"""What an integration was told and does not pass on, so that a number which looks whole is not taken for it.

Told by the integration and by what was asked: an answer never shows what its client dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ...records import TokenUsage
from ..lifetimes import HOUR, HOUR_TOKENS, times_to_live
from .flights import Flight

Choices = Sequence[Any]
Finding = tuple[TokenUsage, tuple[str, ...]]
CACHE = "cache_read_tokens"
_DEEPEST = 6


def withheld(flight: Flight, usage: TokenUsage, choices: Choices) -> Finding:
    """`usage` with the classes that the client keeps to itself as missing; the notes say why.

    For providers in `KEEPING_BACK` only.
    """
    return KEEPING_BACK[flight.provider](flight, usage, choices)


def _also_missing(usage: TokenUsage, names: Sequence[str], note: str) -> Finding:
    unseen = tuple(name for name in names if name not in usage.missing)
    return (msgspec.structs.replace(usage, missing=(*usage.missing, *unseen)) if unseen else usage), (note,)


# -------------------------------------------------------------------------------------------------- Google


def _google(flight: Flight, usage: TokenUsage, choices: Choices) -> Finding:
    """Gemini counts by modality, and bills audio and pictures at prices of their own; LangChain keeps the sums."""
    unseen = []
    if usage.input_tokens and not usage.input_audio_tokens and _sounds((flight.messages,), 0):
        unseen.append("input_audio_tokens")
    asked = {str(one).rpartition(".")[2].lower() for one in (flight.params or {}).get("response_modalities") or ()}
    if usage.output_tokens:
        if "audio" in asked and not usage.output_audio_tokens:
            unseen.append("output_audio_tokens")
        if not usage.output_image_tokens and ("image" in asked or _drew(choices)):
            unseen.append("output_image_tokens")
    if not unseen:
        return usage, ()
    return _also_missing(usage, unseen, "langchain-google-genai does not tell tokens of sound and pictures apart")


def _sounds(value: Any, depth: int) -> bool:
    """Whether sound, or a film that may have some, is anywhere in what was asked."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        if value.get("type") in ("audio", "video", "input_audio"):
            return True
        kind = value.get("mime_type") or value.get("mimeType") or value.get("media_type")
        if isinstance(kind, str) and kind.startswith(("audio/", "video/")):
            return True
        return any(_sounds(inner, depth + 1) for inner in value.values() if isinstance(inner, (dict, list)))
    if isinstance(value, (list, tuple)):
        return any(_sounds(inner, depth + 1) for inner in value)
    return isinstance(getattr(value, "content", None), list) and _sounds(value.content, depth)


def _drew(choices: Choices) -> bool:
    return any(block.get("type") in ("image", "image_url") for block in _blocks(choices))


def _blocks(choices: Choices) -> Iterator[Mapping[str, Any]]:
    for choice in choices:
        content = choice.message.content
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, dict))


# ----------------------------------------------------------------------------------------- Cohere and Mistral


def _cohere(flight: Flight, usage: TokenUsage, choices: Choices) -> Finding:
    """langchain-cohere keeps no cache reads; of a stream it keeps what is billed, which is less than what was used."""
    if not usage.input_tokens and not usage.output_tokens:
        return usage, ()
    if flight.heard:
        note = "langchain-cohere tells of a stream only what is billed; the tokens are more"
        return _also_missing(usage, ("input_tokens", "output_tokens", CACHE, "reasoning_tokens"), note)
    return _also_missing(usage, (CACHE,), "langchain-cohere tells neither what was cached nor what is billed")


def _mistral(flight: Flight, usage: TokenUsage, choices: Choices) -> Finding:
    """Of a stream, langchain-mistralai keeps three sums; of an answer in one piece, all that Mistral said."""
    if not flight.heard or not usage.input_tokens or usage.cache_read_tokens:
        return usage, ()
    return _also_missing(usage, (CACHE,), "langchain-mistralai does not tell how much of a stream's prompt was cached")


# -------------------------------------------------------------------------------------------------- Bedrock


def _bedrock(flight: Flight, usage: TokenUsage, choices: Choices) -> Finding:
    """langchain-aws keeps one sum of Claude's cache writes; those that live for an hour cost more."""
    if not usage.cache_write_tokens or usage.cache_write_1h_tokens:
        return usage, ()
    kept = getattr(choices[0].message, "usage_metadata", None) or {}
    told = any(key.startswith("ephemeral_") for key in kept.get("input_token_details") or ())
    if told or HOUR not in times_to_live((flight.messages, flight.params)):
        return usage, ()
    return _also_missing(usage, (HOUR_TOKENS,), "langchain-aws does not tell how many cache writes live for an hour")


KEEPING_BACK: Mapping[str, Callable[[Flight, TokenUsage, Choices], Finding]] = {
    "google_genai": _google,
    "google_vertexai": _google,
    "cohere": _cohere,
    "mistral": _mistral,
    "amazon_bedrock": _bedrock,
    "anthropic-bedrock": _bedrock,
}
