"""The provider's sums beside ours, and what in the ledger may explain a difference."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..exporters.providers import vendor
from ..pricing.names import provider_key
from ..records import pico
from ..usage import AgentUsage

if TYPE_CHECKING:
    from ..pricing import PriceBook
    from ..store import Store


class Compared(NamedTuple):
    """One line of the comparison, in pico-dollars. `theirs_tokens` where their file has tokens."""

    what: tuple[str, ...]
    ours_pico: int
    theirs_pico: int | None
    tolerance: float
    reasons: tuple[str, ...] = ()
    ours_tokens: int = 0
    theirs_tokens: int | None = None

    @property
    def difference_pico(self) -> int:
        return self.ours_pico - (self.theirs_pico or 0)

    @property
    def percent(self) -> float | None:
        """The difference as a percentage of theirs; `None` where they have nothing."""
        return 100 * self.difference_pico / self.theirs_pico if self.theirs_pico else None

    @property
    def agrees(self) -> bool:
        if self.theirs_pico is None:
            ours, theirs = self.ours_tokens, self.theirs_tokens or 0
            return abs(ours - theirs) * 100 <= self.tolerance * theirs
        # A cent is what an invoice rounds to.
        return abs(self.difference_pico) <= max(10**10 // 2, self.theirs_pico * self.tolerance / 100)


def by_provider(
    store: Store,
    official: Mapping[str, Decimal],
    since: datetime | None,
    until: datetime | None,
    tolerance: float,
    book: PriceBook,
) -> list[Compared]:
    """What each provider says is owed beside what the ledger has as billed. Names in any spelling.

    Calls that name no provider count for the one whose price list has their model.
    """
    ours: dict[str, AgentUsage] = {}
    for (provider, model), usage in store.usage_by("provider", "model", since=since, until=until).items():
        provider = provider or book.find(model).provider
        ours.setdefault(provider, AgentUsage()).totals.merge(usage.totals)
    found = []
    for name, usd in official.items():
        mine = AgentUsage()
        for provider, usage in ours.items():
            if _same(provider, name):
                mine.totals.merge(usage.totals)
        found.append(Compared((name,), mine.totals.billed_pico, pico(usd), tolerance, tuple(_reasons(mine))))
    return found


def _same(provider: str, name: str) -> bool:
    """Whether a provider's key is meant by a name such as "OpenAI", "Amazon Web Services" or "bedrock"."""
    company = vendor(provider)
    spelt = name.strip().lower()
    return bool(provider) and (
        provider_key(provider) == provider_key(name) or spelt in (company.company.lower(), company.service.lower())
    )


def _reasons(usage: AgentUsage) -> Iterator[str]:
    totals = usage.totals
    if not totals.requests:
        yield "the ledger has no call of this provider in the range"
    for number, said in (
        (totals.unpriced_requests, "unpriced, and not in our sum"),
        (totals.partial_requests, "priced in part"),
        (totals.estimated_requests, "estimated, for the provider's usage was not seen"),
        (totals.failed_requests, "failed, and some providers bill what had been answered"),
        (totals.cached_requests, "replayed from a cache and billed 0"),
    ):
        if number:
            yield f"{number:,} {said}"


# ------------------------------------------------------------------------------------------ a provider's export


class Usage(NamedTuple):
    """What an export says of one model on one day."""

    usd: Decimal | None
    tokens: int | None


_DAY = (
    "date", "day", "usage_date_utc", "usage_date", "start_time_iso", "bucket_start", "start_time", "timestamp", "time"
)  # fmt: skip
_MODEL = ("model", "model_version", "model_name", "snapshot_id", "line_item", "sku")
_COST = ("cost_usd", "cost_in_usd", "amount_usd", "cost", "amount_value", "amount", "total_cost", "usd", "spend")
_TOKENS = re.compile(
    r"(usage_)?(input|output|prompt|completion|context|generated|n_context|n_generated|cache_\w+)_tokens(_total|_\w+)?"
)
_PARTS = ("cached", "audio")  # of what another column has counted already


def read_usage(path: Path) -> dict[tuple[str, str], Usage]:
    """By day and model: a provider's CSV export of usage or cost. `ValueError` says which column is missed."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = {_key(name): name for name in reader.fieldnames or ()}
        day = next((columns[name] for name in _DAY if name in columns), None)
        model = next((columns[name] for name in _MODEL if name in columns), None)
        cost = next((columns[name] for name in _COST if name in columns), None)
        tokens = [name for key, name in columns.items() if _TOKENS.fullmatch(key) and not any(p in key for p in _PARTS)]
        if model is None or (cost is None and not tokens):
            wanted = f"a model ({', '.join(_MODEL[:3])} …) and a cost ({', '.join(_COST[:3])} …) or token columns"
            raise ValueError(f"no columns for {wanted} among {', '.join(reader.fieldnames or ()) or 'none'}")
        found: dict[tuple[str, str], Usage] = {}
        for number, row in enumerate(reader, 2):
            try:
                key = (_day(row[day]) if day else "", row[model].strip())
                before = found.get(key, Usage(Decimal(0) if cost else None, 0 if tokens else None))
                usd = None if before.usd is None or cost is None else before.usd + _number(row[cost])
                count = None if before.tokens is None else before.tokens + sum(int(_number(row[n])) for n in tokens)
            except (ValueError, InvalidOperation, AttributeError) as error:
                raise ValueError(f"line {number}: {error}") from None
            found[key] = Usage(usd, count)
    return found


def by_usage(
    store: Store,
    theirs: Mapping[tuple[str, str], Usage],
    since: datetime | None,
    until: datetime | None,
    tolerance: float,
) -> list[Compared]:
    """Ours and theirs by day and model, of the days that their file covers and inside the range."""
    dated = any(day for day, _ in theirs)
    days = {day for day, _ in theirs}
    groups = store.usage_by(*(("day", "model") if dated else ("model",)), since=since, until=until)
    named = {key if dated else ("", key): usage for key, usage in groups.items()}
    ours: dict[tuple[str, str], AgentUsage] = {key: usage for key, usage in named.items() if key[0] in days}
    low, high = (None if at is None else f"{at:%Y-%m-%d}" for at in (since, until))
    found = []
    for key in sorted({*ours, *theirs}):
        if key[0] and ((low and key[0] < low) or (high and key[0] >= high)):
            continue
        mine, said = ours.get(key) or AgentUsage(), theirs.get(key) or Usage(Decimal(0), 0)
        usd = None if said.usd is None else pico(said.usd)
        tokens = mine.total_tokens + mine.embedding_tokens
        reasons = tuple(_reasons(mine)) if key in ours else ("only in their file",)
        if key not in theirs:
            reasons = ("only in the ledger", *reasons)
        one = Compared(
            tuple(part for part in key if part), mine.totals.billed_pico, usd, tolerance, reasons, tokens, said.tokens
        )
        found.append(one._replace(reasons=() if one.agrees else reasons))
    return found


def _key(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def _day(text: str) -> str:
    text = text.strip()
    if text.replace(".", "", 1).isdigit():
        return f"{datetime.fromtimestamp(float(text), UTC):%Y-%m-%d}"
    at = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    return f"{at.astimezone(UTC) if at.tzinfo else at:%Y-%m-%d}"


def _number(text: str | None) -> Decimal:
    text = (text or "").strip().removeprefix("$").replace(",", "")
    return Decimal(text) if text else Decimal(0)
