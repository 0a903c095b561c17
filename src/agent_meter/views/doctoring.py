"""What is wrong with a ledger's figures, as findings: each says what it looked at and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from ..patterns import printable
from ..records import Model
from .report import calls
from .terminal import title

if TYPE_CHECKING:
    from ..pricing import PriceBook
    from ..store import Store

_SHOWN = 5


class Finding(NamedTuple):
    """One thing looked at; `advice` is what to do where it is not well."""

    about: str
    ok: bool
    said: str
    advice: str = ""


def examine(
    store: Store, since: datetime | None, until: datetime | None, prices: PriceBook, coverage: float
) -> list[Finding]:
    usage = store.usage(since, until)
    models = store.usage_by("provider", "model", since=since, until=until)
    found = [_priced(models, prices), _partly(models), _covered(usage, coverage), _attributed(store, since, until)]
    health = store.health()
    for name, said in (
        ("dead", "records that could not be stored wait in the dead-letter table"),
        ("dropped", "records were dropped because the queue was full"),
        ("spilled", "records wait beside the store until it takes them"),
    ):
        if number := health.get(name):
            found.append(Finding("store", False, f"{number:,} {said}", "agent-meter verify shows what is missing"))
    if usage.requests and not any(one.about == "store" for one in found):
        found.append(Finding("store", True, "no record was lost"))
    return found


def _priced(models: object, prices: PriceBook) -> Finding:
    assert isinstance(models, dict)
    unpriced = {key: usage.unpriced_requests for key, usage in models.items() if usage.unpriced_requests}
    if not unpriced:
        return Finding("prices", True, "every call has a price")
    names = sorted(unpriced, key=lambda key: -unpriced[key])
    known = [key for key in names if prices.find(Model(*key)).known]
    listed = _listed([_model(key) for key in names])
    advice = "give them a price: docs/how-to/set-prices.md, or prices.set(…)"
    if known:
        advice = f"{_listed([_model(key) for key in known])} has a price by now: agent-meter reprice --dry-run"
    return Finding("prices", False, f"{calls(sum(unpriced.values()))} unpriced: {listed}", advice)


def _partly(models: object) -> Finding:
    assert isinstance(models, dict)
    partial = {key: usage.partial_requests for key, usage in models.items() if usage.partial_requests}
    if not partial:
        return Finding("rates", True, "every unit that was used has a rate")
    return Finding(
        "rates",
        False,
        f"{calls(sum(partial.values()))} priced in part: {_listed([_model(key) for key in partial])}",
        "agent-meter explain RECORD names the unit without a rate",
    )


def _covered(usage: object, coverage: float) -> Finding:
    requests, estimated = getattr(usage, "requests", 0), getattr(usage, "estimated_requests", 0)
    if not requests:
        return Finding("usage", True, "no calls in this range")
    percent = 100 - 100 * estimated / requests
    return Finding(
        "usage",
        percent >= coverage,
        f"{percent:.1f}% of {calls(requests)} have the provider's own usage",
        "" if percent >= coverage else "streams without usage? docs/how-to/count-right-with-your-provider.md",
    )


def _attributed(store: Store, since: datetime | None, until: datetime | None) -> Finding:
    agents = store.usage_by("agent", since=since, until=until)
    whole = sum(usage.requests for usage in agents.values())
    nobody = agents[""].requests if "" in agents else 0
    if not whole or nobody < whole:
        return Finding("attribution", True, f"{calls(whole - nobody)} of {whole:,} have an agent")
    return Finding("attribution", True, "no call has an agent; meter.scope(agent=…) says whose calls they are")


def _model(key: tuple[str, str]) -> str:
    return printable("/".join(part for part in key if part)) or "(no model)"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def screen(found: Sequence[Finding], range: str) -> Iterator[RenderableType]:
    yield title(f"doctor · {range} (UTC)")
    yield ""
    for one in found:
        yield Text(f"{'✓' if one.ok else '!'} {one.about}: {one.said}")
        if one.advice:
            yield Text(f"  {one.advice}", style="dim")
