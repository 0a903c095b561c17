"""Rules from a YAML file. Whatever is wrong with it is said with the line it stands in."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from .errors import RuleError
from .model import Rule

_TOP = ("budget_rules", "rules", "limits", "critical_agents")
_RULE = {
    "name": "name",
    "condition": "condition",
    "message": "message",
    "severity": "severity",
    "action": "action",
    "actions": "action",
    "for": "hold",
    "until": "until",
}


class RuleFile(msgspec.Struct, frozen=True):
    """What a file says: its rules, limits beside those of the budgets, and the agents that are never paused."""

    rules: tuple[Rule, ...]
    limits: dict[str, float] = {}
    critical: tuple[str, ...] = ()


def load(path: str | Path) -> RuleFile:
    """Read a file such as `budget-alerts.yaml`. Raises `RuleError` with `file:line`, OSError for the file itself."""
    text = Path(path).read_text(encoding="utf-8")
    return read(text, str(path))


def read(text: str, name: str = "rules") -> RuleFile:
    """The same for the text of a file; `name` is how errors call it."""
    try:
        import yaml
    except ImportError:
        raise RuleError("rules files need PyYAML: pip install 'agent-meter[rules]'", name) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise RuleError(f"no YAML: {getattr(error, 'problem', None) or error}", where) from None
    return _Reader(name, yaml).file(root)


class _Reader:
    def __init__(self, name: str, yaml: Any) -> None:
        self._name = name
        self._yaml = yaml

    def _at(self, node: Any) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"

    def file(self, root: Any) -> RuleFile:
        if root is None:
            raise RuleError("the file is empty; it needs a list budget_rules", self._name)
        parts = self._mapping(root, "the file", _TOP)
        rules: list[Rule] = []
        for heading in ("budget_rules", "rules"):
            if heading in parts:
                node = parts[heading]
                if not isinstance(node, self._yaml.SequenceNode):
                    raise RuleError(f"{heading} is a list of rules", self._at(node))
                rules += [self._rule(one) for one in node.value]
        if not rules:
            raise RuleError("there is no rule in it; it needs a list budget_rules", self._name)
        seen: dict[str, Rule] = {}
        for rule in rules:
            if rule.name in seen:
                raise RuleError(f"rule {rule.name} stands in {seen[rule.name].where} already", rule.where)
            seen[rule.name] = rule
        return RuleFile(tuple(rules), self._limits(parts.get("limits")), self._critical(parts.get("critical_agents")))

    def _mapping(self, node: Any, what: str, allowed: Iterable[str]) -> dict[str, Any]:
        if not isinstance(node, self._yaml.MappingNode):
            raise RuleError(f"{what} is names with values", self._at(node))
        found: dict[str, Any] = {}
        allowed = tuple(allowed)
        for key, value in node.value:
            word = str(self._value(key))
            if allowed and word not in allowed:
                near = get_close_matches(word, allowed, 1, 0.5)
                hint = f"; did you mean {near[0]}?" if near else f"; it knows {', '.join(allowed)}"
                raise RuleError(f"{what} knows no {word!r}{hint}", self._at(key))
            if word in found:
                raise RuleError(f"{what} says {word} twice", self._at(key))
            found[word] = value
        return found

    def _rule(self, node: Any) -> Rule:
        parts = self._mapping(node, "a rule", _RULE)
        for needed in ("name", "condition"):
            if needed not in parts:
                raise RuleError(f"the rule has no {needed}", self._at(node))
        told: dict[str, Any] = {}
        for word, value in parts.items():
            told[_RULE[word]] = self._value(value)
        name = str(told.get("name") or "?")
        for word, value in parts.items():  # so that an error names the line of the word, not of the rule
            part = {_RULE[word]: told[_RULE[word]]} if word not in ("name", "condition") else {}
            condition = told["condition"] if word == "condition" else "hourly_tokens > 0"
            Rule.make(name, condition, where=self._at(value), **part)
        return Rule.make(where=self._at(node), **told)

    def _limits(self, node: Any) -> dict[str, float]:
        if node is None:
            return {}
        limits = {}
        for name, value in self._mapping(node, "limits", ()).items():
            amount = self._value(value)
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or amount < 0:
                raise RuleError(f"the limit {name} is a number of at least 0, not {amount!r}", self._at(value))
            try:
                check_limit(name)
            except RuleError as error:
                raise RuleError(error.message, self._at(value)) from None
            limits[name] = amount
        return limits

    def _critical(self, node: Any) -> tuple[str, ...]:
        if node is None:
            return ()
        names = self._value(node)
        if not isinstance(names, list):
            raise RuleError("critical_agents is a list of names", self._at(node))
        return tuple(str(name) for name in names)

    def _value(self, node: Any) -> Any:
        return self._yaml.constructor.SafeConstructor().construct_object(node, deep=True)


def check_limit(name: str) -> None:
    """Raise `RuleError` unless a condition can use a limit of this name."""
    from .variables import VARIABLES

    limits = [variable.name for variable in VARIABLES.values() if variable.is_limit]
    if name not in limits:
        near = get_close_matches(name, limits, 1, 0.5)
        raise RuleError(f"there is no limit {name!r}; {f'did you mean {near[0]}?' if near else ', '.join(limits)}")
