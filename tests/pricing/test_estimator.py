"""The faces that the seed documents ask for: an estimator, two functions, a model's entry."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from agent_meter.pricing import (
    CostEstimator,
    PriceBook,
    Rates,
    UnknownModel,
    calculate_cost,
    calculate_embedding_cost,
    model_info,
)
from agent_meter.records import CostStatus, TokenUsage


@pytest.mark.parametrize(
    ("model", "input_rate", "output_rate"),
    [
        ("gpt-4o", "2.50", "10.00"),
        ("gpt-4o-mini", "0.15", "0.60"),
        ("gpt-4-turbo", "10.00", "30.00"),
        ("gpt-3.5-turbo", "0.50", "1.50"),
        ("claude-3-5-sonnet", "3.00", "15.00"),
        ("claude-3-opus", "15.00", "75.00"),
        ("claude-3-haiku", "0.25", "1.25"),
        ("ollama/llama3", "0", "0"),
    ],
)
def test_every_price_of_the_documents_is_reproduced(model: str, input_rate: str, output_rate: str) -> None:
    cost = CostEstimator().estimate(input_tokens=10**6, output_tokens=10**6, model=model)

    assert (cost.prompt_cost, cost.completion_cost) == (Decimal(input_rate), Decimal(output_rate))
    assert cost.total_cost == Decimal(input_rate) + Decimal(output_rate)


def test_the_documents_worked_examples_come_out_to_the_last_digit() -> None:
    assert calculate_cost(model="gpt-4o", prompt_tokens=1000, completion_tokens=500) == Decimal("0.0075")
    assert calculate_embedding_cost(model="text-embedding-3-small", tokens=1000) == Decimal("0.00002")

    cost = CostEstimator().estimate(input_tokens=1000, output_tokens=500, model="gpt-4o")

    assert f"Cost: ${cost.total_cost:.4f}" == "Cost: $0.0075"
    assert (cost.prompt_cost, cost.completion_cost, cost.model) == (Decimal("0.0025"), Decimal("0.005"), "gpt-4o")


def test_a_models_entry_has_prices_per_million_and_its_context_window() -> None:
    info = model_info("gpt-4o")

    assert f"Prompt: ${info.prompt_cost}/1M tokens" == "Prompt: $2.5/1M tokens"
    assert f"Completion: ${info.completion_cost}/1M tokens" == "Completion: $10/1M tokens"
    assert (info.cached_prompt_cost, info.context_window, info.provider) == (Decimal("1.25"), 128_000, "openai")


def test_cached_input_is_a_part_of_the_prompt() -> None:
    cost = calculate_cost("claude-3-5-sonnet", 1000, 0, cache_read_input_tokens=400, cache_creation_input_tokens=100)

    assert cost == (500 * Decimal("3") + 400 * Decimal("0.3") + 100 * Decimal("3.75")) / 10**6


def test_a_function_that_returns_a_number_refuses_what_it_does_not_know() -> None:
    for ask in (lambda: calculate_cost("nobodys-model", 1), lambda: model_info("nobodys-model")):
        with pytest.raises(UnknownModel, match="no price for 'nobodys-model'"):
            ask()
    with pytest.raises(LookupError):
        calculate_embedding_cost("nobodys-model", 1)


def test_an_estimate_of_the_unknown_is_unpriced_and_never_zero() -> None:
    cost = CostEstimator().estimate(input_tokens=1, output_tokens=1, model="nobodys-model")

    assert (cost.status, cost.total_cost) == (CostStatus.UNPRICED, None)


def test_rates_are_got_set_and_listed() -> None:
    estimator = CostEstimator({"my-custom-model": 0.001})

    rate = estimator.get_rate("gpt-4o")
    estimator.set_rate("my-model", 0.002)
    estimator.set_rates("exact", input="1", output="2", cache_read="0.5")
    everything = estimator.get_all_rates()

    assert isinstance(rate, Rates)
    assert (rate.input, rate.output, rate.blended_per_1k) == (Decimal("2.5"), Decimal(10), Decimal("0.00625"))
    assert everything["my-model"].blended_per_1k == Decimal("0.002")
    assert everything["exact"].cache_read == Decimal("0.5")
    assert estimator.get_rate("my-custom-model").blended_per_1k == Decimal("0.001")
    assert estimator.estimate(input_tokens=500, output_tokens=500, model="my-model").total_cost == Decimal("0.002")


def test_get_all_rates_has_what_was_looked_up_and_what_was_set() -> None:
    estimator = CostEstimator(prices=PriceBook(discover=False))
    estimator.set_rate("mine", "0.001")
    estimator.get_rate("gpt-4o")
    estimator.get_rate("nobodys-model")

    assert sorted(estimator.get_all_rates()) == ["gpt-4o", "mine"]


def test_what_was_looked_up_before_a_rate_was_set_stays_in_all_rates() -> None:
    estimator = CostEstimator()
    estimator.get_rate("gpt-4o")
    estimator.estimate(input_tokens=1, model="gpt-4o-mini")
    estimator.set_rate("mine", "0.002")

    assert sorted(estimator.get_all_rates()) == ["gpt-4o", "gpt-4o-mini", "mine"]


def test_an_estimate_takes_every_class_a_time_and_a_request() -> None:
    estimator = CostEstimator(prices=PriceBook(discover=False))

    batch = estimator.estimate(
        input_tokens=10**6, model="claude-3-haiku", at=datetime(2025, 1, 1, tzinfo=UTC), context={"processing": "batch"}
    )
    cached = estimator.estimate(input_tokens=10**6, cache_read_tokens=10**6, model="gpt-4o")
    usage = estimator.estimate(TokenUsage(10**6, 0), "gpt-4o")

    assert (batch.total_cost, cached.total_cost, usage.total_cost) == (
        Decimal("0.125"), Decimal("1.25"), Decimal("2.5"),
    )  # fmt: skip
