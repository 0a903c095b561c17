"""What an image costs in tokens, by the vendors' published formulas.

Needs the size in pixels: from the part (`width`, `height`), or from the first bytes of a data URL or base64
field. Nothing is fetched: an image behind a URL is taken for 1024 × 1024.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, sqrt
from typing import Any

from .families import own_name
from .messages import get

_DEFAULT_SIZE = (1024, 1024)
_HEADER_CHARS = 65_536  # of base64: a JPEG may keep its size behind a preview picture

# Model → (tokens for any image, tokens for each tile of 512 × 512).
_TILES = (
    ("gpt-4o-mini", 2833, 5667),
    ("gpt-4", 85, 170),
    ("gpt-5", 70, 140),
    ("computer-use", 65, 129),
    ("o1", 75, 150),
    ("o3", 75, 150),
)
# Model → tokens for each patch of 32 × 32, at most 1,536 patches. gpt-5-mini: published as 1.62, billed as 1.2.
_PATCHES = (
    ("gpt-4.1-mini", 1.62),
    ("gpt-4.1-nano", 2.46),
    ("gpt-5-mini", 1.2),
    ("gpt-5-nano", 2.46),
    ("o4-mini", 1.72),
)


def image_tokens(part: Any, model: str, family: str) -> int:
    """Tokens of one image part of a message to `model`; `family` is the name of its `Family`."""
    width, height = size_of(part) or _DEFAULT_SIZE
    if family == "claude":
        # Claude scales the long side to 1568 pixels, then counts 750 pixels a token.
        scale = min(1.0, 1568 / max(width, height))
        return min(1600, ceil(width * height * scale * scale / 750))
    if family == "gemini":
        return 1120 if "gemini-3" in model.lower() else 258
    name = own_name(model)
    for prefix, factor in _PATCHES:
        if name.startswith(prefix):
            return ceil(_patches(width, height) * factor)
    base, tile = next(((base, tile) for prefix, base, tile in _TILES if name.startswith(prefix)), (85, 170))
    if _detail(part) == "low":
        return base
    # Into a square of 2048 first, then the short side down to 768; an image is never enlarged.
    fit = min(1.0, 2048 / max(width, height))
    fit *= min(1.0, 768 / (fit * min(width, height)))
    return base + tile * ceil(width * fit / 512) * ceil(height * fit / 512)


def _patches(width: float, height: float) -> int:
    wide, high = ceil(width / 32), ceil(height / 32)
    if wide * high <= 1536:
        return wide * high
    shrink = sqrt(1536 * 32 * 32 / (width * height))
    wide_exact, high_exact = width * shrink / 32, height * shrink / 32
    shrink *= min(int(wide_exact) / wide_exact, int(high_exact) / high_exact) if wide_exact >= 1 <= high_exact else 1.0
    return min(1536, ceil(width * shrink / 32) * ceil(height * shrink / 32))


def _detail(part: Any) -> str:
    inner = get(part, "image_url")
    return str(get(part, "detail") or (get(inner, "detail") if isinstance(inner, Mapping) else None) or "auto")


def size_of(part: Any) -> tuple[int, int] | None:
    """Width and height in pixels where the part says or carries them."""
    places = [part, *(get(part, key) for key in ("image_url", "source", "image", "inlineData", "inline_data"))]
    for place in places:
        if isinstance(place, bytes):  # LlamaIndex keeps an image so, raw or as base64
            place = place[:_HEADER_CHARS]
            if size := _from_header(place) or _from_base64(place.decode("latin-1")):
                return size
            continue
        if isinstance(place, str):
            if size := _from_base64(place):
                return size
            continue
        width, height = get(place, "width"), get(place, "height")
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            return width, height
        for key in ("url", "data", "base64"):
            text = get(place, key)
            if isinstance(text, str) and (size := _from_base64(text)):
                return size
    return None


def _from_base64(text: str) -> tuple[int, int] | None:
    from binascii import Error, a2b_base64

    head = text[: _HEADER_CHARS + 128]
    if head.startswith(("http://", "https://", "gs://", "file://")):
        return None
    if head.startswith("data:"):
        head = head.partition(",")[2]
    head = head[: min(len(head), _HEADER_CHARS) // 4 * 4]
    try:
        size = _from_header(a2b_base64(head.replace("-", "+").replace("_", "/")))
    except (Error, ValueError, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _from_header(data: bytes) -> tuple[int, int] | None:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:4] == b"GIF8":
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
