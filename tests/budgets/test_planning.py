"""The seed's planning table, priced."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import BudgetError, Meter, UnknownModel
from agent_meter.budgets.files import read
from agent_meter.budgets.planning import PRESETS, Preset, budgets, plan, preset, snippet
from agent_meter.pricing import CostEstimator


def test_the_presets_are_the_table_of_the_seed() -> None:
    table = [(one.title, one.tokens, one.usd) for one in PRESETS.values()]

    assert table == [
        ("Customer Support", 500_000, 150),
        ("Research Agent", 2_000_000, 600),
        ("Code Generation", 3_000_000, 900),
        ("Data Analysis", 1_000_000, 300),
        ("Internal Tooling", 200_000, 60),
    ]


@pytest.mark.parametrize("name", ["customer-support", "Customer Support", "customer_support"])
def test_a_kind_is_found_as_people_write_it(name: str) -> None:
    assert preset(name).title == "Customer Support"
    assert preset("Research Agent") is PRESETS["research"]


def test_a_kind_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(BudgetError, match="did you mean code-generation"):
        preset("code generator")


def test_a_month_costs_what_the_rate_card_says() -> None:
    """15M tokens of gpt-4o, a quarter of them output: 11.25 × $2.50 + 3.75 × $10 = $65.625, rounded up."""
    (one,) = plan([preset("customer-support")], "gpt-4o")

    assert one.monthly_tokens == 15_000_000
    assert one.monthly_usd == Decimal("65.63")
    assert (one.fits, one.days) == (True, None)


@given(st.integers(1, 10**9), st.integers(0, 100), st.integers(1, 10**6))
def test_the_arithmetic_is_exact(tokens: int, percent: int, cents: int) -> None:
    estimator = CostEstimator()
    estimator.set_rates("m", input="2", output="8")
    (one,) = plan(
        [Preset("x", "X", tokens, Decimal(cents) / 100)], "m", output_share=percent / 100, call_tokens=100,
        estimator=estimator,
    )  # fmt: skip
    exact = Decimal(tokens * 30) * (2 * (100 - percent) + 8 * percent) / 100 / 10**6

    assert 0 <= one.monthly_usd - exact < Decimal("0.01")
    if not one.fits:
        assert one.monthly_usd * one.days <= one.cap_usd * 30 < one.monthly_usd * (one.days + 1)


def test_a_cap_that_is_too_small_says_after_how_many_days() -> None:
    (one,) = plan([preset("research")], "claude-opus-4-1")

    assert not one.fits
    assert one.days == 10  # $60 a day of $600


def test_a_model_without_a_price_is_an_error() -> None:
    with pytest.raises(UnknownModel, match="no price for 'acme-1'"):
        plan(PRESETS.values(), "acme-1")


@pytest.mark.parametrize("wrong", [{"output_share": 1.5}, {"call_tokens": 0}])
def test_shares_and_sizes_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        plan(PRESETS.values(), "gpt-4o", **wrong)  # type: ignore[arg-type]


def test_the_snippet_is_a_budgets_file_that_a_meter_takes() -> None:
    odd = Preset("yes: no", "Odd", 10, Decimal("0.5"))
    presets = [*PRESETS.values(), odd]

    read_back = read(snippet(presets))

    assert read_back == budgets(presets)
    assert len(Meter(budgets=read_back).budgets) == 12
