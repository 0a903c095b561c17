"""TokenCounter: how many tokens a text, a conversation or a set of tools is to a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import bpe
from .estimate import ERROR, characters_to_tokens
from .families import OPENAI, Family, family_of

if TYPE_CHECKING:
    from tiktoken import Encoding

_ROLES = frozenset({"system", "user", "assistant", "tool", "developer", "function", "model"})


class TokenCounter:
    """Counts tokens offline: exactly for OpenAI's models where the encoding's file is at hand, else by a
    calibrated estimate that says so (`exact`, `method`, `error`).

    `encoding` is one of o200k_base (the default), o200k_harmony, cl100k_base, p50k_base, r50k_base; `model` picks
    encoding and chat template for you, any vendor's name will do. `download=True` lets tiktoken fetch a missing
    file (it has no timeout); without it, no connection is ever opened.

    The file is looked for at the first count, in TIKTOKEN_CACHE_DIR, DATA_GYM_CACHE_DIR, the temporary folder's
    data-gym-cache, and in what llama-index-core and litellm ship. What a counter found, it keeps.
    """

    def __init__(self, encoding: str | None = None, *, model: str | None = None, download: bool = False) -> None:
        if encoding is not None and encoding not in bpe.SOURCES:
            hint = f"; for a model write TokenCounter(model={encoding!r})" if isinstance(encoding, str) else ""
            raise ValueError(f"unknown encoding {encoding!r}, known are {', '.join(sorted(bpe.SOURCES))}{hint}")
        family = family_of(model) if model else OPENAI
        if encoding is not None:
            # The words of the caller: this encoding, no factor. It is the model's own only if the model says so.
            own = not model or (family.exact and bpe.SOURCES[encoding] == bpe.SOURCES[family.encoding])
            error = 0.0 if own else max(0.25, family.error)
            family = family._replace(encoding=encoding, exact=own, factor=1.0, error=error)
        self._given = (encoding, model, download)
        self._family: Family = family
        self._download = download
        self._bpe: Encoding | None = None
        self._why_not: str | None = None  # set when the search for the encoding is over and found nothing
        self.model = model or ""
        self.encoding = family.encoding

    def __repr__(self) -> str:
        return (
            f"TokenCounter({self.encoding!r}, model={self.model!r})"
            if self.model
            else f"TokenCounter({self.encoding!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # An encoding does not travel: the other process looks for its own.
        return (_make, self._given)

    # ------------------------------------------------------------------------------------ what is known

    def _encoding(self) -> Encoding | None:
        if self._bpe is None and self._why_not is None:
            found, why_not = bpe.load(self.encoding, download=self._download)
            self._bpe = found
            if found is None:
                self._why_not = why_not
        return self._bpe

    @property
    def exact(self) -> bool:
        """True when `count` gives the model's own number. Asking loads the encoding, as counting does."""
        return self._encoding() is not None and self._family.exact

    @property
    def method(self) -> str:
        """How counts are made, in words fit for a report."""
        factor = "" if self._family.factor == 1.0 else f" × {self._family.factor:g}"
        whose = "" if self._family.exact else f", for {self._family.name} models"
        if self._encoding() is not None:
            return f"tiktoken {self.encoding}{factor}{whose}"
        return f"characters by script{factor}{whose} ({self._why_not})"

    @property
    def error(self) -> float:
        """The relative error that nine of ten counts stay within: 0.0 when exact, 0.25 is 25 %."""
        if self._encoding() is not None:
            return self._family.error
        return round(math.hypot(ERROR, self._family.error), 2)

    # ----------------------------------------------------------------------------------------- counting

    def count(self, text: str | None) -> int:
        """Tokens of a text as a model reads it: special tokens in it are text. `None` is 0."""
        if text is None:
            return 0
        if not isinstance(text, str):
            hint = (
                ": decode them first, e.g. data.decode('utf-8')"
                if isinstance(text, (bytes, bytearray, memoryview))
                else ""
            )
            raise TypeError(f"count() takes a str, not {type(text).__name__}{hint}")
        return self._round(self._raw(text))

    def _raw(self, text: str) -> float:
        encoding = self._encoding()
        if encoding is None:
            return characters_to_tokens(text) * self._family.factor
        return bpe.count(encoding.encode_ordinary, text) * self._family.factor

    @staticmethod
    def _round(tokens: float) -> int:
        return max(1, round(tokens)) if tokens else 0

    def count_messages(self, messages: Iterable[Any] | str | None, tools: Iterable[Any] | None = None) -> int:
        """Input tokens of a request: the messages, the chat template around them, and `tools` if it has any.

        A message is a dict of any vendor's shape, an object with `content` (LangChain, LlamaIndex), a
        `(role, text)` pair or a str. Images count by the vendor's formula where their size is known without
        fetching them. Audio, files, video and reasoning items count nothing: `uncounted()` names them.
        """
        from .images import image_tokens
        from .messages import parts_of
        from .tools import SYSTEM

        family = self._family
        total = float(family.request)
        system = False
        messages = _listed(messages)
        for message in messages:
            parts = parts_of(message)
            system = system or parts.role in ("system", "developer")
            total += family.message + parts.calls * family.tool_call
            if parts.role not in _ROLES:
                total += self._raw(parts.role) - 1
            if parts.name:
                total += self._raw(parts.name) + 1
            total += sum(map(self._raw, parts.texts))
            total += sum(image_tokens(image, self.model, family.name) for image in parts.images)
        declared = self.count_tools(tools)
        if declared and not system and family.name == "openai":
            declared += SYSTEM
        return self._round(total + declared) if messages else declared

    def count_tools(self, tools: Iterable[Any] | None) -> int:
        """What tool schemas add to a request that has a system message (OpenAI's, Anthropic's, LangChain's form).

        Within a token or two for OpenAI's gpt-3.5 and gpt-4 models, less proven for gpt-5; rough for other vendors.
        """
        from .tools import FRAME, SYSTEM, declaration

        listed = _listed(tools)
        if not listed:
            return 0
        return self._round(self._raw(declaration(listed)) + FRAME - SYSTEM + self._family.tools)

    def uncounted(self, messages: Iterable[Any] | str | None) -> tuple[str, ...]:
        """The kinds of content in `messages` that `count_messages` counts as nothing, each once."""
        from .messages import parts_of

        kinds = (kind for message in _listed(messages) for kind in parts_of(message).uncounted)
        return tuple(dict.fromkeys(kinds))


def _listed(things: Any) -> Sequence[Any]:
    if things is None:
        return ()
    if isinstance(things, (str, Mapping)) or not isinstance(things, Iterable):
        return (things,) if things else ()
    return things if isinstance(things, list) else list(things)


def _make(encoding: str | None, model: str | None, download: bool) -> TokenCounter:
    return TokenCounter(encoding, model=model, download=download)


@lru_cache(maxsize=256)
def counter_for(model: str) -> TokenCounter:
    """The process's shared counter for a model; the 256 last asked for are kept."""
    return TokenCounter(model=model)
