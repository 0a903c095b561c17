"""Conditions: one comparison or several, in a language that can only look at numbers.

The expressions are parsed and worked out by simpleeval: no attributes, no calls but `min`, `max` and `abs`,
no powers and no strings, so a condition can neither reach the program nor run for long.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

from .errors import RuleError

_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
}
_FUNCTIONS = {"min": min, "max": max, "abs": abs}
_PARTS = (ast.Expr, ast.BoolOp, ast.boolop, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Name, ast.Load)
_LONGEST = 1000  # characters of a condition; a deeper one would be a program


class Condition:
    """A condition such as `daily_tokens > daily_limit * 0.9 and daily_requests >= 100`."""

    __slots__ = ("_parsed", "names", "text")

    def __init__(self, text: str) -> None:
        from simpleeval import SimpleEval

        self.text = str(text).strip()
        if not self.text:
            raise RuleError("the condition is empty; write for example: daily_tokens > daily_limit")
        if len(self.text) > _LONGEST:
            raise RuleError(f"the condition has {len(self.text):,} characters; at most {_LONGEST:,} are read")
        try:
            if ";" in self.text or "\n" in self.text:
                raise RuleError("one expression, on one line")
            self._parsed = SimpleEval.parse(self.text)
            for node in ast.walk(self._parsed):
                _allow(node)
        except Exception as error:
            raise RuleError(f"cannot read the condition {self.text!r}: {_reason(error)}") from error
        self.names: tuple[str, ...] = tuple(dict.fromkeys(_names(self._parsed)))

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true of these values. A division by zero is no number, and so nothing is true of it."""
        try:
            return bool(self._work_out(values))
        except ZeroDivisionError:
            return False

    def _work_out(self, values: Mapping[str, float]) -> Any:
        from simpleeval import SimpleEval

        return SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=values).eval(self.text, self._parsed)

    def __repr__(self) -> str:
        return f"<Condition {self.text}>"


def _allow(node: ast.AST) -> None:
    """Every part of a condition is looked at when it is read: a word of another language is an error now."""
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, (int, float)):
            raise RuleError(f"{node.value!r} is not a number")
    elif isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
            raise RuleError(f"{ast.unparse(node)} is no call of {', '.join(_FUNCTIONS)}")
    elif isinstance(node, (ast.operator, ast.unaryop, ast.cmpop)):
        if type(node) not in _OPERATORS:
            raise RuleError(f"the operator {type(node).__name__} is not known here")
    elif not isinstance(node, _PARTS):
        raise RuleError(f"{type(node).__name__} is not known here")


def _names(parsed: ast.AST) -> list[str]:
    called = {id(node.func) for node in ast.walk(parsed) if isinstance(node, ast.Call)}
    named = [node for node in ast.walk(parsed) if isinstance(node, ast.Name) and id(node) not in called]
    named.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.id for node in named if node.id not in ("True", "False")]


def _reason(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} at column {error.offset}" if error.offset else error.msg
    return getattr(error, "message", "") or str(error) or type(error).__name__
