"""Compressed bodies, decoded on the side: the client gets its bytes as they came, and decodes them itself."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

Decode = Callable[[bytes], bytes]


def decoder(encoding: str) -> Decode | None:
    """Decodes a body piece by piece. None: it comes as it is. Raises LookupError for an encoding nobody here knows."""
    decode: Decode | None = None
    for name in encoding.lower().split(","):
        name = name.strip()
        if name and name != "identity":
            decode = _after(decode, _one(name))
    return decode


def _after(first: Decode | None, then: Decode) -> Decode:
    return then if first is None else lambda data: first(then(data))  # the encoding applied last is taken off first


def _one(name: str) -> Decode:
    if name in ("gzip", "x-gzip"):
        return _members(zlib.MAX_WBITS | 16)
    if name == "deflate":
        return _deflate()
    if name == "br":
        return _brotli()
    if name == "zstd":
        return _zstandard()
    raise LookupError(f"content-encoding {name!r}")


def _members(bits: int) -> Decode:
    """A gzip body may be several members one after the other."""
    engine = zlib.decompressobj(bits)

    def decode(data: bytes) -> bytes:
        nonlocal engine
        out = engine.decompress(data)
        while engine.eof and (rest := engine.unused_data):
            engine = zlib.decompressobj(bits)
            out += engine.decompress(rest)
        return out

    return decode


def _deflate() -> Decode:
    """With the header of zlib, as it should be, or bare, as some servers send it."""
    engine: Any = None

    def decode(data: bytes) -> bytes:
        nonlocal engine
        if engine is None:
            if not data:
                return b""
            engine = zlib.decompressobj()
            try:
                return bytes(engine.decompress(data))
            except zlib.error:
                engine = zlib.decompressobj(-zlib.MAX_WBITS)
        return bytes(engine.decompress(data))

    return decode


def _brotli() -> Decode:
    try:
        import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        try:
            import brotlicffi as brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise LookupError("content-encoding 'br' without brotli") from None
    engine = brotli.Decompressor()
    return engine.process if hasattr(engine, "process") else engine.decompress  # type: ignore[no-any-return]


def _zstandard() -> Decode:
    try:
        import zstandard
    except ImportError:
        raise LookupError("content-encoding 'zstd' without zstandard") from None
    return zstandard.ZstdDecompressor().decompressobj().decompress
