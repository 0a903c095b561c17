"""`meter.tree(run_id)` and `run.usage`: what a run used itself, and with everything below it, counted once."""

from __future__ import annotations

import contextlib
import threading
from decimal import Decimal
from typing import Any

import pytest

from agent_meter import Call, Kind, Meter, Model, TokenUsage
from agent_meter.testing import RecordingPlugin
from agent_meter.tree import RunTree, Tree


def tokens(meter: Any, number: int) -> None:
    """A model call of `number` tokens, opened on whatever `meter` is: a meter, a run or a step."""
    with meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(number))


def shape(tree: RunTree) -> Any:
    return (tree.name, tree.own.total_tokens, tree.usage.total_tokens, [shape(child) for child in tree.children])


def test_a_subtree_has_everything_below_counted_once() -> None:
    meter = Meter()
    with meter.run("agent") as run:
        tokens(run, 1)
        with run.step() as step:
            tokens(step, 10)
            with step.tool("ask_writer"), meter.run("writer") as writer:
                tokens(writer, 100)
                with writer.step("draft") as draft:
                    tokens(draft, 1000)
        with run.step() as step:
            tokens(step, 10_000)

    assert shape(meter.tree(run.id)) == (
        "agent",
        1,
        11_111,
        [
            ("step 1", 10, 1_110, [("ask_writer", 0, 1_100, [("writer", 100, 1_100, [("draft", 1_000, 1_000, [])])])]),
            ("step 2", 10_000, 10_000, []),
        ],
    )
    assert meter.usage.total_tokens == 11_111
    assert meter.tree(writer.id).usage.total_tokens == writer.usage.total_tokens == 1_100
    assert [child.kind for child in meter.tree(run.id).children] == ["step", "step"]


def test_the_tree_reads_as_text() -> None:
    meter = Meter()
    with meter.run("agent") as run:
        with run.step():
            meter.record_usage(model="gpt-4o", input_tokens=1000)
        with meter.run():
            meter.record_usage(model="zz-unknown", input_tokens=5)

    assert str(meter.tree(run.id)) == (
        "agent: 1,005 tokens, ≥ $0.002500\n  step 1: 1,000 tokens, $0.002500\n  run: 5 tokens, ≥ $0.000000"
    )


def test_a_run_can_be_read_while_it_goes_on() -> None:
    meter = Meter()
    run = meter.run("agent")
    assert run.usage.requests == 0

    with run:
        assert (run.usage.requests, meter.tree(run.id).status) == (0, "")
        with run.llm("gpt-4o") as call:
            call.finish(TokenUsage(10))
            assert run.usage.total_tokens == 10
        with run.step() as step:
            tokens(step, 5)
            assert (step.usage.total_tokens, run.usage.total_tokens) == (5, 15)
        before = run.usage
        tokens(run, 1)

    assert (before.total_tokens, run.usage.total_tokens) == (15, 16)
    assert meter.tree(run.id).status == "ok"


def test_statuses_tell_how_runs_ended() -> None:
    meter = Meter()
    with contextlib.suppress(KeyError), meter.run("outer") as outer:
        inner = meter.open(Call(Kind.RUN, "inner", parent=outer.call))
        raise KeyError

    tree = meter.tree(outer.id)
    assert (tree.status, tree.children[0].status) == ("error", "abandoned")
    assert tree.children[0].id == inner.id


def test_a_run_record_has_its_own_totals_only() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])
    with meter.run("outer") as outer:
        tokens(outer, 1)
        with meter.run("inner") as inner:
            tokens(inner, 10)
            inner.tool("t").__enter__().__exit__(None, None, None)

    assert [(record.name, record.usage.total_tokens) for record in watching.run_records] == [
        ("inner", 10),
        ("outer", 1),
    ]
    assert watching.run_records[0].usage.tool_usage == {"t": 1}


def test_an_unknown_run_is_a_lookup_error_that_says_what_is_kept() -> None:
    with pytest.raises(LookupError, match=r"no run 'x': never opened here, or forgotten \(the last 10,000 runs"):
        Meter().tree("x")


def test_money_and_unpriced_calls_travel_up() -> None:
    meter = Meter()
    with meter.run("outer") as outer, meter.run("inner"):
        meter.record_usage(model="gpt-4o", input_tokens=1000)
        meter.record_usage(model="zz-unknown", input_tokens=1)

    usage = meter.tree(outer.id).usage
    assert (usage.cost_usd, usage.unpriced_requests, usage.is_lower_bound) == (Decimal("0.0025"), 1, True)


def test_calls_of_runs_in_threads_go_to_their_runs() -> None:
    meter = Meter()

    def work(number: int) -> None:
        with meter.run(f"r{number}") as run:
            for _ in range(50):
                tokens(run, number)
        ids[number] = run.id

    ids: dict[int, str] = {}
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: meter.tree(id).usage.total_tokens for number, id in ids.items()} == {n: 50 * n for n in range(8)}


# -------------------------------------------------------------------------------------------------- bounds


def bounded(nodes: int) -> Meter:
    meter = Meter(analytics=False)
    meter._accounts.tree = Tree(nodes)
    return meter


def test_a_full_tree_folds_its_oldest_ended_leaves_into_their_parents() -> None:
    meter = bounded(50)
    with meter.run("agent") as run:
        for _ in range(500):
            with run.step() as step:
                tokens(step, 2)
                with step.tool("t") as tool, meter.run("sub") as sub:
                    tokens(sub, 1)
        assert run.usage.total_tokens == 1500

    tree = meter.tree(run.id)
    assert (tree.usage.total_tokens, tree.usage.requests, tree.usage.tool_usage) == (1500, 1000, {"t": 500})
    assert 5 < len(tree.children) <= 50
    assert tree.children[-1].name == "step 500"
    assert tool.record is not None


def test_a_full_tree_forgets_old_runs_and_keeps_what_they_used_in_the_totals() -> None:
    meter = bounded(50)
    runs = []
    for _ in range(200):
        with meter.run("r") as run:
            tokens(run, 1)
        runs.append(run.id)

    assert meter.usage.total_tokens == 200
    assert meter.tree(runs[-1]).usage.total_tokens == 1
    with pytest.raises(LookupError):
        meter.tree(runs[0])


def test_open_runs_that_had_to_make_room_still_count_in_the_run_above() -> None:
    """More open sub-agents than the tree has room for: what each uses afterwards is not lost to the whole."""
    meter = bounded(20)
    with meter.run("agent") as run:
        subs = [meter.open(Call(Kind.RUN, f"sub {number}", parent=run.call)) for number in range(100)]
        for sub in subs:
            llm = meter.open(Call(Kind.LLM, model=Model("", "gpt-4o"), parent=sub))
            meter.close(llm, TokenUsage(1))
        assert run.usage.total_tokens == 100
        for sub in subs:
            meter.close(sub)

    assert meter.tree(run.id).usage.total_tokens == 100
    assert len(meter.tree(run.id).children) <= 20
    assert meter._accounts.tree._moved == {}


def test_a_tool_that_is_folded_while_it_is_open_loses_nothing() -> None:
    meter = bounded(10)
    with meter.run("agent") as run, run.tool("slow") as slow:
        tokens(meter, 1)
        for _ in range(50):
            with meter.run("other"):
                tokens(meter, 1)
        tokens(meter, 1)
        assert slow.record is None

    assert meter.tree(run.id).usage.total_tokens == 52


def test_a_chain_that_is_deeper_than_pythons_stack_can_be_read() -> None:
    meter = Meter(analytics=False)
    calls = [meter.open(Call(Kind.RUN, "r0"))]
    for depth in range(1, 2000):
        calls.append(meter.open(Call(Kind.RUN, f"r{depth}", parent=calls[-1])))
    llm = meter.open(Call(Kind.LLM, model=Model("", "m"), parent=calls[-1]))
    for call in (llm, *reversed(calls)):
        meter.close(call, TokenUsage(7) if call is llm else None)

    tree = meter.tree(calls[0].id)
    assert (tree.own.total_tokens, tree.usage.total_tokens) == (0, 7)
    assert str(tree).count("\n") == 1999


def test_a_chain_deeper_than_the_tree_is_wide_is_kept_while_it_is_open() -> None:
    meter = bounded(10)
    calls = [meter.open(Call(Kind.RUN, "r0"))]
    for depth in range(1, 40):
        calls.append(meter.open(Call(Kind.RUN, f"r{depth}", parent=calls[-1])))
    meter.close(meter.open(Call(Kind.LLM, model=Model("", "m"), parent=calls[-1])), TokenUsage(7))

    assert meter.tree(calls[0].id).usage.total_tokens == 7


def test_a_reset_with_open_runs_starts_them_at_zero_and_forgets_the_rest() -> None:
    meter = Meter()
    with meter.run("outer") as outer:
        with meter.run("ended") as ended:
            tokens(ended, 5)
        with outer.tool("t"), meter.run("inner") as inner:
            tokens(inner, 7)
            meter.reset()
            assert (outer.usage.total_tokens, inner.usage.total_tokens) == (0, 0)
            tokens(inner, 11)

    assert shape(meter.tree(outer.id)) == ("outer", 0, 11, [("t", 0, 11, [("inner", 11, 11, [])])])
    with pytest.raises(LookupError):
        meter.tree(ended.id)
