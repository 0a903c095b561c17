"""The names that somebody may have meant: of models that have a rate, of providers that are listed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

from ..errors import PriceError
from .book import PriceBook
from .names import base_name, provider_key
from .pricelist import PriceList

_ALIKE = 0.6  # of difflib's ratio; below it, names have little in common
_WITHIN = 0.75  # what a name counts that contains the one asked for …
_BEGINS = 0.9  # … or begins with it


def nearest(prices: PriceBook, model: str, *, provider: str = "", count: int = 3) -> tuple[str, ...]:
    """Names that have a rate and resemble `model`, the most alike first, as `find` takes them: `openai/gpt-4o`.

    Those of `provider`, where it lists any.
    """
    wanted = base_name(model)
    owner = _spelled(provider, prices.price_list.providers)
    known = _names(prices)
    if owner is not None:
        own = {name: whose for name, full in known.items() if (whose := [f for f in full if f.startswith(f"{owner}/")])}
        if found := _alike(prices, wanted, own, count):
            return found
    return _alike(prices, wanted, known, count)


def provider_in(prices: PriceList, name: str) -> str:
    """A provider as the list spells it (`gemini` is `google`). Raises `PriceError`, which names the nearest one."""
    found = _spelled(name, prices.providers)
    if found is None:
        near = get_close_matches(name.strip().lower(), prices.providers, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(prices.providers)}"
        raise PriceError(f"no provider {name!r} in the price list; {hint}")
    return found


def _names(prices: PriceBook) -> dict[str, list[str]]:
    """Bare names, and under which full names they have a rate: the user's own first."""
    listed = prices.price_list
    corrected = list(listed.corrected.layer) if listed.corrected is not None else []
    names: dict[str, list[str]] = {}
    for full in (
        *(name for layer in prices._state.layers for name in layer),
        *(f"{owner.id}/{model.id}" for owner in listed.providers.values() for model in owner.models),
        *corrected,
    ):
        names.setdefault(base_name(full), []).append(full)
    return names


def _alike(prices: PriceBook, wanted: str, names: dict[str, list[str]], count: int) -> tuple[str, ...]:
    scored = sorted((-score, len(name), name) for name in names if (score := _likeness(wanted, name)) >= _ALIKE)
    found: list[str] = []
    for _, _, name in scored:
        # Many sell one model: its maker goes first.
        maker = f"{prices.find(name).provider}/"
        makers = [full for full in names[name] if full.startswith(maker)]
        found += [full for full in (*makers, *names[name]) if prices.find(full).known][:1]
        if len(found) == count:
            break
    return tuple(found)


def _likeness(wanted: str, name: str) -> float:
    matcher = SequenceMatcher(None, wanted, name)
    likely = matcher.real_quick_ratio() >= _ALIKE and matcher.quick_ratio() >= _ALIKE
    alike = matcher.ratio() if likely else 0.0
    if len(wanted) < 3 or wanted not in name:
        return alike
    return max(alike, _BEGINS if name.startswith(wanted) else _WITHIN)


def _spelled(name: str, providers: Iterable[str]) -> str | None:
    key = provider_key(name)
    return next((p for p in (name.strip().lower(), key, key.replace("_", "-")) if p and p in providers), None)
