"""OpenAI embeddings: `prompt_tokens` and nothing else."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from ..records import TokenUsage
from .wire import Json

DIMENSIONS = 8  # where the request names none: enough to tell texts apart, short enough to read


def _vector(text: object, dimensions: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    raw = hashlib.shake_256(repr(text).encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    numbers = [word / 2**31 - 1 for word in struct.unpack(f"<{dimensions}I", raw)]
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


def document(usage: TokenUsage, model: str, body: Mapping[str, Any]) -> Json:
    given = body.get("input")
    several = isinstance(given, list) and not (given and isinstance(given[0], int))  # a list of ints is one text
    texts: list[object] = given if several and isinstance(given, list) else [given]
    dimensions = body.get("dimensions") or DIMENSIONS
    data: list[Json] = []
    for index, text in enumerate(texts):
        vector: Any = _vector(text, dimensions)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    counts = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": counts}
