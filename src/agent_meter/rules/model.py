"""The noun: a rule, as somebody wrote it, with everything about it that can be checked beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from string import Formatter
from typing import Any

import msgspec

from .errors import RuleError
from .expressions import Condition
from .variables import PLACEHOLDERS, VARIABLES

SEVERITIES = ("P0", "P1", "P2", "P3", "P4")
_BREADTH = {"meter": 0, "agent": 1, "task": 2}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Action(msgspec.Struct, frozen=True):
    """What to do when a rule fires: the name of an action, and what it was told beside it."""

    name: str
    options: Mapping[str, Any] = {}


class Rule(msgspec.Struct, frozen=True):
    """A condition, what to do when it becomes true, and what to say.

    `hold` is for how many seconds the condition must be true before the rule fires; it fires once, and again only
    after it was quiet: when `until` is true, or, without one, when the condition is no longer.
    """

    name: str
    condition: Condition
    message: str = ""
    severity: str = "P3"
    actions: tuple[Action, ...] = (Action("log"),)
    hold: float = 0.0
    until: Condition | None = None
    where: str = ""

    @classmethod
    def make(
        cls,
        name: str,
        condition: str,
        message: str = "",
        *,
        severity: str = "P3",
        action: Any = "log",
        hold: Any = 0,
        until: str | None = None,
        where: str = "",
    ) -> Rule:
        """A rule of your own; `action` is a name, `{name: options}`, or several. Raises `RuleError`."""
        try:
            name = str(name).strip()
            if not name:
                raise RuleError("a rule needs a name")
            if str(severity) not in SEVERITIES:
                raise RuleError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
            rule = cls(
                name,
                Condition(condition),
                str(message),
                str(severity),
                actions_of(action),
                seconds(hold),
                None if until is None else Condition(until),
                where,
            )
            rule.check()
        except RuleError as error:
            raise RuleError(f"rule {name or '?'}: {error.message}", where or error.where) from None
        return rule

    @property
    def names(self) -> tuple[str, ...]:
        """Every variable that the rule looks at."""
        return tuple(dict.fromkeys(self.condition.names + (self.until.names if self.until is not None else ())))

    @property
    def subject(self) -> str:
        """What it is evaluated for: "meter" as a whole, each "agent", or each "task" of each agent."""
        subjects = [VARIABLES[name].subject for name in self.names]
        return max(subjects, key=_BREADTH.__getitem__, default="meter")

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits that must be known for it."""
        return tuple(name for name in self.names if VARIABLES[name].is_limit)

    def check(self) -> None:
        for name in self.names:
            if name not in VARIABLES:
                raise RuleError(f"there is no variable {name!r}{_near(name, VARIABLES)}")
        if not self.names:
            raise RuleError(f"the condition {self.condition.text!r} looks at nothing; it would be so for ever")
        for name in placeholders(self.message):
            if name not in PLACEHOLDERS and name not in VARIABLES:
                raise RuleError(f"the message names {{{name}}}, which is not known{_near(name, PLACEHOLDERS)}")


def placeholders(message: str) -> list[str]:
    """The names in a message. It may name numbers and say how to write them, and reach no further."""
    try:
        parts = list(Formatter().parse(message))
    except ValueError as error:
        raise RuleError(f"cannot read the message {message!r}: {error}") from None
    names = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or conversion:
            raise RuleError(f"the message may hold plain names only, such as {{used}}, not {{{name}}}")
        if spec and "{" in spec:
            raise RuleError(f"the message may not hold a name inside the format of {{{name}}}")
        names.append(name)
    return names


def actions_of(told: Any) -> tuple[Action, ...]:
    """One action or several, each a name or `{name: options}`."""
    if isinstance(told, str):
        return (Action(told),)
    if isinstance(told, Action):
        return (told,)
    if isinstance(told, Mapping):
        return tuple(_with_options(str(name), options) for name, options in told.items())
    if isinstance(told, Iterable):
        return tuple(action for one in told for action in actions_of(one))
    raise RuleError(f"an action is a name, or a name with options, not {told!r}")


def _with_options(name: str, options: Any) -> Action:
    if options is None:
        return Action(name)
    if not isinstance(options, Mapping):
        raise RuleError(f"the options of {name} are names with values, not {options!r}")
    return Action(name, {str(key): value for key, value in options.items()})


def seconds(told: Any) -> float:
    """`90`, `"90s"`, `"5m"`, `"1h"` or `"1d"` as seconds."""
    if isinstance(told, (int, float)) and not isinstance(told, bool) and told >= 0:
        return float(told)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", str(told))
    if match is None:
        raise RuleError(f"{told!r} is no length of time; write 30s, 5m, 1h or 1d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 3, 0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
