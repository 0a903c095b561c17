"""The documents that `--json` prints. Amounts are strings, so that no reader turns them into floats.

Rates are US$ for `per` pieces of a unit, totals US$. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from ..pricing.cards import plain
from ..pricing.catalog import Change, Checked, Listed, Period, Rate, Shown, Update
from ..pricing.whatif import WhatIf
from ..records import TOKEN_CLASSES, dollars
from .whatif import fees_of

Document = dict[str, Any]


def amount(usd: Decimal | None) -> str | None:
    return None if usd is None else plain(usd)


def count(number: int | Decimal) -> int | str:
    """Whole counts are numbers, others (12.5 seconds) text."""
    return number if isinstance(number, int) else plain(number)


def shown(model: Shown, *, asked: str, nearest: Sequence[str] = ()) -> Document:
    return {
        "asked": asked,
        "known": model.known,
        "provider": model.provider,
        "model": model.model,
        "at": model.at.isoformat(),
        "context_window": model.context_window,
        "source": model.source,
        "reason": model.reason,
        "nearest": list(nearest),
        "now": None if model.now is None else _period(model.now),
        "periods": [_period(period) for period in model.periods],
    }


def _period(period: Period) -> Document:
    return {
        "when": period.when,
        "card_id": period.card_id,
        "source": period.source,
        "note": period.note,
        "free": period.free,
        "rates": _rates(period.rates),
        "variants": [
            {"request": what, "when": when, "rates": _rates(rates)} for what, when, rates in period.variants
        ],
    }  # fmt: skip


def _rates(rates: Iterable[Rate]) -> Document:
    return {
        rate.unit: {
            "usd": amount(rate.usd),
            "per": rate.per,
            **({"above": [{"input_tokens": n, "usd": amount(usd)} for n, usd in rate.above]} if rate.above else {}),
        }
        for rate in rates
    }


def listing(rows: Iterable[Listed], source: str) -> Document:
    return {
        "source": source,
        "models": [
            {
                key: amount(value) if isinstance(value, Decimal) else value
                for key, value in row._asdict().items()
            }
            for row in rows
        ],
    }  # fmt: skip


def changes(found: Iterable[Change]) -> Document:
    found = list(found)
    models = [change for change in found if change.unit == "model"]
    return {
        "new": [f"{change.provider}/{change.model}" for change in models if change.before is None],
        "gone": [f"{change.provider}/{change.model}" for change in models if change.after is None],
        "rates": [
            {
                "provider": change.provider, "model": change.model, "rate": change.unit,
                "before": amount(change.before), "after": amount(change.after), "moved_far": change.moved_far,
            }
            for change in found if change.unit != "model"
        ],
    }  # fmt: skip


def updated(done: Update) -> Document:
    return {
        "accepted": True, "path": str(done.path), "sha256": done.sha256, "models": done.models,
        "problems": list(done.problems), **changes(done.changes),
    }  # fmt: skip


def refused(problems: Sequence[str], found: Iterable[Change]) -> Document:
    return {"accepted": False, "problems": list(problems), **changes(found)}


def checked(file: Checked) -> Document:
    return {key: list(value) if isinstance(value, tuple) else str(value) for key, value in file._asdict().items()}


def whatif(sums: Sequence[WhatIf], unpriced: Sequence[Document]) -> Document:
    return {"models": [_whatif(each) for each in sums], "unpriced": list(unpriced)}


def _whatif(each: WhatIf) -> Document:
    cost, usage = each.each, each.usage
    return {
        "provider": each.provider,
        "model": each.model,
        "status": cost.status.value,
        "tasks": each.tasks,
        "usage": {
            **{name: n for name in TOKEN_CLASSES if (n := getattr(usage, name))},
            **{name: count(n) for name, n in usage.units.items()},
        },
        "context": dict(usage.context),
        "each": {
            "usd": amount(cost.amount),
            "input_usd": amount(cost.prompt_cost),
            "output_usd": amount(cost.completion_cost),
            "fees_usd": None if cost.amount is None else amount(fees_of(each)),
            "lines": [
                {
                    "unit": line.unit, "quantity": count(line.quantity), "rate_usd": amount(line.usd),
                    "per": line.per, "usd": amount(dollars(line.pico)),
                }
                for line in each.lines
            ],
        },
        "total_usd": amount(each.total),
        "card_id": cost.card_id,
        "missing": list(cost.missing),
        "assumptions": list(cost.assumptions),
        "reason": cost.reason,
    }  # fmt: skip
