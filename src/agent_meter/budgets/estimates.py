"""How much a call may use at most, before it is made.

Input: what the caller says; else the bytes of the prompt times the tokens per byte that this model was seen to take;
until it was seen, an estimate with its error on top, and no more than the bytes (a byte-level tokenizer makes no more
tokens than there are bytes); else what it was seen to take; else an assumption. Output: what the call is capped at;
else what this model was seen to answer, with a margin; else an assumption. What is assumed is named, and a refusal
says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ..records import LLM, Call, Cost, CostStatus, Model, Rates, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Callable

ASSUMED_INPUT = 1_000
ASSUMED_OUTPUT = 4_096
FRAME = 64  # tokens around a prompt: roles, separators, the start of the answer
MARGIN = 1.5  # over the longest answer seen lately
LEAST_RATIO = 1 / 6  # tokens per byte
TELLING = 256  # bytes from which a prompt says something of the ratio
SEEN_ENOUGH = 3
FADES = 0.98  # a largest value seen loses this much with every call that stays below it
KEPT = 1024  # models by agents


class Seen(msgspec.Struct):
    """What the calls of one agent to one model were like."""

    answers: int = 0
    output: float = 0.0  # the largest lately
    input: float = 0.0
    beyond: float = 0.0  # tokens above the bytes of the prompt: what a server adds to it
    ratios: int = 0
    ratio: float = 0.0  # tokens per byte
    dearer: float = 1.0  # against the plain price of its tokens: cache writes, audio, fees

    def learn(self, usage: TokenUsage, size: int | None, dearer: float = 1.0) -> None:
        self.answers += 1
        # Comparisons instead of max(): this is on the path of every call.
        if dearer > 1.0 or self.dearer > 1.0:
            self.dearer = max(1.0, dearer, self.dearer * FADES)
        fading = self.output * FADES
        self.output = usage.output_tokens if usage.output_tokens > fading else fading
        fading = self.input * FADES
        self.input = usage.input_tokens if usage.input_tokens > fading else fading
        if size is not None:
            self.beyond = max(usage.input_tokens - size, self.beyond * FADES)
            if size >= TELLING:
                self.ratios += 1
                self.ratio = max(min(1.0, usage.input_tokens / size), self.ratio * FADES)


class Estimator:
    """Upper bounds that tighten as answers come in. Called under no lock: a lost update costs a little sharpness."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Model | None, str], Seen] = {}

    def seen(self, model: Model | None, agent: str) -> Seen:
        key = (model, agent)
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= KEPT:
                for old in list(self._seen)[: KEPT // 4]:
                    self._seen.pop(old, None)
            found = self._seen[key] = Seen()
        return found

    def bound(self, call: Call, seen: Seen) -> tuple[int, int, int | None, tuple[str, ...]]:
        """Input tokens, output tokens, bytes of the prompt where they are known, and what is assumed."""
        said = call.reserve
        size: int | None = None
        assumed: tuple[str, ...] = ()
        if said is not None and said.bounded:
            assert said.input_tokens is not None
            tokens = said.input_tokens
        elif call.prompt is not None:
            size = call.prompt.size()
            if seen.ratios >= SEEN_ENOUGH:
                tokens = int(min(1.0, max(LEAST_RATIO, seen.ratio * 1.1)) * size)
            else:
                tokens = min(size, call.prompt.tokens())
            tokens += max(FRAME, int(seen.beyond))
        elif seen.answers:
            tokens = int(seen.input * MARGIN) + FRAME
            assumed = ("input_tokens",)
        else:
            tokens = ASSUMED_INPUT
            assumed = ("input_tokens",)
        most = call.max_output_tokens
        if most is None and said is not None:
            most = said.output_tokens
        if most is None:
            if call.kind is not LLM:
                most = 0
            else:
                most = int(seen.output * MARGIN) + FRAME if seen.answers else ASSUMED_OUTPUT
                assumed += ("output_tokens",)
        return max(0, tokens), max(0, most), size, assumed


def price(
    rates: Rates | None,
    usage: TokenUsage,
    at: datetime | None,
    failed: Callable[[str, str, BaseException], None],
) -> int | None:
    """The list price in pico-dollars; `None` where nobody knows. Rates may be a stranger's, and theirs to break."""
    if rates is None or at is None:
        return None
    try:
        cost: Cost = rates.price(usage, at)
        return None if cost.status is CostStatus.UNPRICED else cost.list_pico
    except Exception as error:
        failed(type(rates).__name__, "price", error)
        return None


def assumed_price(rates: tuple[int, int], input_tokens: int, output_tokens: int) -> int:
    return rates[0] * input_tokens + rates[1] * output_tokens
