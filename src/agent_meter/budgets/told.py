"""What people are told: why a call was refused, and that a threshold was crossed."""

from __future__ import annotations

from ..records import Alert, Denial
from .budget import written
from .engine import Change, Refusal
from .matching import USD, Line
from .windows import Span

_WINDOWS = {"day": "daily", "hour": "hourly", "week": "weekly", "month": "monthly", "minute": "per minute",
            "year": "yearly", "run": "per run", "total": "in total"}  # fmt: skip


def denial(
    line: Line, refusal: Refusal, requested: int, span: Span, fits: int | None, assumed: tuple[str, ...], output: int
) -> Denial:
    """The refusal of one counter as a sentence, with its numbers."""
    unit, limit = line.limit.unit, line.limit.amount
    resets = line.window.resets_at(span, refusal.oldest)
    says = [f"{written(refusal.used, unit)} of {written(limit, unit)} used"]
    if refusal.reserved:
        says.append(f"{written(refusal.reserved, unit)} held by calls in flight")
    asks = f"this call needs up to {written(requested, unit)}" if requested else "nothing is allowed any more"
    if "output_tokens" in assumed and line.code <= 1:
        asks += f" (its answer is assumed at {output:,} tokens: no maximum was asked for)"
    says.append(asks)
    if fits:
        says.append(f"{fits:,} output tokens would fit")
    if resets is not None:
        says.append(f"resets at {resets.isoformat(timespec='seconds')}")
    window = line.window.name
    return Denial(
        f"{', '.join(says[:2]) if refusal.reserved else says[0]} ({_WINDOWS.get(window, window)}); "
        + "; ".join(says[2 if refusal.reserved else 1 :]),
        f"budget {line.label}",
        line.budget.name,
        unit,
        limit,
        refusal.used,
        refusal.reserved,
        requested,
        resets,
        fits,
        window,
    )


def unpriced(line: Line, model: object) -> Denial:
    return Denial(
        f"no price is known for {model}, so a budget in money cannot hold it; set one with meter.prices.set(…), "
        "or say Budget(on_unpriced=…)",
        f"budget {line.label}",
        line.budget.name,
        line.limit.unit,
        line.limit.amount,
        per=line.window.name,
    )


def unreadable(line: Line, error: BaseException) -> Denial:
    return Denial(
        f"it cannot be read ({type(error).__name__}), and on_error is 'deny'",
        f"budget {line.label}",
        line.budget.name,
        line.limit.unit,
        line.limit.amount,
        per=line.window.name,
    )


def crossed(line: Line, change: Change) -> list[Alert]:
    """An alert for each threshold that this change has reached for the first time in its window."""
    return [
        alert(line, at, change.after) for at, amount in line.limit.thresholds if change.before < amount <= change.after
    ]


def alert(line: Line, threshold: float, used: int) -> Alert:
    return reached(line.budget.name, line.scope, threshold, used, line.limit.amount, line.limit.unit)


def reached(name: str, scope: str, threshold: float, used: int, limit: int, unit: str) -> Alert:
    """`researcher: 83% of budget used (415,000 tokens)`."""
    percent = used * 100 / limit if limit else 100.0
    label = f"{name} ({scope})" if scope else name
    message = f"{label}: {percent:.0f}% of budget used ({written(used, unit)})"
    return Alert(name, message, threshold, used, limit, unit, scope=scope)


def fitting(
    line: Line, refusal: Refusal, input_tokens: int, input_pico: int | None, output_pico: int | None
) -> int | None:
    """How many output tokens would have been let through. `output_pico`: the price of a million."""
    left = (line.enforced or 0) - refusal.used - refusal.reserved
    if line.code == USD:
        if input_pico is None or not output_pico:
            return None
        return max(0, (left - input_pico) * 10**6 // output_pico)
    if line.limit.unit == "tokens":
        return max(0, left - (0 if line.counting == "output" else input_tokens))
    return None
