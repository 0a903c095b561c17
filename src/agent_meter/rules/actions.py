"""What a rule does when it fires. An action is a function of one `Firing`; these have names that a file can use."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..controls import EVERY
from ..records import Alert
from .errors import RuleError
from .model import Action, Rule

if TYPE_CHECKING:
    from ..controls import Controls
    from ..meter import Meter

_LEVELS = {"P0": logging.CRITICAL, "P1": logging.ERROR, "P2": logging.WARNING, "P3": logging.WARNING}
logger = logging.getLogger("agent_meter.rules")


class Firing(msgspec.Struct, frozen=True):
    """A rule has fired: for whom, with which numbers, and what the actions may use."""

    rule: Rule
    alert: Alert
    agent: str
    task: str
    values: Mapping[str, float]
    at: str  # ISO 8601, UTC
    meter: Meter
    controls: Controls
    options: Mapping[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """What a webhook is sent; `text` is the field that chat programs show."""
        return {
            "text": f"[{self.rule.severity}] {self.alert.message}",
            "rule": self.rule.name,
            "severity": self.rule.severity,
            "message": self.alert.message,
            "agent": self.agent,
            "task": self.task,
            "values": dict(self.values),
            "at": self.at,
        }


Do = Callable[[Firing], Any]


def log(firing: Firing) -> None:
    """One line in the log `agent_meter.rules`: P0 critical, P1 error, P2 and P3 warning, P4 info."""
    logger.log(_LEVELS.get(firing.rule.severity, logging.INFO), "[%s] %s", firing.rule.severity, firing.alert.message)


def investigate_agent(firing: Firing) -> None:
    """The same line, and where the agent's tokens went: its models and its tools, biggest first."""
    log(firing)
    if not firing.agent:
        return
    models = {
        model: usage
        for (agent, model), usage in firing.meter.usage_by("agent", "model").items()
        if agent == firing.agent
    }
    ranked = sorted(models.items(), key=lambda item: -item[1].total_tokens)[:5]
    parts = [f"{model or '?'} {usage.total_tokens:,} tokens in {usage.requests} calls" for model, usage in ranked]
    whole = firing.meter.usage_by("agent").get(firing.agent)
    tools = sorted(whole.tool_usage.items(), key=lambda item: -item[1])[:5] if whole is not None else []
    parts += [f"tool {tool} {count}×" for tool, count in tools]
    logger.warning("%s: %s", firing.agent, "; ".join(parts) or "nothing recorded")


def pause_all_noncritical_agents(firing: Firing) -> None:
    """Refuse the next call of every agent that is not critical, until `agent-meter resume`."""
    log(firing)
    firing.controls.pause(EVERY, reason=firing.alert.message, by=f"rule {firing.rule.name}")


def pause_agent(firing: Firing) -> None:
    """Refuse the next call of the agent that the rule fired for, until `agent-meter resume AGENT`."""
    log(firing)
    if firing.agent:
        firing.controls.pause(firing.agent, reason=firing.alert.message, by=f"rule {firing.rule.name}")


def kill_agent_task(firing: Firing) -> None:
    """Refuse every further call of the task that the rule fired for."""
    log(firing)
    if firing.task:
        firing.controls.stop_task(firing.task, firing.agent, reason=firing.alert.message, by=f"rule {firing.rule.name}")


def webhook(firing: Firing) -> None:
    """POST the firing as JSON to `url`, off every caller's path; tried again twice when that fails."""
    deliveries.put(firing)


ACTIONS: dict[str, Do] = {
    "log": log,
    "notify_team": log,
    "investigate_agent": investigate_agent,
    "pause_all_noncritical_agents": pause_all_noncritical_agents,
    "pause_agent": pause_agent,
    "kill_agent_task": kill_agent_task,
    "webhook": webhook,
}
_WEBHOOK = ("url", "timeout", "retries", "headers")
_FOR_TASKS = ("kill_agent_task",)
_FOR_AGENTS = ("pause_agent", "investigate_agent")


def check(rule: Rule, actions: Mapping[str, Do]) -> None:
    """Raise `RuleError` for an action that nobody knows, or that has nobody to act on."""
    for action in rule.actions:
        if action.name not in actions:
            raise RuleError(f"rule {rule.name}: there is no action {action.name!r}; {', '.join(actions)}", rule.where)
        if actions[action.name] is not ACTIONS.get(action.name):
            continue  # the program's own, which may do as it likes
        if action.name in _FOR_TASKS and rule.subject != "task":
            raise RuleError(
                f"rule {rule.name}: {action.name} needs a condition about tasks, such as agent_tokens_per_task",
                rule.where,
            )
        if action.name in _FOR_AGENTS and rule.subject == "meter":
            raise RuleError(
                f"rule {rule.name}: {action.name} needs a condition about agents, such as agent_hourly_tokens",
                rule.where,
            )
        if action.name == "webhook":
            _check_webhook(rule, action)
        elif action.options:
            raise RuleError(f"rule {rule.name}: {action.name} takes no options", rule.where)


def _check_webhook(rule: Rule, action: Action) -> None:
    url = str(action.options.get("url", ""))
    if not url.startswith(("http://", "https://")):
        raise RuleError(
            f"rule {rule.name}: webhook needs a url, as in action: {{webhook: {{url: 'https://…'}}}}; got {url!r}",
            rule.where,
        )
    for name in action.options:
        if name not in _WEBHOOK:
            raise RuleError(f"rule {rule.name}: webhook knows no {name!r}; {', '.join(_WEBHOOK)}", rule.where)


class Deliveries:
    """Sends webhooks from one thread, the oldest first; at most 1,000 wait, then the oldest is given up."""

    def __init__(self) -> None:
        self._waiting: deque[Firing] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._sending = False
        self.failed = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A forked child has no thread, and its parent delivers what waits."""
        self.__dict__.update(_waiting=deque(), _change=threading.Condition(), _thread=None, _sending=False)

    def put(self, firing: Firing) -> None:
        with self._change:
            self._waiting.append(firing)
            if len(self._waiting) > 1_000:
                self._waiting.popleft()
                self.failed += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver, name="agent-meter-webhooks", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until nothing waits; whether that came about in time."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._sending, timeout)

    def _deliver(self) -> None:
        while True:
            with self._change:
                while not self._waiting:
                    self._sending = False
                    self._change.notify_all()
                    self._change.wait()
                self._sending = True
                firing = self._waiting.popleft()
            try:
                _send(firing)
            except Exception as error:
                self.failed += 1
                firing.meter.plugins.failed("rules", "webhook", error)


def _send(firing: Firing) -> None:
    from urllib.request import Request, urlopen

    options = firing.options
    headers = {"Content-Type": "application/json"}
    headers |= {str(k): os.path.expandvars(str(v)) for k, v in dict(options.get("headers") or {}).items()}
    body = json.dumps(firing.document(), ensure_ascii=False).encode()
    tries = 1 + int(options.get("retries", 2))
    for number in range(1, tries + 1):
        try:
            request = Request(str(options["url"]), body, headers, method="POST")  # noqa: S310 - checked: http(s)
            with urlopen(request, timeout=float(options.get("timeout", 5))):  # noqa: S310
                return
        except Exception:
            if number == tries:
                raise
            time.sleep(min(0.2 * 4 ** (number - 1), 10))


deliveries = Deliveries()
