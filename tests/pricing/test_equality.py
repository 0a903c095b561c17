"""Our cards cost what genai-prices' own calculator says, for every model, date and variant of its list.

Its calculator is slow and has traps, but where it does not raise it is an independent reading of the same data.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, localcontext

import pytest
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, Provider, StartDateConstraint, Usage

from agent_meter.pricing import Rates
from agent_meter.pricing.genai import segments_of
from agent_meter.pricing.units import FIELD_UNITS, UNITS
from agent_meter.records import CostStatus, FrozenMap, TokenUsage

WIDE = Context(prec=60)
MODALITIES = ("audio", "image", "video")
FEES = ("web_searches", "social_searches", "storage_searches", "code_executions", "rerank_searches", "input_characters",
        "input_text_messages", "input_pixels", "input_document_pages")  # fmt: skip


def moments(model: ModelInfo) -> Iterator[datetime]:
    """Before, at and after each dated price, inside and outside each time of day."""
    yield datetime(2026, 11, 21, 12, tzinfo=UTC)
    constraints = [item.constraint for item in model.prices] if isinstance(model.prices, list) else []
    constraints += [variant.constraint for variant in model.price_variants or ()]
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            start = datetime.combine(constraint.start_date, time(), UTC)
            yield from (start - timedelta(seconds=1), start, start + timedelta(hours=7))
        elif constraint is not None:
            day = date(2026, 11, 20)
            for edge in (constraint.start_time, constraint.end_time):
                at = datetime.combine(day, edge.replace(tzinfo=UTC))
                yield from (at - timedelta(seconds=1), at)


def consistent(chance: random.Random) -> dict[str, int | Decimal]:
    """A usage whose parts fit their wholes, with every overlap said (genai-prices raises where one is not)."""
    n = chance.randrange
    size = chance.choice((50, 5_000, 150_000, 400_000))
    text, outputs = n(size), n(size)
    values: dict[str, int | Decimal] = {"cache_read_tokens": 0}
    total = text
    for m in MODALITIES:
        part, kept = n(size), 0
        if chance.random() < 0.4:
            kept = n(part + 1)
            values[f"input_{m}_tokens"] = part
            values["cache_read_tokens"] += kept
            total += part
        values[f"cache_{m}_read_tokens"] = kept
    read = n(text + 1)
    write = n(text - read + 1)
    values["cache_read_tokens"] += read
    values["cache_write_tokens"] = write
    values["cache_write_1h_tokens"] = n(write + 1)
    values["input_tokens"] = total
    values["output_reasoning_tokens"] = n(outputs + 1)
    rest = outputs - values["output_reasoning_tokens"]
    for m in MODALITIES[:2]:
        values[f"output_{m}_tokens"] = n(rest + 1) if chance.random() < 0.3 else 0
        rest -= values[f"output_{m}_tokens"]
    values["output_tokens"] = outputs
    for name in FEES:
        if chance.random() < 0.3:
            values[name] = n(40)
    seconds = Decimal(n(90_000)) / 100 if chance.random() < 0.4 else 0
    if seconds:
        values["audio_seconds"] = values["input_audio_seconds"] = seconds
    return values


def plain(chance: random.Random) -> dict[str, int | Decimal]:
    """The usage of most calls: text, some of it from a cache, some of it reasoning."""
    whole, made = chance.randrange(300_000), chance.randrange(20_000)
    read = chance.randrange(whole + 1) if chance.random() < 0.7 else 0
    written = chance.randrange(whole - read + 1) if chance.random() < 0.3 else 0
    return {
        "input_tokens": whole, "output_tokens": made, "cache_read_tokens": read, "cache_write_tokens": written,
        "cache_write_1h_tokens": 0, "output_reasoning_tokens": chance.randrange(made + 1),
        "web_searches": chance.randrange(3),
    }  # fmt: skip


def ours(values: dict[str, int | Decimal]) -> TokenUsage:
    fields = [values.get(name, 0) for name in FIELD_UNITS]
    units = {name: value for name, value in values.items() if name not in FIELD_UNITS}
    return TokenUsage(*fields, FrozenMap(units))  # type: ignore[arg-type]


CASES = [pytest.param(provider, id=provider.id) for provider in providers]


@pytest.mark.parametrize("provider", CASES)
def test_every_model_date_variant_and_random_usage_costs_the_same(provider: Provider) -> None:
    chance = random.Random(provider.id)
    checked = 0
    for model in provider.models:
        rates = Rates(segments_of(model, provider), provider=provider.id, model=model.id)
        contexts = [{}, *(dict(variant.when) for variant in model.price_variants or ())]
        for at in moments(model):
            for context, values in [(c, make(chance)) for c in contexts for make in (consistent, plain)]:
                with localcontext(WIDE):
                    theirs = (
                        model.calc_price(
                            Usage(**values), provider, genai_request_timestamp=at, price_context=context or None
                        ).total_price
                        * 10**12
                    )

                cost = rates.price(ours(values), at, context)

                where = (model.id, at, context, values, cost)
                if cost.list_pico is None:
                    assert theirs == 0, where  # it says 0 where nothing is known; we say unpriced
                else:
                    # Rates finer than a pico-dollar a piece round once a line.
                    lines = rates.lines(ours(values), at, context)
                    grain = Decimal(len(lines)) / 2 if theirs % 1 else Decimal("0.001")
                    assert abs(cost.list_pico - theirs) <= grain, where
                    assert cost.list_pico == sum(line.pico for line in lines), where
                    if cost.list_pico == 0 and values["input_tokens"]:
                        assert cost.status is CostStatus.FREE, where
                checked += 1
    assert checked >= 2 * len(provider.models)


def test_our_table_of_units_is_that_of_the_list() -> None:
    def dimensions(name: str) -> frozenset[tuple[str, str]]:
        given = dict(unit_data[name]["dimensions"])
        if "token_type" in given:
            given["kind"] = given.pop("token_type")
        return frozenset(given.items())

    assert {name: (unit.per, unit.dimensions) for name, unit in UNITS.items()} == {
        name: (raw["per"], dimensions(name)) for name, raw in unit_data.items()
    }
