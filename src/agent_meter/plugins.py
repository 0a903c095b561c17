"""Who is plugged in, and what happens when one of them fails.

Pluggy registers, orders and validates; the loop in `_ask` is ours, because a pluggy call stops at the first
plugin that raises. It is the only place where the failure of a plugin is fenced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .errors import PluginError
from .records import Alert, Call, Denial, Model, Rates, Record

if TYPE_CHECKING:
    from .meter import Meter

PROJECT = "agent_meter"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("meter_"))

_Impl = tuple[Callable[..., Any], str]


class Plugins:
    """A typed method per hook, so that no other module touches pluggy's untyped relay."""

    def __init__(self, *, strict: bool = False) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._impls: dict[str, tuple[_Impl, ...]] = dict.fromkeys(HOOKS, ())
        self.strict = strict
        self.failures: dict[tuple[str, str], int] = {}
        self.last_errors: dict[tuple[str, str], str] = {}

    # ------------------------------------------------------------------------------------ who is plugged in

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin; `PluginError` says in a sentence what is wrong with one that cannot work."""
        name = name or _readable_name(plugin)
        self._validate(plugin, name)
        if self._manager.has_plugin(name) and not self._manager.is_registered(plugin):
            name = f"{name} #{sum(other == name or other.startswith(f'{name} #') for other in self.names()) + 1}"
        try:
            self._manager.register(plugin, name)
        except ValueError:
            raise PluginError(f"{name} is registered already") from None
        except pluggy.PluginValidationError as error:
            raise PluginError(f"{name}: {str(error).splitlines()[-1]}") from error
        except Exception:
            # Its meter_startup failed: a set-up error, shown at set-up, that leaves no half-registered plugin.
            self._manager.unregister(plugin)
            raise
        self._compile()

    def unregister(self, plugin: object) -> None:
        if not self._manager.is_registered(plugin):
            raise PluginError(f"{_readable_name(plugin)} is not registered")
        self._manager.unregister(plugin)
        self._compile()

    def load_installed(self, block: Iterable[str] = ()) -> None:
        """Register what installed packages offer under the entry-point group `agent_meter`.

        One broken package is reported, counted and skipped; it never hides the others.
        """
        from importlib.metadata import entry_points

        blocked = set(block)
        for entry in entry_points(group=PROJECT):
            if entry.name in blocked:
                continue
            try:
                self.register(entry.load(), entry.name)
            except Exception as error:
                self.failed(entry.name, "load", error)

    def names(self) -> list[str]:
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def _validate(self, plugin: object, name: str) -> None:
        found = False
        for attribute in dir(plugin):
            try:
                function = inspect.getattr_static(plugin, attribute)
            except AttributeError:
                continue
            if isinstance(function, property):
                continue
            function = inspect.unwrap(getattr(function, "__func__", function))
            options = getattr(function, f"{PROJECT}_impl", None)
            if options is None:
                if attribute in HOOKS and callable(function):
                    raise PluginError(f"{name}.{attribute} is not marked: put @hookimpl above it")
                continue
            found = True
            hook = options.get("specname") or attribute
            if hook not in HOOKS:
                raise PluginError(
                    f"{name}: there is no hook {hook!r}{_nearest(hook)}. The hooks are: {', '.join(HOOKS)}"
                )
            if options.get("wrapper") or options.get("hookwrapper"):
                raise PluginError(
                    f"{name}.{attribute} is a wrapper: a wrapper would surround the hook, never the model call. "
                    "Use meter_call_opened and meter_record for before and after, meter_admit_call to refuse."
                )
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise PluginError(
                    f"{name}.{attribute} is async: hooks are synchronous. Write a plain `def` that puts the record on "
                    "a queue of yours, or subclass AgentObserver, whose on_… methods may be `async def`."
                )
        if not found:
            raise PluginError(
                f"{name} has no hooks: mark its functions with @hookimpl and name them like {', '.join(HOOKS)}"
            )
        if inspect.isclass(plugin):
            raise PluginError(f"{name} is a class: register an instance of it, {plugin.__name__}()")

    def _compile(self) -> None:
        hooks = self._manager.hook
        self._impls = {
            name: tuple((_one_noun(impl), impl.plugin_name) for impl in reversed(getattr(hooks, name).get_hookimpls()))
            for name in HOOKS
        }

    # ------------------------------------------------------------------------------------------- the hooks

    def startup(self, meter: Meter) -> None:
        self._manager.hook.meter_startup.call_historic(kwargs={"meter": meter})

    def tag(self, call: Call) -> list[Mapping[str, str]]:
        return self._ask("meter_tag_call", call)

    def admit(self, call: Call) -> Denial | None:
        answers = self._ask("meter_admit_call", call, first=True)
        return answers[0] if answers else None

    def opened(self, call: Call) -> None:
        self._ask("meter_call_opened", call)

    def find_rates(self, model: Model) -> Rates | None:
        answers = self._ask("meter_find_rates", model, first=True)
        return answers[0] if answers else None

    def record(self, record: Record) -> None:
        self._ask("meter_record", record)

    def alert(self, alert: Alert) -> None:
        self._ask("meter_alert", alert)

    def shutdown(self) -> None:
        self._ask("meter_shutdown")

    def listening(self, hook: str) -> bool:
        return bool(self._impls[hook])

    def _ask(self, hook: str, *noun: object, first: bool = False) -> list[Any]:
        """Call every plugin, newest first; return what is not None. A plugin that raises is counted, not fatal."""
        answers: list[Any] = []
        for function, plugin in self._impls[hook]:
            try:
                answer = function(*noun)
            except Exception as error:
                self.failed(plugin, hook, error)
                if self.strict:
                    raise
            else:
                if answer is not None:
                    answers.append(answer)
                    if first:
                        break
        return answers

    def failed(self, plugin: str, hook: str, error: BaseException) -> None:
        """Count a fenced failure; log the 1st, 10th, 100th … of a kind, so that a broken plugin cannot flood a log."""
        import logging

        key = (plugin, hook)
        count = self.failures[key] = self.failures.get(key, 0) + 1
        self.last_errors[key] = f"{type(error).__name__}: {error}"[:500]
        if str(count).strip("0") == "1":
            logging.getLogger(PROJECT).warning(
                "%s failed in %s (%d times so far); the run goes on", plugin, hook, count, exc_info=error
            )


def _one_noun(impl: Any) -> Callable[..., Any]:
    """pluggy lets a hookimpl leave out the argument."""
    function: Callable[..., Any] = impl.function
    return function if impl.argnames else lambda *_: function()


def _readable_name(plugin: object) -> str:
    name = getattr(plugin, "__name__", None) or type(plugin).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, HOOKS, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
