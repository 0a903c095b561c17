"""What to allow whom: the seed document's planning table, priced by today's rate cards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_UP, Decimal

import msgspec

from ..errors import BudgetError, UnknownModel
from ..pricing import CostEstimator
from .budget import Budget

DAYS = 30
CALL_TOKENS = 4_000  # input and output of a call, as the seed document takes them
OUTPUT_SHARE = 0.25


class Preset(msgspec.Struct, frozen=True):
    """A kind of agent: tokens a day, and what a month may cost in US dollars."""

    name: str
    title: str
    tokens: int
    usd: Decimal


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("customer-support", "Customer Support", 500_000, Decimal(150)),
        Preset("research", "Research Agent", 2_000_000, Decimal(600)),
        Preset("code-generation", "Code Generation", 3_000_000, Decimal(900)),
        Preset("data-analysis", "Data Analysis", 1_000_000, Decimal(300)),
        Preset("internal-tooling", "Internal Tooling", 200_000, Decimal(60)),
    )
}


class Plan(msgspec.Struct, frozen=True):
    """What one kind of agent may use, and what that costs with one model; dollars are a month's."""

    name: str
    title: str
    daily_tokens: int
    monthly_tokens: int
    model: str
    monthly_usd: Decimal  # of the tokens, at list price
    cap_usd: Decimal

    @property
    def fits(self) -> bool:
        """Whether a month of full days stays within the cap."""
        return self.monthly_usd <= self.cap_usd

    @property
    def days(self) -> int | None:
        """After how many full days the cap is reached; None when a month has not so many."""
        return None if self.fits else int(self.cap_usd * DAYS // self.monthly_usd)


def preset(name: str) -> Preset:
    """By its name or title, as people write it. Raises `BudgetError`, which names the nearest."""
    word = re.sub(r"[^a-z]+", "-", name.lower()).strip("-").removesuffix("-agent")
    found = PRESETS.get(word)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(word, PRESETS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
        raise BudgetError(f"no kind of agent {name!r}; {hint}; with --tokens any name will do")
    return found


def plan(
    presets: Iterable[Preset],
    model: str,
    *,
    output_share: float = OUTPUT_SHARE,
    call_tokens: int = CALL_TOKENS,
    estimator: CostEstimator | None = None,
) -> list[Plan]:
    """What they would cost with `model`, when `output_share` of the tokens are answers and a call has `call_tokens`.

    A call's size matters where a provider charges more for long ones. Raises `UnknownModel` for one without a price.
    """
    if not 0 <= output_share <= 1:
        raise BudgetError(f"the share of output is 0 to 1, not {output_share}")
    if call_tokens < 1:
        raise BudgetError(f"a call has at least one token, not {call_tokens}")
    output = round(call_tokens * output_share)
    cost = (estimator or CostEstimator()).estimate(model=model, input_tokens=call_tokens - output, output_tokens=output)
    if cost.amount is None:
        raise UnknownModel(f"no price for {model!r}; agent-meter prices show {model} says why")
    each = cost.amount / call_tokens
    found = []
    for one in presets:
        monthly = one.tokens * DAYS
        found.append(
            Plan(
                one.name,
                one.title,
                one.tokens,
                monthly,
                model,
                (each * monthly).quantize(Decimal("0.01"), ROUND_UP),
                one.usd,
            )
        )
    return found


def budgets(presets: Iterable[Preset]) -> list[Budget]:
    """The limits themselves: tokens a day and dollars a month, for the agent of the preset's name."""
    return [
        budget
        for one in presets
        for budget in (
            Budget(f"{one.name}-daily", tokens=one.tokens, per="day", agent=one.name),
            Budget(f"{one.name}-monthly", usd=one.usd, per="month", agent=one.name),
        )
    ]


def snippet(presets: Iterable[Preset]) -> str:
    """The same as a `budgets.yaml`."""
    lines = ["budgets:"]
    for budget in budgets(presets):
        first = "  - "
        for key, value in budget.to_dict().items():
            lines.append(f"{first}{key}: {_scalar(value)}")
            first = "    "
    return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    import json

    text = str(value)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z-]*|\d+(\.\d+)?", text) and text.lower() not in ("yes", "no", "on", "off")
    return text if plain else json.dumps(text)
