"""OpenAI's public encodings, built from a file that is already on this machine.

tiktoken's own loader is not used: it fetches a missing file with no timeout while it holds the lock that every
other `get_encoding` needs, and it deletes a cached file that does not match (tiktoken/load.py, registry.py). Here
a file is read, checked against OpenAI's published SHA-256 and handed to `tiktoken.Encoding`, or left alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import re

    from tiktoken import Encoding

_BLOBS = "https://openaipublic.blob.core.windows.net/encodings/"
_MAX_BYTES = 64 * 2**20


class Source(NamedTuple):
    """Where an encoding comes from and how it splits text before merging (tiktoken_ext/openai_public.py)."""

    url: str
    sha256: str
    pattern: str

    @property
    def filename(self) -> str:
        """The name that tiktoken, and everyone who ships its cache, gives the file."""
        import hashlib

        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


_R50K_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_O200K_PATTERN = "|".join(
    (
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    )
)
_O200K = Source(
    _BLOBS + "o200k_base.tiktoken",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    _O200K_PATTERN,
)
SOURCES: dict[str, Source] = {
    "o200k_base": _O200K,
    "o200k_harmony": _O200K,  # differs in its special tokens, which are never counted as such here
    "cl100k_base": Source(
        _BLOBS + "cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K_PATTERN,
    ),
    "p50k_base": Source(
        _BLOBS + "p50k_base.tiktoken",
        "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
        _R50K_PATTERN,
    ),
    "r50k_base": Source(
        _BLOBS + "r50k_base.tiktoken",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        _R50K_PATTERN,
    ),
}

# ------------------------------------------------------------------------------------------------- finding

# Packages that ship tiktoken's cache, and the folders where their versions keep it.
_SHIPPED = (
    ("llama_index", ("core/_static/tiktoken_cache", "legacy/_static/tiktoken_cache", "_static/tiktoken_cache")),
    ("litellm", ("litellm_core_utils/tokenizers", "llms/tokenizers")),
)


def directories() -> Iterator[str]:
    """Where tiktoken's files may be, the user's own folders first. Looks at the disk, imports no package."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if folder := os.environ.get(variable):
            yield folder
    import tempfile
    from contextlib import suppress
    from importlib.util import find_spec

    with suppress(OSError):  # no usable temporary folder
        yield os.path.join(tempfile.gettempdir(), "data-gym-cache")
    for package, folders in _SHIPPED:
        try:
            # The top-level name only: the spec of `llama_index.core` would import its parent.
            spec = find_spec(package)
        except (ImportError, ValueError, AttributeError):  # a module without a spec, a broken import hook
            continue
        for location in (spec.submodule_search_locations or ()) if spec else ():
            for folder in folders:
                yield os.path.join(location, folder)


def read(name: str) -> bytes | None:
    """The encoding's file, verified; `None` when no folder has one that matches. Never changes a file."""
    import hashlib

    source = SOURCES[name]
    for folder in directories():
        path = os.path.join(folder, source.filename)
        try:
            if not os.path.isfile(path) or os.path.getsize(path) > _MAX_BYTES:
                continue
            with open(path, "rb") as file:
                data = file.read()
        except (OSError, ValueError):  # ValueError: a null byte in an environment variable
            continue
        if hashlib.sha256(data).hexdigest() == source.sha256:
            return data
    return None


# ------------------------------------------------------------------------------------------------- loading

_built: dict[str, Encoding] = {}
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    # A child forked while another thread loads would wait for ever for a lock that nobody holds.
    os.register_at_fork(after_in_child=_new_lock)


def load(name: str, *, download: bool = False) -> tuple[Encoding | None, str]:
    """The encoding, or `None` and why not. Takes up to a second the first time, is shared by the process then.

    With `download`, a missing file is fetched by tiktoken, which has no timeout.
    """
    if encoding := _built.get(name) or _tiktokens_own(name):
        return encoding, ""
    with _lock:
        if encoding := _built.get(name):
            return encoding, ""
        try:
            data = read(name)
            if data is not None:
                _built[name] = encoding = _build(name, data)
                return encoding, ""
        except Exception as error:  # tiktoken missing or broken: an estimate is better than a crash
            return None, f"tiktoken cannot be used ({type(error).__name__}: {error})"
    if not download:
        return None, f"no {name} file on this machine"
    try:
        import tiktoken

        # Outside our lock: whoever asked for the network waits for it, nobody else.
        _built[name] = encoding = tiktoken.get_encoding(name)
    except Exception as error:
        return None, f"{name} could not be downloaded ({type(error).__name__})"
    return encoding, ""


def _tiktokens_own(name: str) -> Encoding | None:
    """What the program itself has already loaded through tiktoken, taken without its lock."""
    registry = sys.modules.get("tiktoken.registry")
    loaded: dict[str, Any] = getattr(registry, "ENCODINGS", {})
    return loaded.get(name)


def _build(name: str, data: bytes) -> Encoding:
    from binascii import a2b_base64

    import tiktoken

    for other, encoding in _built.items():
        if SOURCES[other] == SOURCES[name]:
            return encoding
    fields = data.split()
    ranks = dict(zip(map(a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    return tiktoken.Encoding(name, pat_str=SOURCES[name].pattern, mergeable_ranks=ranks, special_tokens={})


# ------------------------------------------------------------------------------------------------ counting

# Every encoding here starts a new piece at these places, whatever stands around them, so that counting both
# sides apart changes nothing: before a space or tab after a visible character; between a letter or digit and
# punctuation (not the apostrophe: "it's"); between ASCII letters and digits.
_BOUNDARY = (
    r"\S(?=[ \t])"
    r"|[^\W_](?=[\s!-&(-/:-@\[-`{-~、。，！？：；「」])"
    r"|[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])"
)
_boundary: re.Pattern[str] | None = None


def count(encode: Callable[[str], list[int]], text: str) -> int:
    """Tokens of `text`, in time that grows with its length only.

    A run without any boundary (a megabyte of one letter) costs tiktoken < 0.10 the square of its length, so it
    is cut by force every 512 characters (128 outside ASCII). Such a cut moves the count by at most 4.
    """
    global _boundary
    step = 256 if text.isascii() else 64
    end = len(text)
    if end <= 2 * step:
        return len(encode(text))
    if _boundary is None:
        import re

        _boundary = re.compile(_BOUNDARY)
    search = _boundary.search
    total = start = 0
    while end - start > 2 * step:
        stop = start
        # A piece may be long as long as boundaries in it are not far apart: calls are dear, runs are dearer.
        while end - stop > 2 * step and stop - start < 16 * step:
            if not (found := search(text, stop + step, stop + 2 * step)):
                break
            stop = found.end()
        if stop == start:
            stop += 2 * step
        total += len(encode(text[start:stop]))
        start = stop
    return total + len(encode(text[start:]))
