"""AgentObserver: which events come, with what, in which order, and what happens when one fails."""

from __future__ import annotations

import contextlib
import inspect
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.adapters.native.listener import EVENTS, USAGE, CuriousListener, Listener
from tests.pages import read, run_examples

from agent_meter import (
    AgentObserver,
    Attempt,
    Budget,
    BudgetExceeded,
    Call,
    Denial,
    Kind,
    Meter,
    Model,
    Status,
    hookimpl,
)
from agent_meter.adapters.native import SeedEvents
from agent_meter.testing import FakeClock

PAGE = "reference/observers.md"


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def meter(listener: Listener, clock: FakeClock) -> Meter:
    meter = Meter(clock=clock)
    meter.observe(listener)
    return meter


# ----------------------------------------------------------------------------------- events and arguments


# selectools' AgentObserver: every event and its arguments.
SEED = """\
on_run_start: run_id, messages, system_prompt
on_run_end: run_id, result
on_tool_loop_detected: run_id, detector_name, details
on_llm_start: run_id, messages, model, system_prompt
on_llm_end: run_id, response, usage
on_cache_hit: run_id, model, response
on_usage: run_id, usage
on_tool_start: run_id, call_id, tool_name, tool_args
on_tool_end: run_id, call_id, tool_name, result, duration_ms
on_tool_error: run_id, call_id, tool_name, error, tool_args, duration_ms
on_policy_decision: run_id, tool_name, decision, reason, tool_args
on_guardrail_triggered: run_id, stage, guardrail_name, action, detail
on_structured_validate: run_id, success, attempt, error
on_iteration_start: run_id, iteration, messages
on_iteration_end: run_id, iteration, response
on_tool_chunk: run_id, call_id, tool_name, chunk
on_batch_start: batch_id, prompts_count
on_batch_end: batch_id, results_count, errors_count, total_duration_ms
on_provider_fallback: run_id, failed_provider, next_provider, error
on_llm_retry: run_id, attempt, max_retries, error, backoff_seconds
on_memory_trim: run_id, messages_removed, messages_remaining, reason
on_session_load: run_id, session_id, message_count
on_session_save: run_id, session_id, message_count
on_memory_summarize: run_id, summary
on_entity_extraction: run_id, entities_extracted
on_kg_extraction: run_id, triples_extracted
on_error: run_id, error, context
on_budget_exceeded: run_id, reason, tokens_used, cost_used
on_cancelled: run_id, iteration, reason
on_model_switch: run_id, iteration, old_model, new_model
on_prompt_compressed: run_id, before_tokens, after_tokens, messages_compressed
on_eval_start: suite_name, total_cases, model
on_eval_case_end: suite_name, case_name, verdict, latency_ms, failures
on_eval_end: suite_name, accuracy, total_cases, pass_count, fail_count, total_cost, duration_ms
on_graph_start: run_id, graph_name, entry_node, state
on_graph_end: run_id, graph_name, steps, total_duration_ms
on_graph_error: run_id, graph_name, node_name, error
on_node_start: run_id, node_name, step
on_node_end: run_id, node_name, step, duration_ms
on_graph_routing: run_id, from_node, to_node
on_graph_interrupt: run_id, node_name, interrupt_id
on_graph_resume: run_id, node_name, interrupt_id
on_parallel_start: run_id, group_name, child_nodes
on_parallel_end: run_id, group_name, child_count
on_stall_detected: run_id, node_name, stall_count
on_loop_detected: run_id, node_name, loop_count
on_supervisor_replan: run_id, stall_count, new_plan
"""


@pytest.mark.parametrize("line", SEED.splitlines())
def test_every_event_of_the_seed_is_there_with_its_arguments_in_their_order(line: str) -> None:
    name, _, arguments = line.partition(": ")

    assert list(inspect.signature(getattr(AgentObserver, name)).parameters)[1:] == arguments.split(", ")


def test_the_only_event_beyond_the_seeds_is_the_failed_model_call() -> None:
    seed = {line.partition(":")[0] for line in SEED.splitlines()}

    assert len(seed) == 47
    assert {name for name in dir(AgentObserver) if name.startswith("on_")} - seed == {"on_llm_error"}
    assert set(EVENTS).isdisjoint(vars(SeedEvents))


def test_a_run_is_told_from_beginning_to_end(meter: Meter, listener: Listener, clock: FakeClock) -> None:
    with meter.run("research") as run, run.step() as step:
        with step.llm("gpt-4o", provider="openai") as call:
            clock.advance(0.5)
            call.finish(USAGE, tools=("search",))
        with step.tool("search", {"q": "x"}, call_id="c1") as tool:
            clock.advance(0.25)
            tool.result(["found"])

    assert listener.heard == [
        ("on_run_start", {"run_id": run.id, "messages": None, "system_prompt": ""}),
        ("on_iteration_start", {"run_id": run.id, "iteration": 1, "messages": None}),
        ("on_llm_start", {"run_id": run.id, "messages": None, "model": "gpt-4o", "system_prompt": ""}),
        ("on_llm_end", {"run_id": run.id, "response": None, "usage": call.record}),
        ("on_usage", {"run_id": run.id, "usage": call.record}),
        ("on_tool_start", {"run_id": run.id, "call_id": "c1", "tool_name": "search", "tool_args": {"q": "x"}}),
        (
            "on_tool_end",
            {"run_id": run.id, "call_id": "c1", "tool_name": "search", "result": None, "duration_ms": 250.0},
        ),
        ("on_iteration_end", {"run_id": run.id, "iteration": 1, "response": None}),
        ("on_run_end", {"run_id": run.id, "result": run.record}),
    ]
    usage = listener.last("on_usage")["usage"]
    assert (usage.total_tokens, usage.cost_usd, usage.duration) == (45, Decimal("0.000225"), 0.5)
    assert listener.last("on_run_end")["result"].name == "research"


def test_a_tool_that_fails_is_told_with_its_exception(meter: Meter, listener: Listener, clock: FakeClock) -> None:
    error = LookupError("nothing found")
    with contextlib.suppress(LookupError), meter.tool("search", {"q": "x"}) as tool:
        clock.advance(0.1)
        raise error

    assert listener.names() == ["on_tool_start", "on_tool_error"]
    told = listener.last("on_tool_error")
    assert told.pop("error") is error
    assert told == {
        "run_id": tool.id,
        "call_id": tool.id,
        "tool_name": "search",
        "tool_args": {"q": "x"},
        "duration_ms": 100.0,
    }


def test_where_there_is_no_exception_its_name_is_told(meter: Meter, listener: Listener) -> None:
    meter.record_tool_call("search", False, 0.1, {}, error_type="Timeout")
    meter.record_tool_call("search", False, 0.1, {})

    assert [told["error"] for _, told in listener.heard] == ["Timeout", "error"]


@pytest.mark.parametrize("status", [Status.ERROR, Status.CANCELLED, Status.ABANDONED])
def test_a_model_call_that_fails_is_an_error_and_a_usage(status: Status, meter: Meter, listener: Listener) -> None:
    call = meter.open(Call(Kind.LLM, model=Model("", "gpt-4o")))
    call.error = error = TimeoutError()
    record = meter.close(call, USAGE, status=status, error_type="TimeoutError")

    assert listener.names() == ["on_llm_start", "on_llm_error", "on_usage"]
    assert listener.last("on_llm_error") == {"run_id": call.id, "error": error, "usage": record}
    assert listener.last("on_usage") == {"run_id": call.id, "usage": record}


def test_a_replay_is_a_cache_hit_and_a_usage(meter: Meter, listener: Listener) -> None:
    with meter.llm("gpt-4o") as call:
        call.finish(USAGE, cached=True)

    assert listener.names() == ["on_llm_start", "on_llm_end", "on_cache_hit", "on_usage"]
    assert listener.last("on_cache_hit") == {"run_id": call.id, "model": "gpt-4o", "response": None}
    usage = listener.last("on_usage")["usage"]
    assert (usage.cached, usage.cost_usd, usage.billed_cost_usd) == (True, Decimal("0.000225"), 0)


@pytest.mark.parametrize("kind", ["llm", "embedding", "rerank"])
@pytest.mark.parametrize("status", ["ok", "error", "cancelled", "abandoned"])
def test_usage_is_told_once_for_every_ended_model_call(
    kind: str, status: str, meter: Meter, listener: Listener
) -> None:
    record = meter.record_usage(model="zz-unpriced", input_tokens=10, kind=kind, status=status, run_id="r1")

    assert [told for name, told in listener.heard if name == "on_usage"] == [{"run_id": "r1", "usage": record}]
    assert listener.last("on_usage")["usage"].cost_usd is None


class Gate:
    """Refuses every model call after the first, and every shell."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        self.asked += call.kind is Kind.LLM
        return Denial("one is enough", by="gate") if self.asked > 1 or call.name == "shell" else None


def test_a_denied_call_is_a_budget_event_with_what_its_run_has_used_and_nothing_else(listener: Listener) -> None:
    meter = Meter([Gate()])
    meter.record_usage(model="gpt-4o", input_tokens=9_999)  # not this run's
    meter.observe(listener)
    with contextlib.suppress(BudgetExceeded), meter.run("r") as run:
        with run.llm("gpt-4o") as call:
            call.finish(USAGE)
        listener.heard.clear()
        with run.llm("gpt-4o"):
            pytest.fail("it was called")

    assert listener.heard[0] == (
        "on_budget_exceeded",
        {"run_id": run.id, "reason": "one is enough", "tokens_used": 45, "cost_used": Decimal("0.000225")},
    )
    assert listener.names()[1:] == ["on_error", "on_run_end"]


def test_outside_of_runs_a_budget_event_says_what_the_meter_has_counted(listener: Listener) -> None:
    meter = Meter([Gate()])
    meter.record_usage(model="gpt-4o", input_tokens=1000)
    meter.observe(listener)
    tool = meter.tool("shell", {"command": "rm"})
    with pytest.raises(BudgetExceeded), tool:
        pytest.fail("it was run")

    assert listener.names() == ["on_policy_decision", "on_budget_exceeded"]
    assert listener.heard[0][1] == {
        "run_id": tool.id,
        "tool_name": "shell",
        "decision": "deny",
        "reason": "one is enough",
        "tool_args": {"command": "rm"},
    }
    assert listener.last("on_budget_exceeded")["tokens_used"] == 1000


@pytest.mark.parametrize(
    ("limit", "tokens_used", "cost_used"),
    [({"tokens": 100}, 99, Decimal("0.000225")), ({"usd": "0.0005"}, 45, Decimal("0.000495"))],
)
def test_what_a_budget_counts_in_is_its_own_figure(
    limit: dict[str, Any], tokens_used: int, cost_used: Decimal, listener: Listener
) -> None:
    meter = Meter(budgets=[Budget("daily", **limit)])
    meter.observe(listener)
    meter.record_usage(model="gpt-4o", input_tokens=36, output_tokens=18)
    with contextlib.suppress(BudgetExceeded), meter.run("r") as run:
        with run.llm("gpt-4o", input_tokens=30, max_output_tokens=15) as call:
            call.finish(USAGE)
        with run.llm("gpt-4o", input_tokens=30, max_output_tokens=15):
            pytest.fail("it was called")

    told = listener.last("on_budget_exceeded")
    assert (told["run_id"], told["tokens_used"], told["cost_used"]) == (run.id, tokens_used, cost_used)


def test_a_failed_run_is_told_with_its_exception_before_its_end(
    meter: Meter, listener: Listener, clock: FakeClock
) -> None:
    error = ValueError("no")
    with contextlib.suppress(ValueError), meter.run("research", agent="a") as run:
        with run.step():
            clock.advance(2)
        raise error

    assert listener.names() == [
        "on_run_start", "on_iteration_start", "on_iteration_end", "on_error", "on_run_end",
    ]  # fmt: skip
    assert listener.last("on_error") == {
        "run_id": run.id,
        "error": error,
        "context": {"run": "research", "agent": "a", "iteration": 1, "duration_ms": 2000.0},
    }


def test_a_run_that_was_stopped_is_told_with_the_step_it_was_in(meter: Meter, listener: Listener) -> None:
    with contextlib.suppress(KeyboardInterrupt), meter.run("r") as run:
        with run.step():
            pass
        with run.step():
            raise KeyboardInterrupt

    assert listener.names()[-3:] == ["on_iteration_end", "on_cancelled", "on_run_end"]
    assert listener.last("on_cancelled") == {"run_id": run.id, "iteration": 2, "reason": "KeyboardInterrupt"}


def test_a_second_attempt_is_told_with_what_became_of_the_first(meter: Meter, listener: Listener) -> None:
    with meter.run("r") as run:
        first = run.llm("gpt-4o")
        with pytest.raises(TimeoutError), first:
            raise TimeoutError
        again = run.llm("gpt-4o")
        again.call.attempt = 2
        with again as second:
            second.finish(USAGE)

    assert listener.names()[1:-1] == [
        "on_llm_start", "on_llm_error", "on_usage", "on_llm_retry", "on_llm_start", "on_llm_end", "on_usage",
    ]  # fmt: skip
    assert listener.last("on_llm_retry") == {
        "run_id": run.id,
        "attempt": 1,
        "max_retries": None,
        "error": "TimeoutError",
        "backoff_seconds": None,
    }


def test_requests_that_the_client_made_again_are_told_when_a_tap_saw_them(meter: Meter, listener: Listener) -> None:
    record = meter.record_usage(model="gpt-4o", input_tokens=1)
    listener.heard.clear()
    attempts = (
        Attempt(529, error_type="overloaded"),
        Attempt(None, error_type="ConnectError", waited=0.5),
        Attempt(200, waited=1.0),
    )
    listener.meter_record(msgspec.structs.replace(record, attempts=attempts))

    assert listener.names() == ["on_llm_retry", "on_llm_retry", "on_llm_end", "on_usage"]
    assert [(told["attempt"], told["error"], told["backoff_seconds"]) for _, told in listener.heard[:2]] == [
        (1, "overloaded", 0.5),
        (2, "ConnectError", 1.0),
    ]


def test_steps_without_a_number_are_counted_and_given_numbers_are_kept(meter: Meter, listener: Listener) -> None:
    run = meter.open(Call(Kind.RUN, "r"))
    for number in (None, None, 7, None):
        step = Call(Kind.STEP, "s", parent=run)
        step.step_number = number
        meter.close(meter.open(step))
    meter.close(run)
    with meter.step("alone"):
        pass

    started = [told["iteration"] for name, told in listener.heard if name == "on_iteration_start"]
    ended = [told["iteration"] for name, told in listener.heard if name == "on_iteration_end"]
    assert started == ended == [1, 2, 7, 8, 1]


def test_a_loop_tells_what_a_meter_does_not_see(meter: Meter) -> None:
    class Mine(AgentObserver):
        def on_memory_trim(self, run_id: str, messages_removed: int, messages_remaining: int, reason: str) -> None:
            heard.append((run_id, messages_removed, messages_remaining, reason))

    heard: list[Any] = []
    meter.observe(Mine())
    meter.tell("on_memory_trim", "r1", 12, 4, "full")
    meter.tell("on_something_else", "r1")

    assert heard == [("r1", 12, 4, "full")]
    with pytest.raises(ValueError, match="not 'memory_trim'"):
        meter.tell("memory_trim", "r1")


def test_a_late_answer_is_told_as_the_correction_that_it_is(meter: Meter, listener: Listener) -> None:
    call = meter.open(Call(Kind.LLM, model=Model("", "gpt-4o")))
    meter.expire(older_than=-1)
    meter.close(call, USAGE)

    assert listener.names() == ["on_llm_start", "on_llm_error", "on_usage", "on_llm_end", "on_usage"]
    first, second = (told["usage"] for name, told in listener.heard if name == "on_usage")
    assert second.corrects is first
    assert listener.heard[1][1]["error"] == "expired"


def test_whoever_is_told_finds_the_call_counted() -> None:
    class Reader(AgentObserver):
        def on_usage(self, run_id: str, usage: Any) -> None:
            self.seen = (meter.usage.total_tokens, len(meter.history()))

        def on_tool_end(self, *args: Any) -> None:
            self.tools = (meter.usage.tool_usage, meter.analytics.get_metrics("t").total_calls)

    reader, meter = Reader(), Meter()
    meter.observe(reader)
    meter.record_usage(model="gpt-4o", input_tokens=45)
    meter.record_tool_call("t", True, 0.1, {})

    assert reader.seen == (45, 1)
    assert reader.tools == ({"t": 1}, 1)


def test_several_observers_and_an_observer_of_several_meters(listener: Listener) -> None:
    other, meters = Listener(), [Meter(), Meter()]
    for meter in meters:
        meter.observe(listener)
    meters[0].observe(other)

    for meter in meters:
        meter.record_usage(model="m", input_tokens=1)

    assert (listener.names().count("on_usage"), other.names().count("on_usage")) == (2, 1)


def test_an_observer_keeps_nothing_of_calls_that_have_ended(meter: Meter, listener: Listener) -> None:
    for _ in range(10):
        with meter.run("r") as run, run.step(), meter.tool("t"), meter.llm("gpt-4o") as call:
            call.finish(USAGE)
        with meter.step():
            pass

    assert (listener._open_calls, listener._iterations, listener._numbers) == ({}, {}, {})


def test_the_base_class_hears_everything_and_does_nothing() -> None:
    meter = Meter(strict=True)
    meter.observe(AgentObserver())
    with meter.run("r"), meter.tool("t"), meter.llm("gpt-4o") as call:
        call.finish(USAGE, cached=True)

    assert meter.health()["ok"]


# ----------------------------------------------------------------------------------------------- content


def _content(meter: Meter) -> None:
    call = Call(Kind.LLM, model=Model("", "gpt-4o"))
    call.content = ["Hello?"]
    meter.open(call)
    call.response = "Hello!"
    meter.close(call, USAGE, cached=True)
    run = Call(Kind.RUN, "r")
    run.content = ["Do it"]
    meter.open(run)
    with meter.tool("t", {"q": 1}) as tool:
        tool.result("found")
    meter.close(run)


def test_content_comes_to_those_who_ask_for_it_and_to_nobody_else() -> None:
    plain, curious = Listener(), CuriousListener()
    meter = Meter()
    meter.observe(plain)
    assert meter.wants_content is False
    meter.observe(curious)
    assert meter.wants_content is True

    _content(meter)

    def told(listener: Listener) -> list[Any]:
        return [
            listener.last("on_llm_start")["messages"],
            listener.last("on_llm_end")["response"],
            listener.last("on_cache_hit")["response"],
            listener.last("on_run_start")["messages"],
            listener.last("on_tool_end")["result"],
        ]

    assert told(curious) == [["Hello?"], "Hello!", "Hello!", ["Do it"], "found"]
    assert told(plain) == [None] * 5
    meter.unregister(curious)
    assert meter.wants_content is False
    assert "Hello" not in repr(meter.history())


# ---------------------------------------------------------------------------------------------- failures


class Broken(AgentObserver):
    """Raises in every event."""


def _raising(name: str) -> Any:
    def event(self: Any, *args: Any) -> None:
        raise RuntimeError(name)

    event.__name__ = name
    return event


for _name in EVENTS:
    setattr(Broken, _name, _raising(_name))


def test_an_observer_that_raises_in_every_event_is_counted_and_harmless() -> None:
    after, meter = Listener(), Meter()
    meter.observe(after)  # told after the newer one
    meter.observe(Broken())
    with meter.run("r") as run:
        with run.llm("gpt-4o") as call:
            call.finish(USAGE, cached=True)
        with run.tool("t"):
            pass
        with pytest.raises(OSError), run.tool("t"):
            raise OSError
        with pytest.raises(OSError), run.llm("gpt-4o"):
            raise OSError

    assert meter.health()["failures"] == {
        "Broken": {
            "on_run_start": 1,
            "on_llm_start": 2,
            "on_llm_end": 1,
            "on_cache_hit": 1,
            "on_usage": 2,
            "on_tool_start": 2,
            "on_tool_end": 1,
            "on_tool_error": 1,
            "on_llm_error": 1,
            "on_run_end": 1,
        }
    }
    assert len(after.heard) == 13
    assert meter.usage.requests == 2


def test_strict_lets_an_observers_failure_through() -> None:
    meter = Meter(strict=True)
    meter.observe(Broken())

    with pytest.raises(RuntimeError, match="on_llm_end"):
        meter.record_usage(model="gpt-4o", input_tokens=1)


# ------------------------------------------------------------------------------------------------- page


def test_the_page_has_every_event_with_its_arguments() -> None:
    page = read(PAGE)
    for name in EVENTS:
        arguments = ", ".join(list(inspect.signature(getattr(AgentObserver, name)).parameters)[1:])
        assert f"| `{name}({arguments})` |" in page


def test_the_examples_of_the_page_print_what_it_says() -> None:
    assert run_examples(PAGE)["slow"].total == 1500
