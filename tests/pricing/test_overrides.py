"""The user's word goes before every list: in code, in whatever form it is given, dated or by request."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_meter.pricing import PriceBook, PriceError, Rates
from agent_meter.records import CostStatus, Model, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
THOUSAND = TokenUsage(1000, 1000)
MILLION = TokenUsage(10**6, 10**6)


def usd(
    book: PriceBook, model: Model | str, usage: TokenUsage = MILLION, at: datetime = AT, **context: str
) -> Decimal | None:
    return book.find(model).price(usage, at, context).amount


# ------------------------------------------------------------------------------------------------- in code


def test_one_line_sets_any_rate_and_another_takes_it_back() -> None:
    book = PriceBook()
    before = usd(book, "gpt-4o")

    book.set("gpt-4o", {"input": "1", "output": "2"})
    during = usd(book, "gpt-4o")
    book.unset("gpt-4o")

    assert (before, during, usd(book, "gpt-4o")) == (Decimal("12.5"), Decimal("3"), Decimal("12.5"))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ("0.001", "0.002"),
        (0.001, "0.002"),
        (Decimal("0.001"), "0.002"),
        ({"per_1k": 0.001}, "0.002"),
        ({"input": "1", "output": "3"}, "0.004"),
        (Rates.per_million("1", "3"), "0.004"),
        (Rates.per_1k("0.002"), "0.004"),
        ({"free": True}, "0"),
        ({"included": True}, "0"),
    ],
)
def test_rates_are_given_in_any_form(rates: Any, expected: str) -> None:
    book = PriceBook(discover=False)

    book.set("my-custom-model", rates)

    assert usd(book, "my-custom-model", THOUSAND) == Decimal(expected)


def test_every_change_makes_a_new_version_and_old_rates_stay_as_they_were() -> None:
    book = PriceBook({"m": "0.001"}, discover=False)
    old = book.find("m")
    version = book.version

    book.set("m", "0.002")

    assert book.version == version + 1
    assert old.price(THOUSAND, AT).amount == Decimal("0.002")
    assert book.find("m").price(THOUSAND, AT).amount == Decimal("0.004")


def test_a_rate_set_for_a_name_holds_for_its_dated_spellings_too() -> None:
    book = PriceBook({"gpt-4o": {"input": "1", "output": "1"}}, discover=False)

    assert usd(book, Model("openai", "gpt-4o-2024-08-06")) == 2
    assert usd(book, "openai/gpt-4o") == 2
    assert usd(book, Model("openai", "gpt-4o-2024-05-13")) == 20  # another model at another price


def test_a_rate_set_for_a_provider_is_that_providers_only() -> None:
    book = PriceBook({"azure/gpt-4o": {"input": "1", "output": "1"}}, discover=False)

    assert usd(book, Model("azure_openai", "gpt-4o")) == 2
    assert usd(book, Model("openai", "gpt-4o")) == Decimal("12.5")


def test_openrouters_model_of_the_same_name_keeps_its_own_rates() -> None:
    book = PriceBook({"openai/gpt-4o": {"input": "1", "output": "1"}}, discover=False)

    assert usd(book, Model("openrouter", "openai/gpt-4o")) == Decimal("12.5")


def test_one_calls_own_rates_go_before_the_book() -> None:
    book = PriceBook({"m": "0.001"}, discover=False)

    assert book.price("m", THOUSAND, AT, rates="0.5").amount == Decimal(1)
    assert book.price("m", THOUSAND, AT, rates={"input": "1", "output": "1"}).amount == Decimal("0.002")
    assert book.price("m", THOUSAND, AT, rates=Rates.per_1k("0.25")).amount == Decimal("0.5")
    assert book.price("m", THOUSAND, AT).amount == Decimal("0.002")


def test_like_and_multiply_make_a_discount_of_somebody_elses_rates() -> None:
    book = PriceBook(discover=False)
    book.set("azure:my-deployment", {"like": "azure/gpt-4o", "multiply": "0.85"})

    assert usd(book, Model("azure", "my-deployment")) == Decimal("12.5") * Decimal("0.85")


def test_what_an_entry_does_not_name_stays_as_it_was() -> None:
    book = PriceBook({"gpt-4o": {"cache_read": "1"}, "claude-3-haiku": {"multiply": "0.5"}}, discover=False)
    cached = TokenUsage(10**6, 10**6, 10**6)

    assert usd(book, "gpt-4o", cached) == 11
    assert usd(book, "claude-3-haiku") == Decimal("0.75")


def test_a_change_to_a_model_that_nobody_knows_is_unpriced_and_says_so() -> None:
    book = PriceBook({"nobodys-model": {"cache_read": "1"}, "other": {"like": "nobodys-model"}}, discover=False)

    assert "changes rates of a model that has none" in book.find("nobodys-model").reason
    assert "like 'nobodys-model'" in book.find("other").reason


def test_like_that_leads_round_in_a_circle_is_noticed() -> None:
    book = PriceBook({"a": {"like": "b"}, "b": {"like": "a"}}, discover=False)

    assert "circle" in book.find("a").reason


def test_dated_entries_are_a_history_on_top_of_the_list() -> None:
    book = PriceBook(discover=False)
    book.set("gpt-4o", [{"input": "1", "output": "1", "from": "2026-06-01", "until": "2026-07-01"}])

    days = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((5, 31), (6, 1), (6, 30), (7, 1))]

    assert [usd(book, "gpt-4o", at=day) for day in days] == [Decimal("12.5"), 2, 2, Decimal("12.5")]


def test_before_the_first_date_a_model_of_ones_own_has_no_price() -> None:
    book = PriceBook({"m": {"per_1k": "1", "from": "2026-06-01"}}, discover=False)

    cost = book.find("m").price(THOUSAND, datetime(2026, 5, 31, tzinfo=UTC))

    assert (cost.status, cost.reason) == (CostStatus.UNPRICED, "no rates for this date")


def test_rates_by_the_hour_and_the_weekday() -> None:
    book = PriceBook(discover=False)
    book.set(
        "m",
        [
            {"input": "2", "output": "2"},
            {"input": "1", "output": "1", "hours": "22:00-06:00"},
            {"input": "0.5", "output": "0.5", "days": ["sat", "sun"]},
        ],
    )
    friday, saturday = datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)

    hours = [usd(book, "m", at=friday.replace(hour=h)) for h in (5, 6, 21, 22)]

    assert hours == [2, 4, 4, 2]
    assert usd(book, "m", at=saturday.replace(hour=12)) == 1


def test_rates_for_what_a_request_asks_for() -> None:
    book = PriceBook(discover=False)
    book.set(
        "m",
        [
            {"input": "2", "output": "2"},
            {"input": "1", "output": "1", "context": {"service_tier": "flex"}},
            {"multiply": "0.25", "context": {"processing": "batch"}},
        ],
    )

    assert usd(book, "m") == 4
    assert usd(book, "m", service_tier="FLEX") == 2
    assert usd(book, "m", processing="batch") == 1
    assert usd(book, "m", service_tier="batch") == 1
    assert book.find("m").price(MILLION, AT, {"service_tier": "priority"}).assumptions == (
        "no rates for service_tier=priority; standard rates used",
    )


def test_rates_for_large_calls() -> None:
    book = PriceBook({"m": {"input": "1", "output": "2", "above": {"200000": {"input": "3"}}}}, discover=False)

    assert usd(book, "m", TokenUsage(200_000)) == Decimal("0.2")
    assert usd(book, "m", TokenUsage(200_001)) == Decimal("0.600003")


def test_a_provider_that_reports_costs_is_believed_if_asked_but_not_before_the_user() -> None:
    usage = TokenUsage(10**6, 10**6, reported_pico=5 * 10**12)
    book = PriceBook({"mine": "0.001"}, use_reported=True, discover=False)

    assert usd(book, "gpt-4o", usage) == 5
    assert usd(book, "nobodys-model", usage) == 5
    assert usd(book, "mine", usage) == 2


def test_of_takes_whatever_a_meter_is_given(tmp_path: Path) -> None:
    book = PriceBook({"m": "0.001"}, discover=False)
    file = tmp_path / "prices.toml"
    file.write_text('[prices.m]\nper_1k = "0.003"\n')

    assert PriceBook.of(book) is book
    assert usd(PriceBook.of({"m": "0.002"}), "m", THOUSAND) == Decimal("0.004")
    assert usd(PriceBook.of(str(file)), "m", THOUSAND) == Decimal("0.006")
    assert usd(PriceBook.of(file), "m", THOUSAND) == Decimal("0.006")
    assert usd(PriceBook.of(None, cost_rates={"m": 0.004}), "m", THOUSAND) == Decimal("0.008")
    assert usd(PriceBook.of(book, cost_rates={"n": 0.004}), "n", THOUSAND) == Decimal("0.008")


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"inptu": "1"}, "m.inptu: unknown key; did you mean 'input'?"),
        ({"input": "-1"}, "m.input: not an amount: '-1'"),
        ({"input": "NaN"}, "m.input: not an amount: 'NaN'"),
        ({"input": "1", "per_1k": "1"}, "contradict each other"),
        ({"free": True, "included": True}, "contradict each other"),
        ({"free": "yes"}, "free is true or false"),
        ({"input": "1", "like": "x", "multiply": "2", "per_1k": "2"}, "contradict each other"),
        ({"per_1k": "1", "multiply": "2"}, "do not go with own ones"),
        ({}, "no rate"),
        ({"input": "1", "from": "2026-02-01", "until": "2026-01-01"}, "is not before until"),
        ({"input": "1", "from": "soon"}, "not a date: 'soon'"),
        ({"input": "1", "hours": "noon"}, 'UTC hours such as "16:30-00:30"'),
        ({"input": "1", "days": ["someday"]}, "weekdays such as"),
        ({"input": "1", "fees": "0.1"}, "a table of units and US$ a piece"),
        ({"input": "1", "context": "flex"}, "a table such as"),
        ({"like": "x", "context": {"speed": "fast"}}, "with a context go rates of its own or multiply"),
        ({"input": "1", "above": {"many": {"input": "2"}}}, "a table such as"),
        ({"input": "1", "above": {"5": {"output": "2"}}}, "has no rate below 5 tokens"),
        (None, "rates are a table, a Rates or one number"),
        ("a lot", "not an amount: 'a lot'"),
        (Rates.unknown("no idea"), "has no rates"),
    ],
)
def test_a_rate_that_is_wrong_in_form_is_refused_with_its_place(rates: Any, message: str) -> None:
    book = PriceBook(discover=False)

    with pytest.raises(PriceError) as refused:
        book.set("m", rates)

    assert message in str(refused.value)
    assert book.version == 1
