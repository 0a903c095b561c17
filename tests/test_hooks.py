"""Every hook in the spec works end to end, is documented with its argument, and has an example here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.pages import read, run_examples

from agent_meter import (
    Alert,
    BudgetExceeded,
    Call,
    Denial,
    Kind,
    Meter,
    Model,
    RunRecord,
    TokenUsage,
    ToolRecord,
    UsageRecord,
    hookimpl,
    hookspecs,
)
from agent_meter.plugins import HOOKS
from agent_meter.pricing import Rates
from agent_meter.testing import RecordingPlugin

PAGE = "reference/hooks.md"
EXAMPLES: dict[str, Callable[[], None]] = {}


def shows(hook: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The example of a hook: it plugs in, makes calls and looks at what comes out."""

    def register(example: Callable[[], None]) -> Callable[[], None]:
        EXAMPLES[hook] = example
        return example

    return register


def plugin(**hooks: Any) -> Any:
    return type("Plugin", (), {name: hookimpl(function) for name, function in hooks.items()})()


# ---------------------------------------------------------------------------------------- one for each hook


@shows("meter_startup")
def startup_gives_the_meter_once_to_every_plugin() -> None:
    early, late = RecordingPlugin(), RecordingPlugin()
    meter = Meter([early])
    meter.register(late)

    assert early.started == late.started == [meter]


@shows("meter_tag_call")
def answers_are_merged_and_overwrite_nothing() -> None:
    older = plugin(meter_tag_call=lambda self, call: {"user": "older", "team": "older", "floor": 2})
    newer = plugin(meter_tag_call=lambda self, call: {"user": "newer", "team": "newer", "task": None})
    meter = Meter([older, newer])

    with meter.scope(agent="scoped", desk="7"):
        record = meter.record_usage(model="m", session="told")

    assert (record.agent, record.session, record.user, record.task) == ("scoped", "told", "newer", "")
    assert dict(record.tags) == {"desk": "7", "team": "newer", "floor": "2"}


@shows("meter_admit_call")
def a_denial_stops_the_call_before_it_is_made() -> None:
    asked: list[Call] = []

    def admit(self: Any, call: Call) -> Denial | None:
        asked.append(call)
        return Denial("not on Sundays", by="calendar") if call.model == Model("", "gpt-4o") else None

    meter = Meter([plugin(meter_admit_call=admit)])

    with pytest.raises(BudgetExceeded) as refused, meter.llm("gpt-4o", input_tokens=1000, max_output_tokens=500):
        pytest.fail("the call was made")
    with meter.run("r"), meter.step("s"), meter.tool("t"):
        pass
    meter.record_usage(model="gpt-4o")

    assert str(refused.value) == "calendar: not on Sundays"
    assert refused.value.denial == Denial("not on Sundays", by="calendar")
    assert [call.kind for call in asked] == ["llm", "tool"]
    reserve = asked[0].reserve
    assert reserve is not None
    assert (reserve.input_tokens, reserve.output_tokens, reserve.pico) == (1000, 500, 7_500_000_000)


@shows("meter_call_opened")
def every_admitted_call_is_announced_with_what_is_known() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])

    with meter.run("r", user="u"), meter.step("s"), meter.tool("t", {"q": 1}, call_id="c1"), meter.llm("m") as call:
        assert meter.health()["open_calls"] == 4
        call.finish(TokenUsage(1, 1))

    run, step, tool, llm = watching.calls
    assert [call.kind for call in watching.calls] == ["run", "step", "tool", "llm"]
    assert (tool.params, tool.call_id, tool.user, tool.step) == ({"q": 1}, "c1", "u", "s")
    assert (llm.parent, tool.parent, step.parent) == (tool, step, run)
    assert {call.run_id for call in watching.calls} == {run.id}
    assert meter.health()["open_calls"] == 0


@shows("meter_find_rates")
def the_first_answer_prices_the_model_and_is_kept() -> None:
    asked: list[Model] = []

    def rates(self: Any, model: Model) -> Rates | None:
        asked.append(model)
        return Rates.per_million(input="1", output="2") if model.provider == "acme" else None

    meter = Meter([plugin(meter_find_rates=rates)])

    costs = [
        meter.record_usage(provider=provider, model="gpt-4o", input_tokens=10**6, output_tokens=10**6).cost_usd
        for provider in ("acme", "acme", "openai")
    ]

    assert [str(cost) for cost in costs] == ["3", "3", "12.5"]
    assert asked == [Model("acme", "gpt-4o"), Model("openai", "gpt-4o")]


@shows("meter_record")
def every_call_that_ends_brings_one_record_of_its_noun() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching])

    with meter.run("r"), meter.tool("t"), meter.llm("m") as call:
        call.finish(TokenUsage(1, 1))
    meter.record_usage(model="text-embedding-3-small", input_tokens=1, kind="embedding")
    meter.record_tool_call("t", False, 0.1, {})

    assert [type(record) for record in watching.records] == [
        UsageRecord,
        ToolRecord,
        RunRecord,
        UsageRecord,
        ToolRecord,
    ]
    assert [record.status for record in watching.records] == ["ok", "ok", "ok", "ok", "error"]


@shows("meter_alert")
def a_crossed_threshold_is_told() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching], cost_warning_threshold=0.005)

    meter.record_usage(model="gpt-4o", input_tokens=1000, output_tokens=500)

    assert watching.alerts == [
        Alert(
            "cost_warning_threshold",
            "Cost Warning: Total cost $0.007500 exceeds threshold $0.005000",
            1.0,
            7_500_000_000,
            5_000_000_000,
            "usd_pico",
        )
    ]
    assert str(watching.alerts[0]) == watching.alerts[0].message


@shows("meter_shutdown")
def the_end_comes_once_and_after_the_last_record() -> None:
    watching = RecordingPlugin()
    with Meter([watching]) as meter:
        meter.open(Call(Kind.LLM, model=Model("", "m")))
    meter.shutdown()

    assert watching.names()[-2:] == ["meter_record", "meter_shutdown"]
    assert watching.shut == 1
    assert watching.records[0].status == "abandoned"


# ----------------------------------------------------------------------------------------------- the guards


def test_the_spec_and_the_examples_name_the_same_hooks() -> None:
    spec = [name for name in vars(hookspecs) if name.startswith("meter_")]

    assert list(HOOKS) == spec
    assert sorted(EXAMPLES) == sorted(spec)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_hook_works(hook: str) -> None:
    EXAMPLES[hook]()


@pytest.mark.parametrize("hook", HOOKS)
def test_the_hook_is_documented_with_its_argument(hook: str) -> None:
    page = read(PAGE)
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    _, found, section = page.partition(f"\n## {hook}({arguments})\n")
    section = section.partition("\n## ")[0]

    assert found, f"{PAGE} has no section '## {hook}({arguments})'"
    assert f"| `{hook}({arguments})` |" in page.partition("\n## ")[0]
    assert f"def {hook}(" in section
    assert len(section.split()) > 30


def test_the_page_follows_the_order_of_the_spec() -> None:
    assert re.findall(r"^## (\w+)\(", read(PAGE), re.MULTILINE) == list(HOOKS)


def test_the_examples_of_the_page_print_what_it_says() -> None:
    assert "flushed" in read(PAGE)
    assert run_examples(PAGE)["ledger"].rows


def test_the_hooks_of_one_call_come_in_this_order() -> None:
    watching = RecordingPlugin()

    with Meter([watching], cost_warning_threshold=0) as meter, meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(30, 15))

    expected = [
        "meter_startup",
        "meter_tag_call",
        "meter_find_rates",
        "meter_admit_call",
        "meter_call_opened",
        "meter_record",
        "meter_alert",
        "meter_shutdown",
    ]
    # The alert is raised by a built-in while the record goes round, before this plugin is told of it or after.
    assert sorted(watching.names()) == sorted(expected)
    assert [name for name in watching.names() if name != "meter_alert"] == [n for n in expected if n != "meter_alert"]
