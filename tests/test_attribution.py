"""Whose call is this: scopes, what the adapter knows, what the call says itself, what plugins add."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_meter import Call, Kind, Meter, Model, TokenUsage, attribution, hookimpl

NAMES = ("agent", "task", "user", "session", "step")


@pytest.fixture
def meter() -> Meter:
    return Meter()


def called(meter: Meter, **known: Any) -> Any:
    """A call as an adapter makes it: opened with what the adapter knows, closed at once. Its record."""
    call = Call(Kind.LLM, model=Model("", "m"))
    for name, value in known.items():
        setattr(call, name, value)
    meter.open(call)
    return meter.close(call, TokenUsage(1))


def whose(record: Any) -> dict[str, str]:
    return {name: value for name in NAMES if (value := getattr(record, name))} | dict(record.tags)


# ----------------------------------------------------------------------------------------------- scopes


def test_a_scope_names_the_calls_inside_it(meter: Meter) -> None:
    with meter.scope(agent="a", task="t", user="u", session="s", step="1", team="x"):
        inside = called(meter)
    outside = called(meter)

    assert whose(inside) == {"agent": "a", "task": "t", "user": "u", "session": "s", "step": "1", "team": "x"}
    assert whose(outside) == {}


def test_scopes_nest_and_the_inner_one_wins_where_it_says_something(meter: Meter) -> None:
    with meter.scope(agent="outer", user="u", team="x", floor=1):
        with meter.scope(agent="inner", team="y", task=None):
            inner = called(meter)
        outer = called(meter)

    assert whose(inner) == {"agent": "inner", "user": "u", "team": "y", "floor": "1"}
    assert whose(outer) == {"agent": "outer", "user": "u", "team": "x", "floor": "1"}


def test_a_scope_ends_with_an_exception_too(meter: Meter) -> None:
    with pytest.raises(ValueError, match="x"), meter.scope(agent="a"):
        raise ValueError("x")

    assert whose(called(meter)) == {}


def test_a_scope_can_be_used_again_and_inside_itself(meter: Meter) -> None:
    scope = meter.scope(agent="a")
    with scope, scope:
        first = called(meter)
    with scope:
        second = called(meter)

    assert whose(first) == whose(second) == {"agent": "a"}
    assert whose(called(meter)) == {}


def test_an_empty_value_says_nobody(meter: Meter) -> None:
    with meter.scope(agent="a", user="u"), meter.scope(agent=""):
        assert whose(called(meter)) == {"user": "u"}


def test_values_become_text(meter: Meter) -> None:
    with meter.scope(user=42, beta=True):  # type: ignore[arg-type]
        assert whose(called(meter)) == {"user": "42", "beta": "True"}


def test_a_scope_holds_for_every_kind_of_call_and_every_meter(meter: Meter) -> None:
    other = Meter()
    with meter.scope(agent="a"), meter.run("r") as run, meter.tool("t") as tool:
        told = other.record_usage(model="m")
        called_tool = meter.record_tool_call("t", True, 0.1, {})

    assert [whose(record) for record in (run.record, tool.record, told, called_tool)] == [{"agent": "a"}] * 4


def test_one_can_ask_what_is_around(meter: Meter) -> None:
    assert attribution.current().agent == ""
    with meter.scope(agent="a", team="x") as around:
        assert attribution.current() is around
        assert (around.agent, dict(around.tags)) == ("a", {"team": "x"})


# ------------------------------------------------------------------------------------------- who is right


def test_an_explicit_scope_beats_what_the_adapter_knows(meter: Meter) -> None:
    with meter.scope(agent="scoped", team="scoped"):
        record = called(meter, agent="adapter", user="adapter", tags={"team": "adapter", "floor": "1"})

    assert whose(record) == {"agent": "scoped", "user": "adapter", "team": "scoped", "floor": "1"}


def test_what_a_call_says_itself_beats_the_scope_around_it(meter: Meter) -> None:
    with meter.scope(agent="outer", user="u", team="outer"):
        told = meter.record_usage(model="m", agent="own", team="own")
        tool = meter.record_tool_call("t", True, 0.1, {}, agent="own", team="own")
        with meter.llm("m", agent="own", team="own") as call:
            call.finish(TokenUsage(1))
        with meter.tool("t", agent="own", team="own") as block:
            pass

    expected = {"agent": "own", "user": "u", "team": "own"}
    assert [whose(record) for record in (told, tool, call.record, block.record)] == [expected] * 4


def test_the_run_inside_a_scope_names_its_calls_and_a_scope_inside_the_run_renames_them(meter: Meter) -> None:
    with meter.scope(agent="outer", user="u", team="outer"), meter.run("r", agent="run", team="run") as run:
        plain = called(meter)
        known = called(meter, agent="adapter")
        with meter.scope(agent="inner"):
            renamed = called(meter)
    after = called(meter)

    assert whose(run.record) == whose(plain) == {"agent": "run", "user": "u", "team": "run"}
    assert whose(known) == {"agent": "adapter", "user": "u", "team": "run"}
    assert whose(renamed) == {"agent": "inner", "user": "u", "team": "run"}
    assert whose(after) == {}


def test_a_child_inherits_from_its_parent_what_nobody_else_says(meter: Meter) -> None:
    parent = Call(Kind.RUN, "r")
    parent.agent, parent.user, parent.tags = "a", "u", {"team": "x", "floor": "1"}
    meter.open(parent)

    record = called(meter, parent=parent, user="own", tags={"floor": "2"})

    assert whose(record) == {"agent": "a", "user": "own", "team": "x", "floor": "2"}


def test_a_step_names_what_is_called_in_it(meter: Meter) -> None:
    with meter.scope(step="outer"), meter.run("r") as run:
        before = called(meter)
        with run.step("plan"):
            inside = called(meter)
        with run.step("odd", step="another name"):
            renamed = called(meter)

    assert (before.step, inside.step, renamed.step) == ("outer", "plan", "another name")


def test_plugins_fill_what_nobody_said_and_overwrite_nothing() -> None:
    class Deployment:
        @hookimpl
        def meter_tag_call(self, call: Call) -> dict[str, Any]:
            return {"agent": "plugin", "user": "plugin", "region": "eu", "team": "plugin", "task": None, "step": ""}

    meter = Meter([Deployment()])
    with meter.scope(agent="scoped", team="x"):
        record = called(meter)

    assert whose(record) == {"agent": "scoped", "user": "plugin", "region": "eu", "team": "x"}


def test_a_plugin_sees_what_is_known_so_far() -> None:
    seen = []

    class Reader:
        @hookimpl
        def meter_tag_call(self, call: Call) -> None:
            seen.append((call.agent, dict(call.tags)))

    meter = Meter([Reader()])
    with meter.scope(agent="a", team="x"):
        called(meter)
        meter.record_usage(model="m")

    assert seen == [("a", {"team": "x"})] * 2


# ------------------------------------------------------------------------------- tasks, threads, generators


async def test_tasks_do_not_see_each_others_scopes(meter: Meter) -> None:
    async def agent(name: str) -> Any:
        with meter.scope(agent=name):
            await asyncio.sleep(0)
            first = called(meter)
            await asyncio.sleep(0)
            return whose(first), whose(called(meter))

    with meter.scope(user="u"):
        told = await asyncio.gather(*(agent(f"a{number}") for number in range(50)))

    assert told == [({"agent": f"a{number}", "user": "u"},) * 2 for number in range(50)]
    assert whose(called(meter)) == {}


async def test_one_scope_may_be_open_in_many_tasks(meter: Meter) -> None:
    shared = meter.scope(agent="shared")

    async def agent(user: str) -> Any:
        with meter.scope(user=user):
            with shared:
                await asyncio.sleep(0.001 * (7 - int(user)))
                inside = whose(called(meter))
            return inside, whose(called(meter))

    told = await asyncio.gather(*(agent(str(number)) for number in range(8)))

    assert told == [({"agent": "shared", "user": str(number)}, {"user": str(number)}) for number in range(8)]


async def test_a_task_keeps_the_scope_in_which_it_was_made(meter: Meter) -> None:
    async def later() -> Any:
        await asyncio.sleep(0.01)
        with meter.scope(task="t"):
            inside = whose(called(meter))
        return inside, whose(called(meter))

    with meter.scope(agent="a"):
        task = asyncio.create_task(later())

    assert await task == ({"agent": "a", "task": "t"}, {"agent": "a"})


def test_threads_with_a_copied_context_keep_the_scope(meter: Meter) -> None:
    def work(number: int) -> dict[str, str]:
        with meter.scope(task=str(number)):
            return whose(called(meter))

    with meter.scope(agent="a"), ThreadPoolExecutor(4) as pool:
        contexts = [contextvars.copy_context() for _ in range(20)]
        told = list(pool.map(lambda pair: pair[1].run(work, pair[0]), enumerate(contexts)))
        bare = list(pool.map(work, range(4)))

    assert told == [{"agent": "a", "task": str(number)} for number in range(20)]
    assert bare == [{"task": str(number)} for number in range(4)]


async def test_to_thread_copies_the_scope_by_itself(meter: Meter) -> None:
    with meter.scope(agent="a"):
        assert whose(await asyncio.to_thread(called, meter)) == {"agent": "a"}


def test_scopes_of_generators_that_interleave_leave_nothing_behind(meter: Meter) -> None:
    def agent(name: str) -> Iterator[None]:
        with meter.scope(agent=name):
            yield
            yield

    first, second = agent("first"), agent("second")
    next(first)
    next(second)
    list(first)
    assert whose(called(meter)) == {"agent": "second"}
    list(second)

    assert whose(called(meter)) == {}


def test_a_consumers_scope_survives_the_end_of_a_generator(meter: Meter) -> None:
    def agent() -> Iterator[None]:
        with meter.scope(agent="generator", floor="1"):
            yield

    items = agent()
    next(items)
    with meter.scope(agent="consumer"):
        list(items)
        assert called(meter).agent == "consumer"

    assert whose(called(meter)) == {}


async def test_an_async_generator_that_is_finished_in_another_task_leaves_nothing_behind(meter: Meter) -> None:
    async def agent() -> AsyncIterator[None]:
        with meter.scope(agent="generator"):
            yield
            yield

    items = agent()
    await anext(items)
    with meter.scope(user="u"):

        async def finish() -> dict[str, str]:
            await items.aclose()  # type: ignore[attr-defined]
            return whose(called(meter))

        elsewhere = await asyncio.create_task(finish())
        here = called(meter)

    assert elsewhere["user"] == "u"
    assert here.user == "u"
    assert whose(called(meter)) == {}


async def test_a_generator_that_is_finished_in_a_copy_of_its_context_leaves_nothing_in_the_original(
    meter: Meter,
) -> None:
    """As event loops do with an async generator that nobody finished."""

    async def agent() -> AsyncIterator[None]:
        with meter.scope(agent="generator"):
            yield
            yield

    items = agent()
    await anext(items)
    await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]

    assert whose(called(meter)) == {}
