"""Budget: how much may be used, by whom, in which window, and what happens at the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BudgetError
from ..records import PICO, Denial, dollars, pico
from .windows import Window, window

if TYPE_CHECKING:
    from ..records import Call

HARD, SOFT, SHADOW, WAIT = MODES = ("hard", "soft", "shadow", "wait")
MONEY = ("billed", "list")
TOKENS = ("total", "work", "input", "output")
NAMES = ("agent", "task", "user", "session", "step")
SCOPE = (*NAMES, "model", "provider", "tool")
EACH = "*"
_OPTIONS = ("usd", "tokens", "requests", "units", "per", "mode", "alert_at", "metric", "on_unpriced", "on_error",
            "on_exceed", "timeout", "grace", "tags")  # fmt: skip
MOST = 9_000_000 * PICO  # what a counter of 64 bits holds

Amount = Decimal | int | float | str
OnExceed = Callable[["Call", Denial], bool]


class Limit(NamedTuple):
    """One limit of a budget: `amount` in `unit` (usd_pico, tokens, requests, or a unit's name)."""

    unit: str
    amount: int
    enforced: int | None  # with the grace on top; None: counted only
    thresholds: tuple[tuple[float, int], ...]  # (fraction, amount that reaches it)


class Budget:
    """`Budget("research", usd=5, per="day", agent="researcher")`: the call that would exceed it is not sent.

    Limits: `usd` (what is billed; `metric="list"` counts replayed answers at their list price), `tokens` (input +
    output; `metric="work"` leaves out what prompt caches answered, `"input"` and `"output"` count one side),
    `requests` (model calls; of a budget with a `tool`, calls of that tool), `units` (`{"web_searches": 100}`, one held
    for each call, counted when the provider has named them). Several may be given. 0 allows nothing.

    Scope: agent, task, user, session, step, model, provider, tool, or a tag of your own; a name, a list of names, or
    `"*"`: a budget for each one. What is not named does not matter. `per` is run, total, minute, hour, day, week,
    month, year (in the zone `tz`) or `"rolling 1h"`.

    `mode`: hard denies; soft lets through and alerts; shadow only counts; wait holds a call back for up to `timeout`
    seconds, then denies. `grace` is the fraction above the limit that is still let through. `alert_at` are fractions
    of the limit; each is told of once a window. `on_exceed(call, denial)` is asked before a call is denied and
    answers whether to try again (it may have raised the budget). `on_unpriced` says what a budget in money does with
    a model that nobody can price: "deny", "assume:<rate>" (US$ per 1K tokens, or "in/out" per 1M), "warn", "allow".
    `on_error`: "deny" or "allow" when the budget cannot be read.

    Raises `BudgetError` for what cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        usd: Amount | None = None,
        tokens: int | None = None,
        requests: int | None = None,
        units: Mapping[str, int] | None = None,
        per: str | timedelta = "day",
        mode: str = HARD,
        alert_at: Iterable[float] | float = (0.5, 0.8, 1.0),
        agent: str | Iterable[str] | None = None,
        task: str | Iterable[str] | None = None,
        user: str | Iterable[str] | None = None,
        session: str | Iterable[str] | None = None,
        step: str | Iterable[str] | None = None,
        model: str | Iterable[str] | None = None,
        provider: str | Iterable[str] | None = None,
        tool: str | Iterable[str] | None = None,
        metric: str | Iterable[str] = (),
        tz: str = "UTC",
        on_unpriced: str = "deny",
        on_error: str = "deny",
        on_exceed: OnExceed | str | None = None,
        timeout: float = 30.0,
        grace: float = 0.0,
        tags: Mapping[str, str | Iterable[str]] | None = None,
        **more_tags: str | Iterable[str],
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise BudgetError(f"a budget has a name, not {name!r}")
        self.name = name
        self.usd = None if usd is None else self._money(usd)
        self.tokens = None if tokens is None else self._count("tokens", tokens)
        self.requests = None if requests is None else self._count("requests", requests)
        self.units = {unit: self._count(unit, count) for unit, count in (units or {}).items()}
        self.mode = self._one_of("mode", mode, MODES)
        self.on_error = self._one_of("on_error", on_error, ("deny", "allow"))
        self.on_unpriced = on_unpriced
        self.assumed = self._assumed(on_unpriced)
        if not (on_exceed is None or on_exceed == "deny" or callable(on_exceed)):
            raise self._wrong(f"on_exceed is 'deny' or a function of (call, denial), not {on_exceed!r}")
        self.on_exceed: OnExceed | None = on_exceed if callable(on_exceed) else None
        self.timeout = float(self._fraction("timeout", timeout))
        self.grace = grace
        self._grace = self._fraction("grace", grace)
        self.tz = tz
        try:
            self.window: Window = window(per, tz)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        self.per = per if isinstance(per, str) else self.window.name
        named = {"agent": agent, "task": task, "user": user, "session": session, "step": step, "model": model,
                 "provider": provider, "tool": tool}  # fmt: skip
        self.scope = {key: self._names(key, value) for key, value in named.items() if value is not None}
        # As they were given, for who reads a budget: one name, several, or None.
        one = {key: value[0] if len(value) == 1 else value for key, value in self.scope.items()}
        self.agent, self.task, self.user, self.session, self.step, self.model, self.provider, self.tool = map(
            one.get, SCOPE
        )
        for key in more_tags:
            if near := get_close_matches(key, (*SCOPE, *_OPTIONS), 1, 0.8):
                raise self._wrong(f"there is no {key!r}; did you mean {near[0]!r}? (A tag of that name: tags={{…}})")
        self.tags = {key: self._names(key, value) for key, value in {**(tags or {}), **more_tags}.items()}
        metrics = (metric,) if isinstance(metric, str) else tuple(metric)
        for word in metrics:
            self._one_of("metric", word, (*MONEY, *TOKENS))
        self.money = next((word for word in metrics if word in MONEY), "billed")
        self.counting = next((word for word in metrics if word in TOKENS), "total")
        self.alert_at = self._alert_at(alert_at)
        self.limits = tuple(self._limits())
        if not self.limits:
            raise self._wrong("it has no limit: name usd=, tokens=, requests= or units=")

    # ------------------------------------------------------------------------------------------ validation

    def _wrong(self, message: str) -> BudgetError:
        return BudgetError(f"budget {self.name!r}: {message}")

    def _one_of(self, what: str, value: str, allowed: tuple[str, ...]) -> str:
        if value not in allowed:
            raise self._wrong(f"{what} is one of {', '.join(allowed)}, not {value!r}")
        return value

    def _money(self, value: Amount) -> Decimal:
        try:
            if isinstance(value, bool):
                raise ValueError
            amount = pico(value.lstrip("$") if isinstance(value, str) else value)
        except (ArithmeticError, TypeError, ValueError):
            raise self._wrong(f"usd is an amount of US dollars, not {value!r}") from None
        if not 0 <= amount <= MOST:
            raise self._wrong(f"usd is 0 to {MOST // PICO:,}, not {value!r}")
        return dollars(amount)

    def _count(self, what: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
            raise self._wrong(f"{what} is a whole number from 0, not {value!r}")
        return value

    def _fraction(self, what: str, value: float) -> Fraction:
        try:
            number = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            number = Fraction(-1)
        if number < 0 or isinstance(value, bool):
            raise self._wrong(f"{what} is a number from 0, not {value!r}")
        return number

    def _names(self, what: str, value: str | Iterable[str]) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else tuple(str(item) for item in value)
        if not names or (EACH in names and len(names) > 1):
            raise self._wrong(f"{what} is a name, a list of names or {EACH!r}, not {value!r}")
        return names

    def _alert_at(self, fractions: Iterable[float] | float) -> tuple[float, ...]:
        if isinstance(fractions, (int, float)):
            fractions = (fractions,)
        found = sorted({self._fraction("alert_at", value): float(value) for value in fractions}.items())
        if found and (found[0][0] <= 0 or found[-1][0] > 10):
            raise self._wrong(f"alert_at are fractions of the limit, 0.8 for 80 %, not {[v for _, v in found]}")
        return tuple(value for _, value in found)

    def _assumed(self, policy: str) -> tuple[int, int] | None:
        """pico-dollars per input and output token that an unpriced model is taken for."""
        word, colon, rate = str(policy).partition(":")
        if word != "assume" or not colon:
            self._one_of("on_unpriced", policy, ("deny", "warn", "allow", "assume:<rate>"))
            return None
        first, slash, second = rate.partition("/")
        try:
            both = (pico(first) // 10**6, pico(second) // 10**6) if slash else (pico(rate) // 1000,) * 2
        except (ArithmeticError, ValueError):
            both = (-1, -1)
        if min(both) < 0 or max(both) == 0:
            raise self._wrong(
                f"on_unpriced is 'assume:0.002' (per 1K tokens) or 'assume:2.5/10' (per 1M), not {policy!r}"
            )
        return both

    def _limits(self) -> Iterable[Limit]:
        given = {"usd_pico": None if self.usd is None else pico(self.usd), "tokens": self.tokens,
                 "requests": self.requests, **self.units}  # fmt: skip
        for unit, amount in given.items():
            if amount is None:
                continue
            enforced = None if self.mode in (SOFT, SHADOW) else amount + int(amount * self._grace)
            thresholds: tuple[tuple[float, int], ...] = ()
            if amount and self.mode != SHADOW:
                thresholds = tuple((at, -int(-amount * Fraction(str(at)) // 1)) for at in self.alert_at)
            yield Limit(unit, amount, enforced, thresholds)

    # ---------------------------------------------------------------------------------------------- reading

    def to_dict(self) -> dict[str, Any]:
        """What `Budget(**…)` takes, for files and stores; a function in `on_exceed` is left out."""
        document: dict[str, Any] = {"name": self.name}
        if self.usd is not None:
            document["usd"] = str(self.usd)
        for key in ("tokens", "requests", "units"):
            if (value := getattr(self, key)) not in (None, {}):
                document[key] = value
        document["per"] = self.per
        for key, value in {**self.scope}.items():
            document[key] = value[0] if len(value) == 1 else list(value)
        if self.tags:
            document["tags"] = {key: value[0] if len(value) == 1 else list(value) for key, value in self.tags.items()}
        usual = {"mode": HARD, "alert_at": (0.5, 0.8, 1.0), "tz": "UTC", "on_unpriced": "deny", "on_error": "deny",
                 "timeout": 30.0, "grace": 0.0}  # fmt: skip
        for key, default in usual.items():
            if (value := getattr(self, key)) != default:
                document[key] = list(value) if isinstance(value, tuple) else value
        metrics = [word for word in (self.money, self.counting) if word not in ("billed", "total")]
        if metrics:
            document["metric"] = metrics
        return document

    def replace(self, **changes: Any) -> Budget:
        """This budget with some arguments changed."""
        document = self.to_dict()
        document["on_exceed"] = self.on_exceed
        return Budget(**{**document, **changes})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self.to_dict() == other.to_dict() and self.on_exceed == other.on_exceed

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self.to_dict().items() if key != "name")
        return f"Budget({self.name!r}, {told})"


def readable(amount: int, unit: str) -> Decimal | int:
    """An amount as people read it: US dollars as a `Decimal`, everything else as it is counted."""
    return dollars(amount) if unit == "usd_pico" else amount


def written(amount: int, unit: str) -> str:
    """`$0.0412`, `415,000 tokens`, `1 request`."""
    if unit == "usd_pico":
        value = dollars(amount)
        return f"${value:,.2f}" if value == value.quantize(Decimal("0.01")) else f"${value.normalize():,f}"
    name = unit.replace("_", " ")
    if amount == 1:
        name = name.removesuffix("es" if name.endswith(("ches", "shes", "sses", "xes")) else "s")
    return f"{amount:,} {name}"
