"""What a budget takes, and what it says to what it does not take."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import Alert, Budget, BudgetError, BudgetExceeded, Denial, MeterError
from agent_meter.budgets.budget import written


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "it has no limit"),
        ({"usd": -1}, "usd is 0 to 9,000,000, not -1"),
        ({"usd": "a lot"}, "usd is an amount of US dollars, not 'a lot'"),
        ({"usd": float("nan")}, "usd is an amount of US dollars"),
        ({"usd": True}, "usd is an amount of US dollars"),
        ({"usd": 10**9}, "usd is 0 to 9,000,000"),
        ({"tokens": 1.5}, "tokens is a whole number from 0, not 1.5"),
        ({"tokens": -1}, "tokens is a whole number from 0"),
        ({"requests": "10"}, "requests is a whole number from 0, not '10'"),
        ({"usd": 1, "per": "fortnight"}, "per is run, total, minute"),
        ({"usd": 1, "tz": "Berlin"}, "no time zone 'Berlin': write one like 'Europe/Berlin'"),
        ({"usd": 1, "mode": "firm"}, "mode is one of hard, soft, shadow, wait, not 'firm'"),
        ({"usd": 1, "alert_at": (80,)}, "alert_at are fractions of the limit, 0.8 for 80 %"),
        ({"usd": 1, "alert_at": (0,)}, "alert_at are fractions"),
        ({"usd": 1, "agent": ["a", "*"]}, "agent is a name, a list of names or"),
        ({"usd": 1, "agent": []}, "agent is a name, a list of names or"),
        ({"usd": 1, "metric": "net"}, "metric is one of billed, list, total, work"),
        ({"usd": 1, "on_unpriced": "ignore"}, "on_unpriced is one of deny, warn, allow, assume:<rate>"),
        ({"usd": 1, "on_unpriced": "assume:nothing"}, "on_unpriced is 'assume:0.002'"),
        ({"usd": 1, "on_error": "shrug"}, "on_error is one of deny, allow"),
        ({"usd": 1, "on_exceed": "shrug"}, "on_exceed is 'deny' or a function"),
        ({"usd": 1, "grace": -0.1}, "grace is a number from 0"),
        ({"usd": 1, "agnet": "a"}, "there is no 'agnet'; did you mean 'agent'? (A tag of that name: tags={…})"),
        ({"usd": 1, "timeout": "soon"}, "timeout is a number from 0"),
    ],
)
def test_what_cannot_work_is_said_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget("x", **options)

    assert says in str(caught.value)
    assert "budget 'x'" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, MeterError)


@pytest.mark.parametrize("name", ["", " ", None, 7])
def test_a_budget_has_a_name(name: Any) -> None:
    with pytest.raises(BudgetError, match="a budget has a name"):
        Budget(name, usd=1)


def test_one_threshold_needs_no_list_and_to_deny_needs_no_word() -> None:
    assert Budget("x", usd=1, alert_at=0.8, on_exceed="deny") == Budget("x", usd=1, alert_at=(0.8,))


def test_money_is_read_exactly_whatever_form_it_has() -> None:
    assert [Budget("x", usd=amount).usd for amount in ("$0.10", 0.1, Decimal("0.10"), "0.1")] == [Decimal("0.1")] * 4


def test_a_budget_survives_being_written_down() -> None:
    full = Budget(
        "research", usd="5.25", tokens=1000, requests=7, units={"web_searches": 3}, per="rolling 90m", mode="wait",
        alert_at=(0.25, 1), agent=["a", "b"], user="*", model="gpt-4o", metric=("list", "work"), tz="Europe/Berlin",
        on_unpriced="assume:2.5/10", on_error="allow", timeout=3, grace=0.1, team="search",
    )  # fmt: skip

    assert Budget(**full.to_dict()) == full
    assert full.replace(mode="soft").mode == "soft"
    assert full.replace(mode="soft").tags == {"team": ("search",)}
    assert eval(repr(Budget("a", usd=1, agent="x"))) == Budget("a", usd=1, agent="x")


@given(st.integers(1, 10**12), st.decimals("0.01", "2", places=3))
def test_a_threshold_is_the_least_amount_that_reaches_the_fraction(limit: int, at: Decimal) -> None:
    ((_, amount),) = Budget("x", tokens=limit, alert_at=(float(at),)).limits[0].thresholds

    assert amount >= limit * at > amount - 1


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (5 * 10**12, "usd_pico", "$5.00"), (41_200_000_000, "usd_pico", "$0.0412"), (1, "usd_pico", "$0.000000000001"),
        (415_000, "tokens", "415,000 tokens"), (1, "requests", "1 request"), (3, "web_searches", "3 web searches"),
        (1, "web_searches", "1 web search"), (1, "images", "1 image"),
    ],
)  # fmt: skip
def test_amounts_read_well(amount: int, unit: str, text: str) -> None:
    assert written(amount, unit) == text


def test_an_exceeded_budget_carries_its_numbers_through_a_pickle() -> None:
    denial = Denial("it is gone", "budget x", "x", "usd_pico", 10**12, 9 * 10**11, 10**10, 2 * 10**11, None, 12, "day")

    error = pickle.loads(pickle.dumps(BudgetExceeded(denial)))

    assert (error.budget, error.limit, error.used, error.reserved, error.requested, error.remaining, error.fits) == (
        "x", Decimal(1), Decimal("0.9"), Decimal("0.01"), Decimal("0.2"), Decimal("0.09"), 12,
    )  # fmt: skip
    assert error.resets_at is None


def test_a_guards_denial_has_no_numbers() -> None:
    error = BudgetExceeded(Denial("no", "guard"))

    assert (error.budget, error.limit, error.remaining, error.fits) == (None, None, None, None)


def test_an_alert_reads_as_its_message() -> None:
    assert str(Alert("x", "x: 83% of budget used (415,000 tokens)")) == "x: 83% of budget used (415,000 tokens)"
