"""Every store keeps the same promises."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

import msgspec
import pytest

from agent_meter import RunRecord, Status, ToolRecord, UsageRecord
from agent_meter.records import ABANDONED, DENIED, TokenUsage
from agent_meter.store import Store
from agent_meter.totals import Totals

from .traffic import START, metered


@pytest.fixture(scope="module")
def traffic():
    return metered()


def fill(store, records):
    for record in records:
        store.put(record)
    store.flush(30)


def test_it_is_a_store(store):
    assert isinstance(store, Store)


def test_totals_are_those_of_the_meter_that_saw_it_all(store, traffic):
    meter, records = traffic

    fill(store, records)

    assert store.usage() == meter.usage


@pytest.mark.parametrize(
    "dimensions",
    [
        *[(name,) for name in ("agent", "task", "user", "session", "step", "model", "provider", "tool", "team")],
        *[(name,) for name in ("hour", "day", "week", "month")],
        *combinations(("agent", "user", "model", "tool", "day"), 2),
        ("session", "user"),
        ("task", "step", "hour"),
        ("team", "model"),
        ("agent", "user", "session", "tool", "month"),
    ],
    ids="-".join,
)
def test_by_every_dimension_it_says_what_the_meter_says(store, traffic, dimensions):
    meter, records = traffic

    fill(store, records)

    assert store.usage_by(*dimensions) == meter.usage_by(*dimensions)


def test_months_that_are_over_are_as_right_as_the_present_one(store):
    meter, records = metered(200, start=datetime(2026, 8, 30, 20, tzinfo=UTC))
    fill(store, records)

    for dimensions in (("user",), ("agent", "user"), ("user", "model"), ("session",), ("team",), ("month", "agent"),
                       ("tool",), ("day", "user"), ("week",)):  # fmt: skip
        assert store.usage_by(*dimensions) == meter.usage_by(*dimensions), dimensions
    assert store.usage() == meter.usage
    since = datetime(2026, 8, 31, 12, tzinfo=UTC)
    late = [r for r in meter.history() if r.started_at >= since]
    assert sum(usage.requests for usage in store.usage_by("user", "agent", since=since).values()) == len(late)
    assert store.verify().ok


def test_history_and_records_are_what_was_put(store, traffic):
    meter, records = traffic

    fill(store, records)

    assert store.history() == meter.history()
    assert store.history(5) == meter.history(5)
    assert store.history(include_denied=True) == meter.history(include_denied=True)
    stored = {record.id: record for record in store.records()}
    assert stored.keys() == {record.id for record in records}
    for record in records:
        for name in record.__struct_fields__:
            if name not in ("params",):
                assert getattr(stored[record.id], name) == getattr(record, name), (record.kind, name)


def test_a_range_has_what_began_in_it(store, traffic):
    _, records = traffic
    fill(store, records)
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    for since, until in (
        (None, midnight),
        (midnight, None),
        (midnight, midnight + timedelta(days=1)),
        (START + timedelta(minutes=95, seconds=7.25), START + timedelta(hours=31, seconds=1)),
        (START, START + timedelta(minutes=3)),
    ):
        inside = [r for r in records if (not since or r.started_at >= since) and (not until or r.started_at < until)]
        expected = Totals()
        for record in inside:
            if type(record) is UsageRecord:
                expected.add(record)

        assert store.usage(since, until).totals.list_pico == expected.list_pico
        assert store.usage(since, until).requests == expected.requests
        assert {record.id for record in store.records(since, until)} == {record.id for record in inside}
        by_user = store.usage_by("user", since=since, until=until)
        assert sum(usage.requests for usage in by_user.values()) == expected.requests
        assert sum(usage.totals.billed_pico for usage in by_user.values()) == expected.billed_pico


def test_the_same_record_counts_once(store, traffic):
    meter, records = traffic

    fill(store, records)
    fill(store, reversed(records))

    assert store.usage() == meter.usage
    assert store.health()["duplicates"] == len(records)


def test_a_correction_takes_back_what_it_corrects(store, traffic):
    _, records = traffic
    right = next(r for r in records if type(r) is UsageRecord and r.status is Status.OK and r.usage.output_tokens)
    wrong = msgspec.structs.replace(right, status=ABANDONED, usage=TokenUsage(1, 1))
    fill(store, [wrong])

    fill(store, [msgspec.structs.replace(right, corrects=wrong)])

    assert store.usage().output_tokens == right.output_tokens
    assert store.usage_by("model")[right.model].totals.list_pico == right.cost.list_pico
    assert [record.usage for record in store.history()] == [right.usage]
    assert [record.usage for record in store.records()] == [right.usage]
    assert len(store.changes()[0]) == 2


def test_a_correction_that_comes_first_counts_once_too(store, traffic):
    _, records = traffic
    right = next(r for r in records if type(r) is UsageRecord and r.status is Status.OK and r.usage.output_tokens)
    wrong = msgspec.structs.replace(right, status=ABANDONED, usage=TokenUsage(1, 1))

    fill(store, [msgspec.structs.replace(right, corrects=wrong), wrong])

    assert store.usage().output_tokens == right.output_tokens
    assert [record.usage for record in store.history()] == [right.usage]


def test_records_are_found_by_what_they_say(store, traffic):
    _, records = traffic
    fill(store, records)

    def ids(**filters):
        return {record.id for record in store.records(**filters)}

    assert ids(user="ü3") == {r.id for r in records if r.user == "ü3"}
    assert ids(kinds=["tool"]) == {r.id for r in records if type(r) is ToolRecord}
    assert ids(team="red", agent="writer") == {
        r.id for r in records if r.tags.get("team") == "red" and r.agent == "writer"
    }
    assert ids(tool="fetch") == {r.id for r in records if "fetch" in getattr(r, "tools", ())}
    assert ids(status="denied") == {r.id for r in records if r.status is DENIED}
    newest = list(store.records(newest_first=True))
    assert [r.started_at for r in newest] == sorted((r.started_at for r in records), reverse=True)
    with pytest.raises(ValueError, match="agent"):
        ids(agnet="x")


def test_changes_come_in_the_order_in_which_they_were_stored(store, traffic):
    _, records = traffic
    fill(store, records)

    seen, position = [], 0
    while True:
        page, position = store.changes(position, 100)
        if not page:
            break
        seen += page

    assert [record.id for record in seen] == [record.id for record in records]
    assert store.changes(store.end()) == ([], store.end())


def test_a_record_is_found_by_its_id_or_the_beginning_of_it(store, traffic):
    _, records = traffic
    fill(store, records)

    assert store.find(records[3].id).id == records[3].id
    assert store.find(records[3].id[:35]).id == records[3].id
    with pytest.raises(LookupError):
        store.find("nothing")
    with pytest.raises(LookupError):
        store.find(records[3].id[:3])


def test_tools_are_as_the_analytics_say(store, traffic):
    meter, records = traffic

    fill(store, records)

    assert store.tools().keys() == meter.analytics.get_all_metrics().keys()
    for name, expected in meter.analytics.get_all_metrics().items():
        found = store.tools()[name]
        for field in ("total_calls", "successful_calls", "failed_calls", "denied_calls", "total_cost", "total_chunks"):
            assert getattr(found, field) == getattr(expected, field), field
        assert found.total_duration == pytest.approx(expected.total_duration)
        assert (found.p50, found.p95, found.p99) == (expected.p50, expected.p95, expected.p99)
        assert (found.min_duration, found.max_duration) == (expected.min_duration, expected.max_duration)


def test_the_tree_of_a_run_is_the_meters(store, traffic):
    meter, records = traffic
    fill(store, records)
    runs = [r for r in records if type(r) is RunRecord and r.kind == "run"]

    def plain(tree):
        children = sorted(plain(child) for child in tree.children)
        return (tree.id, tree.kind, tree.name, tree.status, str(tree.own), str(tree.usage), children)

    assert runs
    for run in runs:
        assert plain(store.tree(run.id)) == plain(meter.tree(run.id))
    with pytest.raises(LookupError):
        store.tree("nothing")
    assert [run.id for run in store.runs(3)] == [
        run.id for run in sorted(runs, key=lambda run: run.started_at, reverse=True)[:3]
    ]


def test_pruned_days_stay_in_the_sums(store, traffic):
    meter, records = traffic
    fill(store, records)
    midnight = datetime(2026, 11, 20, tzinfo=UTC)

    gone = store.prune(midnight)

    assert gone == sum(record.started_at < midnight for record in records)
    assert all(record.started_at >= midnight for record in store.records())
    assert store.usage() == meter.usage
    assert store.usage_by("agent", "model", "day") == meter.usage_by("agent", "model", "day")
    assert store.verify().ok


def test_a_healthy_store_has_nothing_to_repair(store, traffic):
    _, records = traffic
    fill(store, records)

    audit = store.verify()

    assert audit.ok
    assert audit.differences == []
    assert audit.records == len(records)


def test_costs_that_a_card_says_otherwise_are_corrected_by_new_records(store, traffic):
    _, records = traffic
    fill(store, records)
    costly = next(r for r in records if type(r) is UsageRecord and r.cost.list_pico)

    def price(record):
        more = (record.cost.list_pico or 0) + 5
        return msgspec.structs.replace(record.cost, list_pico=more) if record.id == costly.id else record.cost

    before = store.usage().totals.list_pico
    found = store.verify(price=price)
    assert [difference.where for difference in found.differences] == [costly.id]
    assert store.usage().totals.list_pico == before

    assert store.verify(price=price, repair=True).ok
    store.flush(30)

    assert store.usage().totals.list_pico == before + 5
    assert store.find(costly.id).corrects is not None
    assert store.verify().ok


def test_settlements_are_applied_with_their_record_and_never_with_a_duplicate(store, traffic):
    _, records = traffic

    class Counting:
        applied = 0

        def apply(self, connection):
            Counting.applied += 1

    store.attach(records[0].id, Counting())
    fill(store, records[:1])
    store.attach(records[0].id, Counting())
    fill(store, records[:1])

    assert Counting.applied == 1


def test_what_tools_were_called_with_is_not_kept(store, traffic):
    _, records = traffic
    fill(store, records)

    tool = next(record for record in store.records(kinds=["tool"]))

    assert tool.params == {}
