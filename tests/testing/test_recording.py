from __future__ import annotations

from datetime import UTC, datetime

import pluggy

from agent_meter import hookspecs
from agent_meter.records import Alert, Call, Cost, Kind, Model, RunRecord, Status, ToolRecord, UsageRecord
from agent_meter.testing import RecordingPlugin

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _hooks(holder: object, marker: str) -> set[str]:
    return {name for name in dir(holder) if getattr(getattr(holder, name), marker, None) is not None}


def test_it_implements_exactly_the_hooks_that_there_are() -> None:
    hooks = _hooks(hookspecs, "agent_meter_spec")

    assert "meter_record" in hooks
    assert _hooks(RecordingPlugin, "agent_meter_impl") == hooks


def test_pluggy_accepts_it_and_every_hook_is_answered_with_nothing() -> None:
    """Each hook is called by its name with the argument of its specification; none may change what the meter does."""
    manager = pluggy.PluginManager("agent_meter")
    manager.add_hookspecs(hookspecs)
    plugin = RecordingPlugin()
    manager.register(plugin)
    manager.check_pending()
    call = Call(Kind.LLM, model=Model("openai", "gpt-4o"))
    alert = Alert("daily", "80 % of the daily budget is used")
    record = RunRecord("1", Kind.RUN, "agent", NOW, 1.0, Status.OK, None)  # type: ignore[arg-type]
    meter = object()

    answers = [
        manager.hook.meter_tag_call(call=call),
        manager.hook.meter_admit_call(call=call),
        manager.hook.meter_call_opened(call=call),
        manager.hook.meter_find_rates(model=call.model),
        manager.hook.meter_record(record=record),
        manager.hook.meter_alert(alert=alert),
        manager.hook.meter_shutdown(),
    ]
    manager.hook.meter_startup.call_historic(kwargs={"meter": meter})

    assert [answer for answer in answers if answer] == []
    assert (plugin.tagged, plugin.asked, plugin.calls) == ([call], [call], [call])
    assert (plugin.started, plugin.models, plugin.records) == ([meter], [call.model], [record])
    assert (plugin.alerts, plugin.shut) == ([alert], 1)
    assert set(plugin.names()) == _hooks(hookspecs, "agent_meter_spec")


def test_names_come_in_the_order_of_the_calls() -> None:
    plugin = RecordingPlugin()
    call = Call(Kind.LLM)

    plugin.meter_call_opened(call)
    plugin.meter_shutdown()
    plugin.meter_call_opened(call)

    assert plugin.names() == ["meter_call_opened", "meter_shutdown", "meter_call_opened"]


def test_the_views_tell_records_by_their_type() -> None:
    plugin = RecordingPlugin()
    usage = UsageRecord(
        "1", Kind.EMBEDDING, NOW, 1.0, None, "openai", "m", None, "m", None, Cost(), Status.OK
    )  # fmt: skip
    tool = ToolRecord("2", "search", "c1", NOW, 0.1, Status.OK)
    step = RunRecord("3", Kind.STEP, "one", NOW, 1.0, Status.OK, None)  # type: ignore[arg-type]

    for record in (usage, tool, step):
        plugin.meter_record(record)

    assert (plugin.usage_records, plugin.tool_records, plugin.run_records) == ([usage], [tool], [step])
    assert plugin.records == [usage, tool, step]
