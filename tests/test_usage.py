"""What people read: AgentUsage, its words, its text, its sums."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pages import read, run_examples

from agent_meter import AgentUsage, Cost, CostStatus, Kind, Meter, Status, TokenUsage, UsageRecord
from agent_meter.totals import COUNTERS

PAGE = "reference/usage.md"


def record(
    tokens: tuple[int, int] = (30, 15),
    *,
    pico: int | None = 225_000_000,
    cached: bool = False,
    kind: Kind = Kind.LLM,
    status: Status = Status.OK,
    tools: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    **usage: Any,
) -> UsageRecord:
    cost_status = CostStatus.UNPRICED if pico is None else CostStatus.PRICED
    cost = Cost(cost_status, pico, 0 if cached else pico, (pico or 0) // 3, (pico or 0) - (pico or 0) // 3)
    if missing:
        cost = Cost(CostStatus.PARTIAL, pico, pico, missing=missing)
    return UsageRecord(
        id="r",
        kind=kind,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration=0.1,
        time_to_first_token=None,
        provider="openai",
        request_model="gpt-4o",
        response_model=None,
        model="gpt-4o",
        usage=TokenUsage(*tokens, **usage),
        cost=cost,
        status=status,
        cached=cached,
        tools=tools,
    )


def added(*records: UsageRecord) -> AgentUsage:
    usage = AgentUsage()
    for one in records:
        usage.add_usage(one)
    return usage


# ------------------------------------------------------------------------------------------------- words


def test_usage_speaks_the_words_of_the_seed_documents() -> None:
    usage = added(
        record((1000, 500), pico=3_000_000, tools=("search",)),
        record((200, 0), pico=20_000, kind=Kind.EMBEDDING),
    )

    assert usage.total_tokens == 1500
    assert usage.total_prompt_tokens == usage.prompt_tokens == usage.input_tokens == 1000
    assert usage.total_completion_tokens == usage.completion_tokens == usage.output_tokens == 500
    assert usage.total_cost_usd == usage.total_cost == usage.cost_usd == Decimal("0.00000302")
    assert usage.total_embedding_tokens == usage.embedding_tokens == 200
    assert usage.total_embedding_cost_usd == usage.embedding_cost_usd == Decimal("0.00000002")
    assert usage.llm_cost_usd == Decimal("0.000003")
    assert (usage.prompt_cost, usage.completion_cost) == (Decimal("0.000001"), Decimal("0.000002"))
    assert usage.request_count == usage.requests == 2
    assert usage.tool_usage == {"search": 1}
    assert usage.tool_tokens == {"search": 1500}
    assert len(usage.iterations) == 2


def test_the_dictionary_begins_with_the_seeds_keys_in_their_order() -> None:
    plain = added(record()).to_dict()
    with_embeddings = added(record(), record((1022, 0), kind=Kind.EMBEDDING, pico=20_440_000)).to_dict()

    seed = [
        "total_tokens",
        "total_prompt_tokens",
        "total_completion_tokens",
        "total_cost_usd",
        "tool_usage",
        "tool_tokens",
        "iterations",
    ]
    assert list(plain)[:7] == seed
    assert list(with_embeddings)[:9] == [*seed, "total_embedding_tokens", "total_embedding_cost_usd"]
    assert "total_embedding_tokens" not in plain
    assert (plain["iterations"], plain["total_cost_usd"]) == (1, 0.000225)
    assert with_embeddings["total_embedding_cost_usd"] == 0.00002044
    assert {name: plain[name] for name in COUNTERS} == {
        name: getattr(added(record()).totals, name) for name in COUNTERS
    }
    assert json.loads(json.dumps(with_embeddings)) == with_embeddings


def test_the_dictionary_has_units_where_there_are_some() -> None:
    usage = added(record(units={"web_searches": 2, "seconds": Decimal("1.5")}), record(units={"web_searches": 1}))

    assert usage.units == {"web_searches": 3, "seconds": Decimal("1.5")}
    assert json.loads(json.dumps(usage.to_dict()))["units"] == {"web_searches": 3, "seconds": 1.5}


# -------------------------------------------------------------------------------------------------- text


def test_the_summary_is_the_seeds_block() -> None:
    usage = AgentUsage()
    usage.add_usage(record((3210, 1200), pico=2_150_000_000))

    assert str(usage) == (
        "\n============================================================\n"
        "📊 Usage Summary\n"
        "============================================================\n"
        "Total Tokens: 4,410\n"
        "  - Prompt: 3,210\n"
        "  - Completion: 1,200\n"
        "Total Cost: $0.002150\n"
        "Iterations: 1\n"
        "============================================================\n"
    )


def test_the_summary_of_nothing() -> None:
    assert "Total Tokens: 0\n  - Prompt: 0\n  - Completion: 0\nTotal Cost: $0.000000\nIterations: 0\n=" in str(
        AgentUsage()
    )


def test_every_line_of_the_summary_stands_where_it_applies() -> None:
    usage = added(
        record((3210, 1200), pico=2_000_000_000, tools=("search", "search", "calc")),
        record((1022, 0), pico=150_000_000, kind=Kind.EMBEDDING),
        record((10, 0), pico=1_000_000_000, cached=True),
        record((1, 0), pico=None),
        record((1, 0), pico=None),
        record((0, 0), pico=1_000_000, missing=("web_searches",)),
        record((0, 0), status=Status.DENIED),
    )

    assert str(usage).splitlines()[4:-1] == [
        "Total Tokens: 4,422",
        "  - Prompt: 3,222",
        "  - Completion: 1,200",
        "  - Embeddings: 1,022",
        "Total Cost: ≥ $0.003151",
        "  - LLM: $0.003001",
        "  - Embeddings: $0.000150",
        "Cached: 1 call of 6 replayed",
        "  - Saved: $0.001000",
        "  - Billed: $0.002151",
        "Unpriced: 2 calls (not in the cost)",
        "Partly priced: 1 call",
        "Denied: 1 call (not sent)",
        "Iterations: 6",
        "",
        "Tool Usage:",
        "  - search: 2 calls, 2,940 tokens",
        "  - calc: 1 calls, 1,470 tokens",
    ]


def test_tools_are_listed_by_calls_and_then_by_name() -> None:
    usage = added(record(tools=("b",)), record(tools=("a",)), record(tools=("c", "c")))

    assert [line.split(":")[0] for line in str(usage).splitlines() if line.endswith("tokens")] == [
        "  - c",
        "  - a",
        "  - b",
    ]


@pytest.mark.parametrize(
    ("pico", "text"), [(150_000, "$0.00000015"), (1, "$0.000000000001"), (10**18, "$1,000,000.000000")]
)
def test_an_amount_is_never_shown_as_zero(pico: int, text: str) -> None:
    assert f"Total Cost: {text}\n" in str(added(record(pico=pico)))


def test_the_representation_is_short() -> None:
    assert repr(added(record(), record(pico=None))) == (
        "AgentUsage(requests=2, input_tokens=60, output_tokens=30, cost_usd=≥ 0.000225)"
    )


# -------------------------------------------------------------------------------------------------- sums


RECORDS = st.builds(
    record,
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    pico=st.none() | st.integers(0, 10**20),
    cached=st.booleans(),
    kind=st.sampled_from([Kind.LLM, Kind.EMBEDDING, Kind.RERANK]),
    status=st.sampled_from([Status.OK, Status.ERROR, Status.ABANDONED, Status.DENIED]),
    tools=st.lists(st.sampled_from("abc"), max_size=5).map(tuple),
    cache_read_tokens=st.integers(0, 10**6),
    cache_write_tokens=st.integers(0, 10**6),
    reasoning_tokens=st.integers(0, 10**6),
    output_image_tokens=st.integers(0, 3),
)


@given(st.lists(RECORDS, max_size=12))
def test_totals_are_the_sums_of_the_records(records: list[UsageRecord]) -> None:
    usage = added(*records)

    made = [one for one in records if one.status is not Status.DENIED]
    answers = [one for one in made if one.kind is not Kind.EMBEDDING]
    embeddings = [one for one in made if one.kind is Kind.EMBEDDING]
    assert usage.requests == len(made)
    assert usage.denied_requests == len(records) - len(made)
    assert usage.api_calls == sum(not one.cached for one in made)
    assert usage.cached_requests == sum(one.cached for one in made)
    assert usage.failed_requests == sum(one.status is not Status.OK for one in made)
    assert usage.unpriced_requests == sum(one.cost_usd is None for one in made)
    assert usage.input_tokens == sum(one.input_tokens for one in answers)
    assert usage.output_tokens == sum(one.output_tokens for one in answers)
    assert usage.cache_read_tokens == sum(one.cache_read_tokens for one in answers)
    assert usage.cache_write_tokens == sum(one.cache_write_tokens for one in answers)
    assert usage.reasoning_tokens == sum(one.reasoning_tokens for one in answers)
    assert usage.output_image_tokens == sum(one.usage.output_image_tokens for one in answers)  # type: ignore[union-attr]
    assert usage.embedding_tokens == sum(one.input_tokens for one in embeddings)
    assert usage.totals.list_pico == sum(one.cost.list_pico or 0 for one in made)
    assert usage.totals.billed_pico == sum(one.cost.billed_pico or 0 for one in made)
    assert usage.totals.saved_pico == sum(one.cost.list_pico or 0 for one in made if one.cached)
    assert usage.totals.embedding_pico == sum(one.cost.list_pico or 0 for one in embeddings)
    assert usage.totals.input_pico == sum(one.cost.input_pico for one in answers)
    assert usage.totals.output_pico == sum(one.cost.output_pico for one in answers)
    assert usage.is_lower_bound == any(one.cost_usd is None for one in made)


@given(st.lists(RECORDS, max_size=12))
def test_the_shares_of_a_turn_add_up_to_the_turn(records: list[UsageRecord]) -> None:
    usage = added(*records)
    asking = [one for one in records if one.tools and one.status is not Status.DENIED]

    assert sum(usage.tool_tokens.values()) == sum(one.total_tokens for one in asking if one.kind is not Kind.EMBEDDING)
    assert sum(usage.tool_tokens.values()) <= usage.total_tokens
    assert sum(usage.tool_usage.values()) == sum(len(one.tools) for one in asking)
    by_tool = usage.totals.by_tool()
    for name in COUNTERS:
        assert sum(getattr(totals, name) for totals in by_tool.values()) == getattr(usage.totals, name)


@given(st.lists(RECORDS, max_size=8), st.lists(RECORDS, max_size=8))
def test_merging_is_adding_everything(mine: list[UsageRecord], theirs: list[UsageRecord]) -> None:
    merged, other = added(*mine), added(*theirs)
    before = other.to_dict()

    merged.merge(other)

    assert merged == added(*mine, *theirs)
    assert merged.iterations == added(*mine, *theirs).iterations
    assert other.to_dict() == before


def test_usage_can_be_merged_with_itself() -> None:
    usage = added(record(tools=("a",)))
    usage.merge(usage)

    assert (usage.requests, usage.tool_usage, len(usage.iterations)) == (2, {"a": 2}, 2)


def test_what_does_not_divide_goes_to_the_tools_asked_for_first() -> None:
    """Three tools in a turn of 101 tokens, of which 70 are input: 70 = 24+23+23, 31 = 11+10+10."""
    usage = added(record((70, 31), pico=1000, tools=("a", "b", "c")))

    assert usage.tool_tokens == {"a": 35, "b": 33, "c": 33}
    assert [usage.totals.by_tool()[name].list_pico for name in "abc"] == [334, 333, 333]
    assert [usage.totals.by_tool()[name].requests for name in "abc"] == [1, 0, 0]


def test_a_tool_may_be_named_when_usage_is_added() -> None:
    usage = AgentUsage()
    usage.add_usage(record(), tool_name="search")
    usage.add_usage(record(), "search")
    usage.add_usage(record(tools=("calc",)), "search")

    assert usage.tool_usage == {"search": 2, "calc": 1}
    assert usage.tool_tokens == {"search": 90, "calc": 45}


def test_a_tool_counts_as_often_as_it_ran_or_was_asked_for_whichever_is_more() -> None:
    meter = Meter()
    meter.record_usage(model="m", input_tokens=8, tools=("asked", "both"))
    for name in ("both", "both", "ran"):
        meter.record_tool_call(name, True, 0.1, {})

    assert meter.usage.tool_usage == {"asked": 1, "both": 2, "ran": 1}
    assert meter.usage.tool_tokens == {"asked": 4, "both": 4, "ran": 0}


def test_a_cost_with_a_part_left_out_is_a_lower_bound_even_at_zero() -> None:
    usage = added(record((0, 0), pico=0, missing=("images",)))

    assert usage.is_lower_bound
    assert "Total Cost: ≥ $0.000000\n" in str(usage)


def test_an_embedding_stands_beside_the_tokens_and_in_the_cost() -> None:
    usage = added(record((1022, 0), pico=20_440_000, kind=Kind.EMBEDDING))

    assert (usage.total_tokens, usage.embedding_tokens) == (0, 1022)
    assert usage.cost_usd == usage.embedding_cost_usd == Decimal("0.00002044")
    assert (usage.prompt_cost, usage.completion_cost, usage.llm_cost_usd) == (0, 0, 0)


def test_uncached_input_is_what_no_cache_held() -> None:
    assert added(record((100, 0), cache_read_tokens=60, cache_write_tokens=30)).uncached_input_tokens == 10


# ---------------------------------------------------------------------------------------------- snapshots


def usage_of_a_meter() -> tuple[Meter, AgentUsage]:
    meter = Meter()
    meter.record_usage(model="gpt-4o", input_tokens=30, output_tokens=15, tools=("search",), units={"pages": 1})
    return meter, meter.usage


def test_a_snapshot_does_not_change_with_later_calls() -> None:
    meter, before = usage_of_a_meter()
    by_model = meter.usage_by("model")["gpt-4o"]
    told = (before.to_dict(), by_model.to_dict(), before.iterations, by_model.iterations)

    meter.record_usage(model="gpt-4o", input_tokens=30, tools=("search",), units={"pages": 1})
    meter.reset()

    assert (before.to_dict(), by_model.to_dict(), before.iterations, by_model.iterations) == told


def test_changing_what_a_snapshot_gave_changes_nothing_else() -> None:
    meter, usage = usage_of_a_meter()
    told = usage.to_dict()

    usage.tool_usage["search"] = 99
    usage.tool_tokens.clear()
    usage.units["pages"] = 99
    usage.iterations.clear()
    usage.to_dict()["tool_usage"]["search"] = 99
    meter.usage_by("model").clear()
    meter.history().clear()

    assert usage.to_dict() == meter.usage.to_dict() == meter.usage_by("model")["gpt-4o"].to_dict() == told
    assert len(usage.iterations) == len(meter.usage.iterations) == len(meter.history()) == 1


def test_adding_to_a_snapshot_leaves_the_meter_alone() -> None:
    meter, usage = usage_of_a_meter()

    usage.merge(meter.usage)
    usage.add_usage(record(tools=("search",)))

    assert (usage.requests, usage.tool_usage, usage.units, len(usage.iterations)) == (3, {"search": 3}, {"pages": 2}, 3)
    assert (meter.usage.requests, meter.usage.tool_usage, meter.usage.units) == (1, {"search": 1}, {"pages": 1})


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda usage: pickle.loads(pickle.dumps(usage))])
def test_a_copy_is_equal_and_shares_nothing(twin_of: Any) -> None:
    meter, _ = usage_of_a_meter()
    for usage in (meter.usage, meter.usage_by("model")["gpt-4o"], added(record(tools=("search",)))):
        told = usage.to_dict()
        twin = twin_of(usage)

        assert (twin == usage, twin.iterations, str(twin)) == (True, usage.iterations, str(usage))
        twin.merge(usage)
        assert usage.to_dict() == told
        assert twin != usage


def test_usage_equals_usage_only() -> None:
    assert AgentUsage() == AgentUsage()
    assert AgentUsage() != 0
    with pytest.raises(TypeError):
        hash(AgentUsage())


def test_the_list_of_iterations_is_bounded_and_their_number_is_not() -> None:
    usage = AgentUsage(keep=2)
    for number in range(5):
        usage.add_usage(record((number, 0)))

    assert [one.input_tokens for one in usage.iterations] == [3, 4]
    assert usage.requests == usage.to_dict()["iterations"] == 5
    assert "Iterations: 5\n" in str(usage)
    assert AgentUsage(keep=0).iterations == []


def test_one_usage_may_be_added_to_and_read_by_many_threads() -> None:
    usage, other = AgentUsage(), AgentUsage()
    done = threading.Event()
    errors: list[BaseException] = []

    def read_on() -> None:
        try:
            while not done.is_set():
                (str(usage), usage.to_dict(), usage.iterations, usage.tool_tokens)
                other.merge(usage)
        except BaseException as error:
            errors.append(error)

    def write(writer: int) -> None:
        for number in range(400):
            usage.add_usage(record(tools=(f"t{writer}-{number}",)))

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()

    assert errors == []
    assert (usage.requests, usage.total_tokens, len(usage.tool_usage)) == (3200, 3200 * 45, 3200)


# --------------------------------------------------------------------------------------------- documents


def test_the_page_is_true(tmp_path: Path) -> None:
    names = run_examples(PAGE)

    assert names["meter"].usage.requests > 0


def test_the_page_names_everything_that_can_be_read() -> None:
    page = read(PAGE)
    names = [name for name in dir(AgentUsage) if not name.startswith("_")]

    assert [name for name in names if name not in ("snapshot", "totals") and f"`{name}" not in page] == []
