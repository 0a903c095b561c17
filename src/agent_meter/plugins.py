"""Who is plugged in, and what happens when one of them fails.

Pluggy registers, orders and validates; the loop in `_ask` is ours, because a pluggy call stops at the first
plugin that raises. It is the only place where the failure of a plugin is fenced.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from . import attribution, hookspecs
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
        self._openers: tuple[_Impl, ...] = ()
        self._recorders: tuple[_Impl, ...] = ()
        self.strict = strict
        self.tagged = self.guarded = self.wants_content = False
        self.listeners: tuple[tuple[Callable[..., Any], str], ...] = ()
        self.failures: dict[tuple[str, str], int] = {}
        self.last_errors: dict[tuple[str, str], str] = {}
        self._count = threading.RLock()  # a finalizer may fail while this very thread counts

    # ------------------------------------------------------------------------------------ who is plugged in

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin; `PluginError` says in a sentence what is wrong with one that cannot work."""
        name = name or _readable_name(plugin)
        self._validate(plugin, name)
        if self._manager.is_registered(plugin):
            raise PluginError(f"{name} is registered already")
        twin, wanted = 1, name
        while self._manager.has_plugin(name):
            twin += 1
            name = f"{wanted} #{twin}"
        try:
            self._manager.register(plugin, name)
        except BaseException as error:
            # Its meter_startup failed: a set-up error, shown at set-up, that leaves no half-registered plugin.
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            if isinstance(error, pluggy.PluginValidationError):
                raise PluginError(f"{name}: {str(error).splitlines()[-1]}") from error
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
            function = getattr(function, "__func__", function)
            options = getattr(function, f"{PROJECT}_impl", None)
            if options is None and not (attribute.startswith("meter_") and inspect.isroutine(function)):
                continue
            hook = (options or {}).get("specname") or attribute
            if hook not in HOOKS:
                raise PluginError(
                    f"{name}: there is no hook {hook!r}{_nearest(hook)} The hooks are: {', '.join(HOOKS)}"
                )
            if options is None:
                raise PluginError(f"{name}.{attribute} is not marked: put @hookimpl above it")
            found = True
            if options.get("wrapper") or options.get("hookwrapper"):
                raise PluginError(
                    f"{name}.{attribute} is a wrapper: a wrapper would surround the hook, never the model call. "
                    "Use meter_call_opened and meter_record for before and after, meter_admit_call to refuse."
                )
            function = inspect.unwrap(function)  # a decorator does not make it synchronous
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
        self._openers, self._recorders = self._impls["meter_call_opened"], self._impls["meter_record"]
        # Asked on the path before the hooks themselves are: most meters have neither.
        self.tagged = bool(self._impls["meter_tag_call"])
        self.guarded = bool(self._impls["meter_admit_call"])
        plugged = [(name, plugin) for name, plugin in self._manager.list_name_plugin() if plugin is not None]
        self.wants_content = any(getattr(plugin, "wants_content", False) for _, plugin in plugged)
        listeners = [(getattr(plugin, "hear_event", None), name) for name, plugin in reversed(plugged)]
        self.listeners = tuple((hear, name) for hear, name in listeners if callable(hear))

    # ------------------------------------------------------------------------------------------- the hooks

    def startup(self, meter: Meter) -> None:
        self._manager.hook.meter_startup.call_historic(kwargs={"meter": meter})

    def tag(self, call: Call) -> None:
        self._ask("meter_tag_call", call, use=partial(attribution.fill, call))

    def admit(self, call: Call) -> Denial | None:
        answer: Denial | None = self._ask("meter_admit_call", call, use=_is_denial)
        return answer

    # Every call comes through these two: they are `_ask` written out, which has no answer to look at here.

    def opened(self, call: Call) -> None:
        for function, plugin in self._openers:
            try:
                function(call)
            except Exception as error:
                self._broken(plugin, "meter_call_opened", error)

    def find_rates(self, model: Model) -> Rates | None:
        answer: Rates | None = self._ask("meter_find_rates", model, use=_has_price)
        return answer

    def record(self, record: Record) -> None:
        for function, plugin in self._recorders:
            try:
                function(record)
            except Exception as error:
                self._broken(plugin, "meter_record", error)

    def alert(self, alert: Alert) -> None:
        self._ask("meter_alert", alert)

    def shutdown(self) -> None:
        self._ask("meter_shutdown")

    def tell(self, event: str, *about: object) -> None:
        """Tell the observers of what is neither a call nor a record; see `adapters.native`."""
        for hear, plugin in self.listeners:
            try:
                hear(event, *about)
            except Exception as error:
                self._broken(plugin, event, error)

    def _ask(self, hook: str, *noun: object, use: Callable[[Any], object] = bool) -> Any:
        """Tell every plugin, newest first, until `use` is content with an answer; that one is returned.

        A plugin that raises, or that `use` cannot read the answer of, is counted, and the next one is told.
        """
        for function, plugin in self._impls[hook]:
            try:
                answer = function(*noun)
                if answer is not None and use(answer):
                    return answer
            except Exception as error:
                self._broken(plugin, hook, error)
        return None

    def _broken(self, plugin: str, hook: str, error: Exception) -> None:
        self.failed(plugin, hook, error)
        if self.strict:
            raise error

    def failed(self, plugin: str, hook: str, error: BaseException) -> None:
        """Count a fenced failure; log the 1st, 10th, 100th … of a kind, so that a broken plugin cannot flood a log."""
        key = (plugin, hook)
        try:
            text = f"{type(error).__name__}: {error}"[:500]
        except Exception:  # its __str__ is broken too
            text = type(error).__name__
        with self._count:
            count = self.failures[key] = self.failures.get(key, 0) + 1
            self.last_errors[key] = text
        if str(count).strip("0") == "1":
            self._log("%s failed in %s (%d times so far); the run goes on", plugin, hook, count, exc_info=error)

    def _log(self, message: str, *args: object, exc_info: BaseException) -> None:
        import logging

        # A handler of the application may raise as well, and this is the last fence.
        with contextlib.suppress(Exception):
            logging.getLogger(PROJECT).warning(message, *args, exc_info=exc_info)


def _is_denial(answer: object) -> bool:
    if not isinstance(answer, Denial):
        raise TypeError(f"meter_admit_call answers with a Denial or with None, not with {answer!r}")
    return True


def _has_price(answer: object) -> bool:
    if not callable(getattr(answer, "price", None)):
        raise TypeError(f"meter_find_rates answers with Rates or with None, not with {answer!r}")
    return True


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
    return f"; did you mean {near[0]!r}?" if near else "."
