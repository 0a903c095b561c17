"""UsageTracker: a meter by the words of the seed documents."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from .errors import UnknownModel
from .meter import Meter
from .records import NO_USAGE, TOKEN_CLASSES, Model, TokenUsage, UsageRecord, dollars
from .usage import AgentUsage

NO_TOOL = "_agent"  # the seed's key for what no tool was asked for in
# Words that other libraries have for the same numbers.
_WORDS = {
    "input_tokens": ("request_tokens", "prompt_tokens"),
    "output_tokens": ("response_tokens", "completion_tokens"),
}


class UsageTracker:
    """Told afterwards, asked for sums: a thin view of a `Meter`, one of its own unless one is given.

    Nothing is kept here: what another part of the program records in the same meter is in every answer.
    """

    def __init__(self, meter: Meter | None = None, *, cost_rates: Mapping[str, Any] | None = None) -> None:
        """`cost_rates` are US$ for 1,000 tokens by model, for a meter of its own."""
        if meter is not None and cost_rates is not None:
            raise TypeError("cost_rates are for a meter of its own: give them to Meter(cost_rates=…)")
        self.meter = Meter(cost_rates=cost_rates) if meter is None else meter

    # ------------------------------------------------------------------------------------------- recording

    def record_usage(
        self,
        usage: Any = None,
        model: str | None = None,
        tool_name: str | None = None,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        **more: Any,
    ) -> UsageRecord:
        """Record one request: by its numbers, or with a usage object (pydantic-ai's, a `TokenUsage`).

        `more` goes to `Meter.record_usage`: the other classes of tokens, `provider`, `agent`, `user`, …
        """
        counts: dict[str, Any] = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        if usage is not None:
            counts = _counts(usage)
        return self.meter.record_usage(model=model or "", tool_name=tool_name, **{**counts, **more})

    def record_raw(
        self, prompt_tokens: int, completion_tokens: int, model: str | None = None, tool_name: str | None = None
    ) -> UsageRecord:
        return self.record_usage(
            model=model, tool_name=tool_name, input_tokens=prompt_tokens, output_tokens=completion_tokens
        )

    # ------------------------------------------------------------------------------------------- answering

    def get_summary(self) -> AgentUsage:
        """The totals, as a snapshot."""
        return self.meter.usage

    get_total_usage = get_summary

    def get_history(self) -> list[UsageRecord]:
        """The last requests, newest last."""
        return self.meter.history()

    get_usage_history = get_history

    def get_breakdown_by_tool(self) -> dict[str, AgentUsage]:
        """Usage by the tool that was asked for, and under "_agent" what no tool was asked for in."""
        return {tool or NO_TOOL: usage for tool, usage in self.meter.usage_by("tool").items()}

    def get_cost_estimate(self, model: str | None = None) -> Decimal:
        """The list price of everything in US dollars; with `model`, as if that model had answered every request.

        Raises `UnknownModel` when a price is missing: `get_summary()` has the lower bound.
        """
        usage = self.meter.usage
        if model is None:
            if usage.is_lower_bound:
                without = usage.unpriced_requests + usage.partial_requests
                raise UnknownModel(f"{without} of {usage.requests} requests have no full price")
            return usage.cost_usd
        history = self.meter.history()
        if len(history) < usage.requests:
            raise ValueError(
                f"the history holds {len(history):,} of {usage.requests:,} requests: make the meter with a bigger keep"
            )
        rates = self.meter.prices.find(Model(name=model))
        total = 0
        for record in history:
            amount = rates.price(record.usage or NO_USAGE, record.started_at).list_pico
            if amount is None:
                raise UnknownModel(f"no price for {model!r}: {rates.reason}")
            total += amount
        return dollars(total)

    def reset(self) -> None:
        """Clear usage, history and analytics."""
        self.meter.reset()


def _counts(usage: Any) -> dict[str, Any]:
    """The arguments of `record_usage` that a usage object has a word for."""
    if isinstance(usage, TokenUsage):
        named = msgspec.structs.asdict(usage)
        reported = named.pop("reported_pico")
        return named | {"reported_cost_usd": None if reported is None else dollars(reported)}
    counts = {}
    for name in TOKEN_CLASSES:
        for word in (name, *_WORDS.get(name, ())):
            value = getattr(usage, word, None)
            if isinstance(value, int):
                counts[name] = value
                break
    details = getattr(usage, "details", None)
    if isinstance(details, Mapping) and "reasoning_tokens" not in counts:
        counts["reasoning_tokens"] = details.get("reasoning_tokens") or 0
    if not counts.keys() & _WORDS.keys():
        raise TypeError(f"not a usage object: {usage!r}")
    return counts
