"""The nouns: exact money, sortable ids, usage that adds up, records that cannot change."""

from __future__ import annotations

import copy
import decimal
import multiprocessing
import pickle
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter import (
    Alert,
    BudgetExceeded,
    Call,
    Cost,
    CostStatus,
    Denial,
    Kind,
    Meter,
    Model,
    PluginError,
    Status,
    TokenUsage,
    UsageRecord,
)
from agent_meter.records import EMPTY, NO_USAGE, TOKEN_CLASSES, FrozenMap, dollars, new_id, pico

COUNTS = st.integers(0, 10**12)
USAGES = st.builds(
    TokenUsage,
    *[COUNTS] * 10,
    units=st.dictionaries(st.sampled_from(["web_searches", "seconds"]), COUNTS, max_size=2).map(FrozenMap),
    missing=st.sampled_from([(), ("reasoning_tokens",), ("input_tokens", "output_tokens")]),
    reported_pico=st.none() | COUNTS,
)


# ------------------------------------------------------------------------------------------------- money


@given(st.integers(-(10**30), 10**30))
def test_money_is_exact_there_and_back(amount: int) -> None:
    assert pico(dollars(amount)) == amount


def test_dollars_are_exact_whatever_the_process_has_set_decimal_to() -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        assert str(dollars(123_456_789_012_345_678)) == "123456.789012345678"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (10**12, "1"),
        (-1_500_000_000_000, "-1.5"),
        (10**14, "100"),
        (10**25, "1" + "0" * 13),
    ],
)
def test_dollars_read_as_a_person_would_write_them(amount: int, text: str) -> None:
    assert f"{dollars(amount):f}" == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.1, 100_000_000_000),
        ("0.1", 100_000_000_000),
        (Decimal("0.1"), 100_000_000_000),
        (3, 3 * 10**12),
        (1e-12, 1),
        ("0.0000000000005", 0),  # half of a pico-dollar: to the even neighbour
        ("0.0000000000015", 2),
        ("0.00000000000051", 1),
        ("-0.0000000000015", -2),
        ("1e3", 10**15),
    ],
)
def test_an_amount_is_rounded_half_even_and_a_float_is_read_as_it_is_written(given: Any, expected: int) -> None:
    assert pico(given) == expected


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), "-Infinity", Decimal("sNaN")])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        pico(amount)


# --------------------------------------------------------------------------------------------------- ids


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_it() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    made = uuid.UUID(new_id())
    after = datetime.now(UTC)

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= datetime.fromtimestamp((made.int >> 80) / 1000, UTC) <= after


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(20_000)]
    moments = [id[:18] for id in ids]

    assert len(set(ids)) == len(ids)
    assert moments == sorted(moments)


def _ids_of_a_child(answers: Any) -> None:
    answers.put([new_id()[19:] for _ in range(50)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_workers_do_not_repeat_each_others_ids() -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    workers = [fork.Process(target=_ids_of_a_child, args=(answers,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    random_parts = [part for _ in workers for part in answers.get(timeout=30)]
    for worker in workers:
        worker.join(30)

    assert len(set(random_parts)) == 100


# ------------------------------------------------------------------------------------------------- usage


@given(st.lists(USAGES, max_size=6))
def test_usages_add_up_class_by_class(usages: list[TokenUsage]) -> None:
    total = sum(usages, NO_USAGE)

    for name in (*TOKEN_CLASSES, "total_tokens"):
        assert getattr(total, name) == sum(getattr(usage, name) for usage in usages)
    for unit in ("web_searches", "seconds"):
        assert total.units.get(unit, 0) == sum(usage.units.get(unit, 0) for usage in usages)
    reported = [usage.reported_pico for usage in usages if usage.reported_pico is not None]
    assert total.reported_pico == (sum(reported) if reported else None)
    assert set(total.missing) == {name for usage in usages for name in usage.missing}


def test_sum_works_without_a_start() -> None:
    assert sum([TokenUsage(1, 2), TokenUsage(3, 4)]) == TokenUsage(4, 6)
    assert sum([TokenUsage(1, 2, cache_read_tokens=1)]) == TokenUsage(1, 2, 1)


def test_usage_adds_to_nothing_else() -> None:
    with pytest.raises(TypeError):
        TokenUsage(1, 2) + 3
    with pytest.raises(TypeError):
        3 + TokenUsage(1, 2)


def test_a_sum_keeps_only_the_context_that_its_parts_share() -> None:
    one = TokenUsage(1, context=FrozenMap({"service_tier": "batch", "speed": "fast"}))
    other = TokenUsage(1, context=FrozenMap({"service_tier": "batch", "speed": "slow"}))

    assert dict((one + other).context) == {"service_tier": "batch"}


def test_the_parts_are_inside_the_wholes() -> None:
    usage = TokenUsage(100, 50, cache_read_tokens=60, cache_write_tokens=30, reasoning_tokens=20)

    assert (usage.total_tokens, usage.uncached_input_tokens) == (150, 10)
    assert (usage.prompt_tokens, usage.completion_tokens) == (100, 50)
    assert usage.problems == ()


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        (TokenUsage(10, 0, 8, 3), "cache_read_tokens + cache_write_tokens 11 > input_tokens 10"),
        (TokenUsage(10, 0, 0, 3, 4), "cache_write_1h_tokens 4 > cache_write_tokens 3"),
        (TokenUsage(0, 5, reasoning_tokens=6), "reasoning_tokens 6 > output_tokens 5"),
        (TokenUsage(5, input_audio_tokens=3, input_image_tokens=3), "input_audio_tokens + input_image_tokens 6 >"),
        (TokenUsage(0, 5, output_audio_tokens=6), "output_audio_tokens + output_image_tokens 6 > output_tokens 5"),
        (TokenUsage(-1), "input_tokens -1 < 0"),
    ],
)
def test_an_impossible_usage_is_kept_and_says_why(usage: TokenUsage, problem: str) -> None:
    assert any(found.startswith(problem) for found in usage.problems)
    assert usage.uncached_input_tokens >= 0


def test_an_impossible_usage_is_recorded_and_flagged() -> None:
    record = Meter().record_usage(model="gpt-4o", input_tokens=10, cache_read_tokens=20)

    assert (record.input_tokens, record.cache_read_tokens, record.estimated) == (10, 20, True)


# -------------------------------------------------------------------------------------------------- cost


def test_unknown_is_not_zero() -> None:
    cost = Cost(reason="no_rates")

    assert (cost.status, cost.amount, cost.total_cost) == (CostStatus.UNPRICED, None, None)
    assert (cost.prompt_cost, cost.completion_cost, cost.billed_amount) == (None, None, None)
    assert str(cost) == "unpriced (no_rates)"


def test_a_cost_has_its_parts_in_dollars() -> None:
    cost = Cost(CostStatus.PRICED, 7_500_000_000, 0, 2_500_000_000, 5_000_000_000, model="gpt-4o")

    assert (cost.amount, cost.billed_amount) == (Decimal("0.0075"), 0)
    assert (cost.prompt_cost, cost.completion_cost) == (Decimal("0.0025"), Decimal("0.005"))
    assert str(cost) == "$0.0075"
    assert str(Cost(CostStatus.PARTIAL, 10**10, 10**10)) == "≥ $0.01"


# ------------------------------------------------------------------------------------------------ records


@pytest.fixture
def record() -> UsageRecord:
    return Meter().record_usage(
        model="gpt-4o", provider="openai", input_tokens=30, output_tokens=15, tools=("search", "add"), team="search"
    )


def test_a_usage_record_speaks_the_words_of_the_seed_documents(record: UsageRecord) -> None:
    assert (record.prompt_tokens, record.completion_tokens, record.total_tokens) == (30, 15, 45)
    assert record.cost_usd == record.cost.amount == Decimal("0.000225")
    assert record.billed_cost_usd == Decimal("0.000225")
    assert (record.embedding_tokens, record.embedding_cost_usd) == (0, 0)
    assert record.timestamp is record.started_at
    assert record.tool_name == "search"
    assert record.model == "gpt-4o"


def test_an_embedding_record_has_its_tokens_and_cost_under_the_embedding_names() -> None:
    record = Meter().record_usage(model="text-embedding-3-small", input_tokens=1000, kind="embedding")

    assert (record.embedding_tokens, record.embedding_cost_usd) == (1000, Decimal("0.00002"))


def test_a_record_without_usage_says_what_is_missing() -> None:
    with (meter := Meter()).llm("gpt-4o"):
        pass
    record = meter.history()[0]

    assert record.usage is None
    assert record.missing == ("input_tokens", "output_tokens")
    assert (record.input_tokens, record.output_tokens, record.total_tokens) == (0, 0, 0)
    assert (record.cache_read_tokens, record.cache_write_tokens, record.reasoning_tokens) == (0, 0, 0)
    assert (record.cost_usd, record.estimated) == (None, True)


def test_a_record_cannot_be_changed_to_the_bottom(record: UsageRecord) -> None:
    with pytest.raises(AttributeError):
        record.agent = "other"
    with pytest.raises(AttributeError):
        record.usage.input_tokens = 0
    with pytest.raises(TypeError, match="cannot be changed"):
        record.tags["team"] = "other"
    with pytest.raises(TypeError):
        record.tags.update(team="other")


def test_a_record_pickles_copies_and_hashes(record: UsageRecord) -> None:
    twins = (pickle.loads(pickle.dumps(record)), copy.copy(record), copy.deepcopy(record))

    assert all(twin == record and hash(twin) == hash(record) for twin in twins)
    assert all(type(twin.tags) is FrozenMap for twin in twins)


def test_frozen_maps_are_maps() -> None:
    frozen = FrozenMap({"a": 1})

    assert frozen == {"a": 1}
    assert {**frozen, "b": 2} == {"a": 1, "b": 2}
    assert hash(frozen) == hash(FrozenMap({"a": 1}))
    assert copy.deepcopy(frozen) is frozen
    assert EMPTY == {}
    for change in (frozen.clear, frozen.popitem, lambda: frozen.pop("a"), lambda: frozen.setdefault("b", 2)):
        with pytest.raises(TypeError):
            change()


# --------------------------------------------------------------------------------------------- small nouns


def test_kinds_and_statuses_are_strings() -> None:
    assert (Kind.LLM, Status.OK, CostStatus.FREE) == ("llm", "ok", "free")
    assert f"{Kind.EMBEDDING} {Status.ABANDONED}" == "embedding abandoned"


def test_a_model_is_named_as_one_would_say_it() -> None:
    assert (str(Model("openai", "gpt-4o")), str(Model("", "gpt-4o"))) == ("openai/gpt-4o", "gpt-4o")
    assert Model("openai", "gpt-4o") in {Model("openai", "gpt-4o")}


def test_an_alert_reads_as_its_message() -> None:
    assert str(Alert("daily", "80 % of $5 are used")) == "80 % of $5 are used"


def test_an_open_call_says_what_it_is() -> None:
    call = Call(Kind.TOOL, "search", id="c1")

    assert repr(call) == "<Call tool search c1>"


def test_a_denied_call_can_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BudgetExceeded(Denial("no money left", by="daily"))))

    assert str(error) == "daily: no money left"
    assert error.denial == Denial("no money left", by="daily")
    assert str(pickle.loads(pickle.dumps(PluginError("x")))) == "x"


def test_times_are_utc_whatever_the_caller_says() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))

    record = Meter().record_usage(model="m", started_at=noon)

    assert record.started_at == noon
    assert record.started_at.tzinfo is UTC
