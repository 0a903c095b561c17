"""Rules at work: what they look at, when they fire, and that they fire once.

A plugin: `meter.register(Rules.load("budget-alerts.yaml"))`. On the caller's path a record is put on a queue, or
nothing is done where a store on disk has the records of all processes; a thread of its own works the conditions out
once a second. What has fired is kept on a shelf, so that a restart, or another process, does not fire it again.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..controls import Controls
from ..errors import StoreError
from ..forecast import forecast
from ..hookspecs import hookimpl
from ..records import Alert, Record, UsageRecord
from ..shelf import Document, Shelf
from .actions import ACTIONS, Do, Firing, check, deliveries
from .counters import Counters, end_of, start_of
from .errors import RuleError
from .limits import Limits
from .loading import RuleFile, check_limit, load
from .messages import fill
from .model import Rule
from .reading import Reader, seeded
from .variables import VARIABLES

if TYPE_CHECKING:
    from ..budgets import Budget
    from ..meter import Meter
    from ..store import Store

_QUEUE = 50_000  # records that wait for the thread; beyond that the caller counts them itself
_PATIENCE = 5.0  # seconds that a check waits for what is on its way to the store
_FORGOTTEN = timedelta(days=60)  # after which nobody asks any more whether a rule has fired
Subject = tuple[str, str]  # agent and task; empty where a rule is not about one


class Rules:
    """The rules of one meter.

    `limits` beside those of the budgets (`{"daily_limit": 1_000_000}`); `actions` of your own, by name, each a
    function of a `Firing`; `critical` agents are never paused. `interval` is how often, in seconds, conditions are
    worked out; `None` leaves that to `check()`.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        limits: Mapping[str, float] | None = None,
        actions: Mapping[str, Do] | None = None,
        critical: Iterable[str] = (),
        interval: float | None = 1.0,
        shelf: Shelf | None = None,
        controls: Controls | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.interval = interval
        self._beside = dict(limits or {})
        for name in self._beside:
            check_limit(name)
        self._actions = {**ACTIONS, **(actions or {})}
        for rule in self.rules:
            check(rule, self._actions)
        self._critical = tuple(critical)
        self._shelf = shelf
        self.controls = controls
        self._counters = Counters()
        self._queue: deque[UsageRecord] = deque()
        self._lock = threading.RLock()
        self._reader: Reader | None = None
        self._meter: weakref.ref[Meter] | None = None
        self._limits = Limits()
        self._stopped = threading.Event()

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Rules:
        """The rules of a YAML file. Raises `RuleError`, which names the line, and OSError for the file itself."""
        return cls.of(load(path), **options)

    @classmethod
    def of(cls, file: RuleFile, **options: Any) -> Rules:
        options["limits"] = {**file.limits, **(options.get("limits") or {})}
        options["critical"] = (*file.critical, *options.get("critical", ()))
        return cls(file.rules, **options)

    # ------------------------------------------------------------------------------------------------ hooks

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        self._limits = self._limits_of(meter)
        self._check_limits()
        self._meter = weakref.ref(meter)
        if hasattr(meter.store, "transaction"):  # a store that processes share
            self._reader = Reader(meter.store)  # type: ignore[arg-type]
        if self.controls is None and self._shelf is None:
            self.controls = meter.controls
        if self._shelf is None:
            self._shelf = meter.shelf
        if self.controls is None:  # the rules have a shelf of their own, and what is paused stands there
            self.controls = Controls(self._shelf)
            meter.register(self.controls, "controls")
        self.controls.critical.update(self._critical)
        if self.interval is not None:
            threading.Thread(
                target=_watch,
                args=(weakref.ref(self), self.interval, self._stopped),
                daemon=True,
                name="agent-meter-rules",
            ).start()

    @hookimpl
    def meter_record(self, record: Record) -> None:
        if self._reader is None and type(record) is UsageRecord:
            self._queue.append(record)
            if len(self._queue) > _QUEUE:
                self._drain()

    @hookimpl
    def meter_shutdown(self) -> None:
        self._stopped.set()
        self.check()
        deliveries.flush(2.0)

    # ---------------------------------------------------------------------------------------------- at work

    def check(self) -> list[Alert]:
        """Work out every condition now; the alerts of the rules that fired. Raises nothing into the caller."""
        meter = self._meter() if self._meter is not None else None
        if meter is None:
            return []
        fired: list[Alert] = []
        with self._lock:
            now = meter.now()
            self._drain()
            try:
                if self._reader is not None:
                    with suppress(StoreError):  # which the store has counted
                        meter.flush(_PATIENCE)
                    self._counters = self._reader.counters(now)
                    if callable(look := getattr(self._shelf, "look", None)):
                        look()
            except Exception as error:
                meter.plugins.failed("rules", "read", error)
                return []
            self._limits = self._limits_of(meter)  # budgets may be changed while calls run
            for rule in self.rules:
                try:
                    fired += self._check(rule, meter, now)
                except Exception as error:
                    meter.plugins.failed("rules", rule.name, error)
        return fired

    def preview(self, store: Store, budgets: Iterable[Budget] = ()) -> list[tuple[Rule, Subject, str]]:
        """Which rules would fire now, for whom and with which messages, by what a store has; nothing is done.

        `RuleError` for a limit that nobody set.
        """
        now = store.now()
        self._counters, self._limits = seeded(store, now), Limits(budgets, self._beside)
        self._check_limits()
        found = []
        for rule in self.rules:
            for (agent, task), values in self._subjects(rule, now):
                if rule.condition.holds(values):

                    def value(name: str, agent: str = agent, task: str = task) -> float | None:
                        return self._value(name, agent, task, now)

                    found.append((rule, (agent, task), fill(rule, agent, task, value)[3]))
        return found

    def _check_limits(self) -> None:
        for rule in self.rules:
            for name in rule.limits:
                if not self._limits.known(name):
                    raise RuleError(
                        f"rule {rule.name}: nobody set {name} ({VARIABLES[name].meaning}); give the meter a budget "
                        f"for it, or say so beside the rules: limits: {{{name}: …}}",
                        rule.where,
                    )

    def _limits_of(self, meter: Meter) -> Limits:
        # A meter without budgets is left without: to ask for them would make every call pass by a guard.
        return Limits(meter.budgets if meter.has_budgets else (), self._beside)

    def _drain(self) -> None:
        with self._lock:
            while self._queue:
                self._counters.add(self._queue.popleft())

    def _subjects(self, rule: Rule, now: datetime) -> Iterator[tuple[Subject, dict[str, float]]]:
        subjects: Iterable[Subject]
        if rule.subject == "task":
            subjects = self._counters.tasks()
        elif rule.subject == "agent":
            subjects = [(agent, "") for agent in self._counters.agents()]
        else:
            subjects = [("", "")]
        for agent, task in subjects:
            values = {name: self._value(name, agent, task, now) for name in rule.names}
            known = {name: value for name, value in values.items() if value is not None}
            if len(known) == len(values):  # else no limit was set for this one
                yield (agent, task), known

    def _value(self, name: str, agent: str, task: str, now: datetime) -> float | None:
        variable = VARIABLES[name]
        if variable.is_limit:
            return self._limits.find(name, agent, task)
        counters = self._counters
        if name == "unpriced_requests":
            return counters.unpriced
        if name == "denied_requests":
            return counters.denied
        if variable.subject == "task":
            measure = "tokens" if name == "agent_tokens_per_task" else name.removeprefix("task_")
            return counters.used_by_task(agent, task, measure)
        rest = name.removeprefix("agent_")
        projected = rest.startswith("projected_")
        window, _, measure = rest.removeprefix("projected_").partition("_")
        used = counters.used(window, measure, now, agent if variable.subject == "agent" else None)
        if not projected:
            return used
        hours = counters.hours(measure)
        return forecast(hours, used=used, start=start_of(window, now), until=end_of(window, now), now=now).expected

    def _check(self, rule: Rule, meter: Meter, now: datetime) -> list[Alert]:
        assert self._shelf is not None
        states: Mapping[str, Any] = self._shelf.read().get("rules", {}).get(rule.name, {})
        fired = []
        for subject, values in self._subjects(rule, now):
            key = "\x1f".join(subject)
            state = states.get(key)
            if state is not None and "quiet" in state:
                if now < datetime.fromisoformat(state["quiet"]):
                    continue  # another process, whose clock is ahead, is in the next window already
                state = None
            holds = rule.condition.holds(values)
            if state is not None and state["fired"]:
                quiet = rule.until.holds(values) if rule.until is not None else not holds
                if quiet and self._knows(rule, state, values):
                    self._note(rule, key, {"quiet": now.isoformat()}, now)
            elif not holds:
                if state is not None and self._knows(rule, state, values):
                    self._note(rule, key, None, now)
            elif state is None and rule.hold:
                self._note(rule, key, self._state(rule, values, now, fired=False), now)
            elif _is_over(rule, state, now) and self._note(rule, key, self._state(rule, values, now, fired=True), now):
                fired.append(self._fire(rule, subject, values, meter, now))
        return fired

    def _state(self, rule: Rule, values: Mapping[str, float], now: datetime, *, fired: bool) -> dict[str, Any]:
        """When it began to be so, and from how much knowledge that was said."""
        state: dict[str, Any] = {"since": now.isoformat(), "fired": fired}
        if self._reader is not None:
            state["seen"] = self._reader.position
            if rule.subject == "task":
                state["values"] = {name: value for name, value in values.items() if not VARIABLES[name].is_limit}
        return state

    def _knows(self, rule: Rule, state: Mapping[str, Any], values: Mapping[str, float]) -> bool:
        """Whether this process knows as much as the one that noted the state: only then can it say that it is over.

        It may be behind in reading the store, or have started after the beginning of a task.
        """
        if self._reader is None:
            return True
        known: Mapping[str, float] = state.get("values", {})
        return self._reader.position >= state.get("seen", 0) and all(
            values.get(name, 0.0) >= value
            for name, value in known.items()
            if name.startswith(("task_", "agent_tokens"))
        )

    def _note(self, rule: Rule, key: str, state: dict[str, Any] | None, now: datetime) -> bool:
        """Remember a state; whether it is news: another process may have fired the same rule a moment ago."""

        def update(document: Document) -> bool:
            states = document.setdefault("rules", {}).setdefault(rule.name, {})
            old = states.get(key)
            if state is None:
                return states.pop(key, None) is not None
            if old is not None and old.get("fired") and state.get("fired"):
                return False
            if old is not None and "quiet" in old and now < datetime.fromisoformat(old["quiet"]):
                return False
            for stale in [name for name, one in states.items() if name != key and _is_old(one, now)]:
                del states[stale]
            states[key] = state
            return True

        assert self._shelf is not None
        return self._shelf.change(update)

    def _fire(self, rule: Rule, subject: Subject, values: dict[str, float], meter: Meter, now: datetime) -> Alert:
        agent, task = subject
        used, limit, unit, message = fill(rule, agent, task, lambda name: self._value(name, agent, task, now))
        alert = Alert(rule.name, message, None, used, limit, unit, rule.severity)
        meter.plugins.alert(alert)
        assert self.controls is not None
        at = now.astimezone(UTC).isoformat(timespec="seconds")
        for action in rule.actions:
            firing = Firing(rule, alert, agent, task, values, at, meter, self.controls, action.options)
            try:
                self._actions[action.name](firing)
            except Exception as error:
                meter.plugins.failed("rules", action.name, error)
        return alert


def _is_over(rule: Rule, state: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether the condition has held for as long as the rule wants it to."""
    if state is None:
        return True  # it need not hold for any time: see the caller
    return (now - datetime.fromisoformat(state["since"])).total_seconds() >= rule.hold


def _is_old(state: Mapping[str, Any], now: datetime) -> bool:
    return now - datetime.fromisoformat(state.get("quiet") or state["since"]) > _FORGOTTEN


def _watch(rules: weakref.ref[Rules], interval: float, stopped: threading.Event) -> None:
    """Check once in a while, as long as anybody holds the rules."""
    while not stopped.wait(interval):
        held = rules()
        if held is None or held._meter is None or held._meter() is None:
            return
        held.check()
        del held
