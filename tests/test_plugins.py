"""Who is plugged in: registration and what it refuses, the order of asking, installed plugins, fenced failures."""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pages import run_examples

from agent_meter import AgentObserver, BudgetExceeded, Denial, Meter, PluginError, TokenUsage, hookimpl
from agent_meter.plugins import HOOKS
from agent_meter.pricing import Rates
from agent_meter.testing import RecordingPlugin

BUILT_IN = ["prices", "log", "analytics", "usage"]


class Watcher:
    @hookimpl
    def meter_record(self, record: Any) -> None:
        pass


def one_call(meter: Meter) -> Any:
    with meter.llm("gpt-4o", provider="openai") as call:
        return call.finish(TokenUsage(30, 15))


# ---------------------------------------------------------------------------------------------- refusals


def refusal(plugin: object) -> str:
    meter = Meter()
    with pytest.raises(PluginError) as refused:
        meter.register(plugin)
    assert meter.plugins.names() == BUILT_IN
    return str(refused.value)


def test_a_misspelt_hook_is_refused_with_the_nearest_name() -> None:
    class Typo:
        @hookimpl
        def meter_recrod(self, record: Any) -> None: ...

    assert refusal(Typo()).startswith(
        "Typo: there is no hook 'meter_recrod'; did you mean 'meter_record'? The hooks are: meter_startup, "
    )


def test_a_hook_name_that_is_near_to_nothing_is_refused_with_the_list() -> None:
    class Strange:
        @hookimpl
        def zzz(self) -> None: ...

    message = refusal(Strange())

    assert "did you mean" not in message
    assert all(hook in message for hook in HOOKS)


def test_a_misspelt_specname_is_refused() -> None:
    class Renamed:
        @hookimpl(specname="meter_recordd")
        def collect(self, record: Any) -> None: ...

    assert "did you mean 'meter_record'?" in refusal(Renamed())


def test_a_hook_that_is_not_marked_is_refused() -> None:
    class Unmarked:
        @hookimpl
        def meter_alert(self, alert: Any) -> None: ...

        def meter_record(self, record: Any) -> None: ...

    assert refusal(Unmarked()) == "Unmarked.meter_record is not marked: put @hookimpl above it"


def test_an_unmarked_and_misspelt_hook_is_refused_too() -> None:
    """Names that begin with `meter_` are hooks: a typo without a mark would stay silent for ever."""

    class Unmarked:
        @hookimpl
        def meter_alert(self, alert: Any) -> None: ...

        def meter_recrod(self, record: Any) -> None: ...

    assert "did you mean 'meter_record'?" in refusal(Unmarked())


def test_an_override_in_a_subclass_needs_its_own_mark() -> None:
    class Child(Watcher):
        def meter_record(self, record: Any) -> None: ...

    assert "Child.meter_record is not marked" in refusal(Child())


def test_an_async_hook_is_refused_with_what_to_do_instead() -> None:
    class Async:
        @hookimpl
        async def meter_record(self, record: Any) -> None: ...

    message = refusal(Async())

    assert message.startswith("Async.meter_record is async: hooks are synchronous.")
    assert "a plain `def` that puts the record on a queue" in message
    assert "AgentObserver" in message


def test_an_async_hook_behind_a_decorator_is_refused_as_well() -> None:
    async def slow(record: Any) -> None: ...

    @functools.wraps(slow)
    def wrapped(record: Any) -> Any:
        return slow(record)

    plugin = types.SimpleNamespace(meter_record=hookimpl(wrapped))

    assert "is async" in refusal(plugin)


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_is_refused_with_what_to_do_instead(kind: str) -> None:
    class Wrapper:
        @hookimpl(**{kind: True})
        def meter_record(self, record: Any) -> Iterator[None]:
            yield

    message = refusal(Wrapper())

    assert message.startswith("Wrapper.meter_record is a wrapper")
    assert "meter_call_opened and meter_record for before and after, meter_admit_call to refuse" in message


def test_a_class_is_refused_for_its_instance() -> None:
    assert refusal(Watcher) == "Watcher is a class: register an instance of it, Watcher()"


@pytest.mark.parametrize("plugin", [object(), None, 7, types.ModuleType("empty")])
def test_something_without_hooks_is_refused(plugin: object) -> None:
    assert "has no hooks: mark its functions with @hookimpl" in refusal(plugin)


def test_a_wrong_argument_is_refused_by_name() -> None:
    class WrongNoun:
        @hookimpl
        def meter_alert(self, alert: Any) -> None: ...

        @hookimpl
        def meter_record(self, rec: Any) -> None: ...

    assert "rec" in refusal(WrongNoun())


def test_the_same_plugin_twice_is_refused() -> None:
    meter, plugin = Meter(), Watcher()
    meter.register(plugin)

    with pytest.raises(PluginError, match="Watcher is registered already"):
        meter.register(plugin)
    with pytest.raises(PluginError, match="another name is registered already"):
        meter.register(plugin, "another name")
    assert meter.plugins.names() == [*BUILT_IN, "Watcher"]


def test_an_observer_must_be_one() -> None:
    with pytest.raises(PluginError, match=r"Watcher2 is no AgentObserver: subclass agent_meter\.AgentObserver"):
        Meter().observe(type("Watcher2", (), {})())


def test_a_startup_that_fails_is_told_and_leaves_nothing_behind() -> None:
    class Broken(RecordingPlugin):
        @hookimpl
        def meter_startup(self, meter: Meter) -> None:
            raise OSError("no such database")

    meter, plugin = Meter(), Broken()

    with pytest.raises(OSError, match="no such database"):
        meter.register(plugin)
    meter.register(Watcher())  # another registration must not bring the broken one back
    one_call(meter)
    assert meter.plugins.names() == [*BUILT_IN, "Watcher"]
    assert plugin.names() == []


def test_a_plugin_whose_startup_failed_may_try_again() -> None:
    class Twice(RecordingPlugin):
        ready = False

        @hookimpl
        def meter_startup(self, meter: Meter) -> None:
            if not self.ready:
                raise OSError("not yet")

    meter, plugin = Meter(), Twice()
    with pytest.raises(OSError, match="not yet"):
        meter.register(plugin)
    plugin.ready = True

    meter.register(plugin)
    one_call(meter)

    assert len(plugin.records) == 1


# ------------------------------------------------------------------------------------------- registering


def test_a_plugin_may_be_a_module_an_instance_or_any_object_with_marked_functions() -> None:
    told: list[str] = []
    module = types.ModuleType("acme")
    module.meter_record = hookimpl(lambda record: told.append("module"))  # type: ignore[attr-defined]
    module.meter_record.__name__ = "meter_record"  # type: ignore[attr-defined]

    class Static:
        @staticmethod
        @hookimpl
        def meter_record(record: Any) -> None:
            told.append("static")

        @classmethod
        @hookimpl
        def meter_alert(cls, alert: Any) -> None:
            told.append("class")

    meter = Meter([module, Static()])
    one_call(meter)

    assert sorted(told) == ["module", "static"]
    assert meter.plugins.names()[len(BUILT_IN) :] == ["acme", "Static"]


def test_plugins_of_one_class_get_names_of_their_own() -> None:
    meter = Meter()
    plugins = [Watcher() for _ in range(3)]
    for plugin in plugins:
        meter.register(plugin)
    meter.unregister(plugins[1])

    meter.register(Watcher())
    meter.register(Watcher())

    assert meter.plugins.names()[len(BUILT_IN) :] == ["Watcher", "Watcher #3", "Watcher #2", "Watcher #4"]


def test_a_hook_may_leave_its_argument_out() -> None:
    told = []

    class Short:
        @hookimpl
        def meter_record(self) -> None:
            told.append("record")

        @hookimpl
        def meter_startup(self) -> None:
            told.append("startup")

    one_call(Meter([Short()]))

    assert told == ["startup", "record"]


def test_a_hook_may_have_another_name() -> None:
    told = []

    class Renamed:
        @hookimpl(specname="meter_record")
        def collect(self, record: Any) -> None:
            told.append(record.total_tokens)

    one_call(Meter([Renamed()]))

    assert told == [45]


def test_a_late_plugin_is_started_at_once() -> None:
    meter = Meter()
    one_call(meter)
    plugin = RecordingPlugin()

    meter.register(plugin)

    assert plugin.started == [meter]
    assert plugin.records == []


def test_an_unregistered_plugin_hears_nothing_more() -> None:
    meter, plugin = Meter(), RecordingPlugin()
    meter.register(plugin)
    one_call(meter)

    meter.unregister(plugin)
    one_call(meter)

    assert len(plugin.records) == 1
    assert meter.plugins.names() == BUILT_IN
    with pytest.raises(PluginError, match="RecordingPlugin is not registered"):
        meter.unregister(plugin)


def test_rates_are_asked_for_anew_when_a_plugin_comes_or_goes() -> None:
    class Acme:
        @hookimpl
        def meter_find_rates(self, model: Any) -> Any:
            return Rates.per_million("1", "1") if model.name == "acme-1" else None

    meter, plugin = Meter(), Acme()
    costs = [meter.record_usage(model="acme-1", input_tokens=1_000_000).cost_usd]
    meter.register(plugin)
    costs.append(meter.record_usage(model="acme-1", input_tokens=1_000_000).cost_usd)
    meter.unregister(plugin)
    costs.append(meter.record_usage(model="acme-1", input_tokens=1_000_000).cost_usd)

    assert costs == [None, 1, None]


# ------------------------------------------------------------------------------------------------- order


def guard(name: str, asked: list[str], **options: Any) -> Any:
    class Guard:
        @hookimpl(**options)
        def meter_admit_call(self, call: Any) -> Denial | None:
            asked.append(name)
            return Denial(f"{name} says no") if name.startswith("no") else None

    return Guard()


def test_the_newest_is_asked_first_and_the_first_denial_stops() -> None:
    asked: list[str] = []
    meter = Meter([guard("oldest", asked), guard("no", asked), guard("newest", asked)])

    with pytest.raises(BudgetExceeded, match="no says no"):
        one_call(meter)

    assert asked == ["newest", "no"]


def test_tryfirst_and_trylast_are_kept() -> None:
    asked: list[str] = []
    meter = Meter([guard("first", asked, tryfirst=True), guard("last", asked, trylast=True), guard("middle", asked)])

    one_call(meter)

    assert asked == ["first", "middle", "last"]


def test_whoever_is_told_of_a_record_finds_it_counted() -> None:
    class Reader:
        @hookimpl
        def meter_startup(self, meter: Meter) -> None:
            self.meter = meter

        @hookimpl(tryfirst=False)
        def meter_record(self, record: Any) -> None:
            self.seen = (self.meter.usage.requests, len(self.meter.history()))

    reader = Reader()
    one_call(Meter([reader]))

    assert reader.seen == (1, 1)


# ------------------------------------------------------------------------------------------- entry points


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lays out an installed distribution, as pip does, in a folder on `sys.path`: modules and entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def lay_out(name: str, points: dict[str, str], **sources: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{point} = {target}\n" for point, target in points.items())
        (info / "entry_points.txt").write_text(f"[agent_meter]\n{lines}")
        for module, source in sources.items():
            (tmp_path / f"{module}.py").write_text(source)
            modules.append(module)

    yield lay_out
    for module in modules:
        sys.modules.pop(module, None)


MODULE = """
from agent_meter import hookimpl

told = []

@hookimpl
def meter_record(record):
    told.append(record.total_tokens)
"""
INSTANCE = """
from agent_meter import hookimpl

class Plugin:
    def __init__(self):
        self.told = []

    @hookimpl
    def meter_record(self, record):
        self.told.append(record.total_tokens)

plugin = Plugin()
"""


def test_installed_plugins_are_loaded_when_asked_for(install: Any) -> None:
    install(
        "acme_meter",
        {"acme": "acme_module", "acme-object": "acme_object:plugin"},
        acme_module=MODULE,
        acme_object=INSTANCE,
    )

    one_call(Meter())
    assert "acme_module" not in sys.modules
    meter = Meter.with_installed_plugins()
    one_call(meter)

    assert {"acme", "acme-object"} <= set(meter.plugins.names())
    assert sys.modules["acme_module"].told == [45]
    assert sys.modules["acme_object"].plugin.told == [45]
    assert meter.health()["ok"]


def test_a_broken_installed_plugin_is_reported_and_skipped(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    install(
        "broken_meters",
        {
            "broken-import": "broken_import",
            "broken-missing": "no_such_module",
            "broken-class": "broken_object:Plugin",
            "broken-attribute": "broken_object:nothing",
            "broken-startup": "broken_startup",
        },
        broken_import="raise RuntimeError('half installed')",
        broken_object=INSTANCE,
        broken_startup="from agent_meter import hookimpl\n@hookimpl\ndef meter_startup(): raise OSError('no disk')",
    )
    install("good_meter", {"zz-good": "good_module"}, good_module=MODULE)

    meter = Meter.with_installed_plugins(keep=5)
    one_call(meter)

    health = meter.health()
    broken = {name for name in health["failures"] if name.startswith("broken-")}
    assert broken == {"broken-import", "broken-missing", "broken-class", "broken-attribute", "broken-startup"}
    assert all(health["failures"][name] == {"load": 1} for name in broken)
    assert health["last_errors"]["broken-import"]["load"] == "RuntimeError: half installed"
    assert "register an instance of it, Plugin()" in health["last_errors"]["broken-class"]["load"]
    assert not health["ok"]
    assert "zz-good" in health["plugins"]
    assert broken.isdisjoint(health["plugins"])
    assert sys.modules["good_module"].told == [45]
    assert "broken-import failed in load" in caplog.text


def test_a_blocked_installed_plugin_is_not_even_imported(install: Any) -> None:
    install("acme_meter", {"acme": "acme_blocked", "other": "acme_other"}, acme_blocked=MODULE, acme_other=MODULE)

    meter = Meter.with_installed_plugins(block=["acme"])

    assert "acme_blocked" not in sys.modules
    assert "other" in meter.plugins.names()
    assert "acme" not in meter.plugins.names()


# ----------------------------------------------------------------------------------------------- failures


class Failing:
    """Raises in every hook but startup."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def meter_tag_call(self, call: Any) -> None:
        raise self.error

    @hookimpl
    def meter_admit_call(self, call: Any) -> None:
        raise self.error

    @hookimpl
    def meter_call_opened(self, call: Any) -> None:
        raise self.error

    @hookimpl
    def meter_find_rates(self, model: Any) -> None:
        raise self.error

    @hookimpl
    def meter_record(self, record: Any) -> None:
        raise self.error

    @hookimpl
    def meter_alert(self, alert: Any) -> None:
        raise self.error

    @hookimpl
    def meter_shutdown(self) -> None:
        raise self.error


def loop(meter: Meter) -> None:
    """A run with a model call that asks for a tool, the tool, and a second model call."""
    with meter.run("r", agent="a") as run:
        with run.step() as step:
            with step.llm("gpt-4o", provider="openai") as call:
                call.finish(TokenUsage(30, 15), tools=("search",))
            with step.tool("search", {"q": "x"}):
                pass
            with step.llm("gpt-4o", provider="openai") as call:
                call.finish(TokenUsage(70, 5))


def test_a_plugin_that_raises_in_every_hook_changes_nothing_and_is_counted() -> None:
    alone, follower = Meter(cost_warning_threshold=0), RecordingPlugin()
    loop(alone)
    meter = Meter([follower, Failing(RuntimeError("broken"))], cost_warning_threshold=0)

    loop(meter)
    meter.shutdown()

    assert meter.usage.to_dict() == alone.usage.to_dict()
    assert meter.usage_by("agent") == alone.usage_by("agent")
    assert meter.analytics.get_all_metrics().keys() == alone.analytics.get_all_metrics().keys()
    assert len(follower.records) == 5  # two model calls, a tool call, a step, a run
    assert (len(follower.calls), len(follower.alerts), follower.shut) == (5, 1, 1)
    health = meter.health()
    assert health["failures"] == {
        "Failing": {
            "meter_tag_call": 5,
            "meter_admit_call": 3,
            "meter_call_opened": 5,
            "meter_find_rates": 1,
            "meter_record": 5,
            "meter_alert": 1,
            "meter_shutdown": 1,
        }
    }
    assert health["last_errors"]["Failing"]["meter_record"] == "RuntimeError: broken"
    assert health["ok"] is False
    assert health["open_calls"] == 0
    assert alone.health()["ok"] is True


def test_an_error_that_cannot_even_be_printed_is_survived() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text either")

    meter = Meter([Failing(Nasty())])
    one_call(meter)

    assert meter.health()["last_errors"]["Failing"]["meter_record"] == "Nasty"
    assert meter.usage.requests == 1


def test_a_log_handler_that_raises_is_survived() -> None:
    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("disk full")

    handler = Handler()
    logging.getLogger("agent_meter").addHandler(handler)
    try:
        meter = Meter([Failing(RuntimeError("broken"))])
        one_call(meter)
    finally:
        logging.getLogger("agent_meter").removeHandler(handler)

    assert meter.usage.requests == 1


def test_what_is_not_an_exception_passes() -> None:
    """Ctrl-C in a plugin is the user's."""
    meter = Meter([Failing(KeyboardInterrupt())])

    with pytest.raises(KeyboardInterrupt):
        one_call(meter)


def test_strict_lets_failures_through_and_counts_them() -> None:
    class Broken:
        @hookimpl
        def meter_record(self, record: Any) -> None:
            raise RuntimeError("seen in a test")

    meter = Meter([Broken()], strict=True)

    with pytest.raises(RuntimeError, match="seen in a test"):
        one_call(meter)
    assert meter.health()["failures"] == {"Broken": {"meter_record": 1}}
    assert meter.usage.requests == 1


def test_a_flood_of_failures_is_logged_at_1_10_100(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        @hookimpl
        def meter_record(self, record: Any) -> None:
            raise RuntimeError("again")

    meter = Meter([Broken()])
    for _ in range(120):
        meter.record_usage(model="m", input_tokens=1)

    told = [record.getMessage() for record in caplog.records if record.name == "agent_meter"]
    times = [message.partition("(")[2].partition(" ")[0] for message in told if message.startswith("Broken failed")]
    assert times == ["1", "10", "100"]
    assert meter.health()["failures"]["Broken"]["meter_record"] == 120


# ---------------------------------------------------------------------------------------- strange answers


def answering(hook: str, answer: object) -> Any:
    namespace: dict[str, Any] = {}
    noun = {"meter_tag_call": "call", "meter_admit_call": "call", "meter_find_rates": "model"}[hook]
    exec(f"def {hook}(self, {noun}): return self.answer", namespace)
    return type("Strange", (), {hook: hookimpl(namespace[hook]), "answer": answer})()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("meter_tag_call", "u1"),
        ("meter_tag_call", ["user"]),
        ("meter_tag_call", {"user": Unprintable()}),
        ("meter_tag_call", Unprintable()),
        ("meter_admit_call", True),
        ("meter_admit_call", "no"),
        ("meter_admit_call", Unprintable()),
        ("meter_find_rates", 0.01),
        ("meter_find_rates", Unprintable()),
    ],
)
def test_an_answer_of_the_wrong_kind_is_a_failure_of_the_plugin_and_no_ones_else(hook: str, answer: object) -> None:
    meter = Meter([answering(hook, answer)])

    record = one_call(meter)

    assert (record.status, record.user) == ("ok", "")
    assert record.cost_usd is not None
    assert meter.health()["failures"] == {"Strange": {hook: 1}}


def test_a_guard_with_a_strange_answer_does_not_silence_the_next() -> None:
    meter = Meter([guard("no", []), answering("meter_admit_call", True)])

    with pytest.raises(BudgetExceeded, match="no says no"):
        one_call(meter)
    assert meter.health()["failures"] == {"Strange": {"meter_admit_call": 1}}


class BadRates:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def price(self, usage: Any, at: Any, context: Any = None) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [ZeroDivisionError("rates"), 0.01, None, Unprintable()])
def test_rates_that_cannot_price_leave_the_call_unpriced(answer: object) -> None:
    """Also where a guard wants to know the price before the call is made."""
    meter = Meter([answering("meter_find_rates", BadRates(answer)), guard("yes", [])])

    with meter.llm("gpt-4o", input_tokens=100, max_output_tokens=50) as call:
        record = call.finish(TokenUsage(30, 15))

    assert record.cost_usd is None
    assert record.cost.status == "unpriced"
    assert meter.usage.unpriced_requests == 1
    assert meter.health()["failures"] == {"BadRates": {"price": 2}}


def test_an_observer_is_a_plugin_like_any_other() -> None:
    class Mine(AgentObserver):
        pass

    meter, mine = Meter(), Mine()
    meter.observe(mine)
    with pytest.raises(PluginError, match="Mine is registered already"):
        meter.observe(mine)
    meter.unregister(mine)

    assert meter.plugins.names() == BUILT_IN


# --------------------------------------------------------------------------------------------------- page


def test_the_how_to_page_runs() -> None:
    names = run_examples("how-to/write-a-plugin.md")

    assert len(names["sent"]) == len(names["watching"].records) == 1


def test_a_plugin_that_answers_where_nothing_is_asked_keeps_nobody_from_hearing() -> None:
    class Answers:
        @hookimpl(tryfirst=True)
        def meter_record(self, record: Any) -> bool:
            return True

        @hookimpl(tryfirst=True)
        def meter_call_opened(self, call: Any) -> bool:
            return True

    meter = Meter()
    meter.register(recording := RecordingPlugin())
    meter.register(Answers())

    record = one_call(meter)

    assert (meter.usage.requests, recording.records) == (1, [record])
