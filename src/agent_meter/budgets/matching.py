"""Which limits of which budgets a call touches, and by which counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..records import TOOL, Call, Kind, Record, RunRecord, ToolRecord, UsageRecord
from .budget import EACH, Budget, Limit
from .windows import Run, Window

KEPT = 4096  # combinations of attribution

USD, TOKENS, REQUESTS, OTHER = range(4)
_CODES = {"usd_pico": USD, "tokens": TOKENS, "requests": REQUESTS}


class Line(msgspec.Struct, eq=False):
    """One limit of a budget, for one counter of it."""

    budget: Budget
    limit: Limit
    code: int
    key: str
    scope: str  # which of several counters: "agent=alice"
    window: Window
    enforced: int | None
    per_run: bool
    money: str
    counting: str

    @property
    def label(self) -> str:
        return f"{self.budget.name} ({self.scope})" if self.scope else self.budget.name


class Who(msgspec.Struct, frozen=True, gc=False):
    """What a budget's scope is compared with."""

    kind: Kind
    agent: str
    task: str
    user: str
    session: str
    step: str
    model: str
    provider: str
    tool: str
    tags: Mapping[str, str]


def prefix(budget: Budget, limit: Limit) -> str:
    """How the keys of a limit's counters begin."""
    return f"{budget.name}/{limit.unit}/{budget.window.name}"


class Matcher:
    """The lines that a call touches, remembered by attribution."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.budgets = tuple(budgets)
        self.per_run = any(isinstance(budget.window, Run) for budget in self.budgets)
        self._tools = any("tool" in budget.scope for budget in self.budgets)
        self._found: dict[tuple[object, ...], tuple[Line, ...]] = {}

    def of_call(self, call: Call) -> tuple[Line, ...]:
        kind = call.kind
        tool = call.name if kind is TOOL else _around(call) if self._tools else ""
        key = (kind, call.agent, call.task, call.user, call.session, call.step, call.model, tool, call.tags or None)
        lines = self._found.get(key)
        if lines is None:
            model = call.model
            name, provider = ("", "") if model is None else (model.name, model.provider)
            who = Who(kind, call.agent, call.task, call.user, call.session, call.step, name, provider, tool, call.tags)
            lines = self._remember(key, who)
        return lines

    def of_record(self, record: Record) -> tuple[Line, ...]:
        """The same for a call that nobody held anything for; in which tool it was made is not known any more."""
        if type(record) is RunRecord:
            return ()
        name = provider = tool = ""
        if type(record) is UsageRecord:
            name, provider = record.request_model, record.provider
        elif type(record) is ToolRecord:
            tool = record.name
        key = (record.kind, record.agent, record.task, record.user, record.session, record.step, name, provider, tool,
               record.tags or None)  # fmt: skip
        lines = self._found.get(key)
        if lines is None:
            who = Who(*key[:9], record.tags)
            lines = self._remember(key, who)
        return lines

    def _remember(self, key: tuple[object, ...], who: Who) -> tuple[Line, ...]:
        lines = tuple(line for budget in self.budgets for line in _lines(budget, who))
        if len(self._found) >= KEPT:
            self._found = {}
        self._found[key] = lines
        return lines


def _around(call: Call) -> str:
    """The tool that a model call is made in, the nearest one."""
    parent = call.parent
    while parent is not None:
        if parent.kind is TOOL:
            return parent.name
        parent = parent.parent
    return ""


def _written(name: str, who: Who) -> str:
    """The other way to write a model or a provider: `openai/gpt-4o` is OpenAI's gpt-4o, where no provider is named."""
    if who.provider:
        return f"{who.provider}/{who.model}" if name == "model" else who.provider
    provider, slash, model = who.model.partition("/")
    return (model if name == "model" else provider) if slash else getattr(who, name)


def _lines(budget: Budget, who: Who) -> Iterable[Line]:
    each = []
    for name, wanted in budget.scope.items():
        value = getattr(who, name)
        if wanted[0] == EACH:
            if name == "tool" and not value:
                return
            each.append(f"{name}={value}")
        elif value not in wanted and not (name in ("model", "provider") and _written(name, who) in wanted):
            return
    for name, wanted in budget.tags.items():
        value = who.tags.get(name, "")
        if wanted[0] == EACH:
            each.append(f"{name}={value}")
        elif value not in wanted:
            return
    scope = ", ".join(each)
    of_tool = "tool" in budget.scope
    for limit in budget.limits:
        code = _CODES.get(limit.unit, OTHER)
        enforced = limit.enforced
        if who.kind is TOOL:
            if code in (TOKENS, OTHER) or (code == REQUESTS and not of_tool):
                continue
            if not of_tool:
                enforced = None  # what it costs is known when it is done
        elif code == REQUESTS and of_tool:
            continue
        key = f"{prefix(budget, limit)}|{scope}"
        yield Line(budget, limit, code, key, scope, budget.window, enforced, isinstance(budget.window, Run),
                   budget.money, budget.counting)  # fmt: skip
