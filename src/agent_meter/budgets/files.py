"""Budgets from a YAML file. Whatever is wrong with it is said with the line it stands in.

budgets:
  - name: research
    usd: 5
    per: day
    agent: researcher
    tags: {team: search}
"""

from __future__ import annotations

import inspect
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BudgetError
from .budget import Budget

KEYS = tuple(
    name
    for name, parameter in inspect.signature(Budget).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name != "on_exceed"
)


def load(path: str | os.PathLike[str]) -> list[Budget]:
    """The budgets of a file. Raises `BudgetError` with `file:line`, OSError for the file itself."""
    return read(Path(path).read_text(encoding="utf-8"), os.fspath(path))


def read(text: str, name: str = "budgets") -> list[Budget]:
    """The same for the text of a file; `name` is how errors call it."""
    try:
        import yaml
    except ImportError:
        raise BudgetError("budget files need PyYAML: pip install 'agent-meter[rules]'") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise BudgetError(f"{name}{line}: no YAML: {getattr(error, 'problem', None) or error}") from None
    return _Reader(name, yaml).budgets(root)


class _Reader:
    def __init__(self, name: str, yaml: Any) -> None:
        self._name = name
        self._yaml = yaml

    def _wrong(self, node: Any, message: str) -> BudgetError:
        return BudgetError(f"{self._name}:{node.start_mark.line + 1}: {message}")

    def budgets(self, root: Any) -> list[Budget]:
        if root is None:
            raise BudgetError(f"{self._name}: there is nothing in it")
        fields = self._mapping(root, ("budgets",))
        if "budgets" not in fields:
            raise self._wrong(root, "a file of budgets is `budgets:` and a list of them")
        items = fields["budgets"]
        if not isinstance(items, self._yaml.SequenceNode):
            raise self._wrong(items, "budgets is a list: each begins with `- name:`")
        found: dict[str, Budget] = {}
        for item in items.value:
            budget = self._budget(item)
            if budget.name in found:
                raise self._wrong(item, f"two budgets are called {budget.name!r}")
            found[budget.name] = budget
        return list(found.values())

    def _budget(self, node: Any) -> Budget:
        fields = self._mapping(node, KEYS)
        values = {key: self._value(value) for key, value in fields.items()}
        try:
            return Budget(**{"name": "", **values})
        except BudgetError as error:
            raise self._wrong(self._guilty(fields, str(error)) or node, str(error)) from None

    def _guilty(self, fields: dict[str, Any], message: str) -> Any:
        """The line that a message is about: of the key that it names first."""
        said = message.partition(": ")[2]
        return next((value for key, value in fields.items() if said.startswith(key)), None)

    def _mapping(self, node: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(node, self._yaml.MappingNode):
            raise self._wrong(node, f"here are names and values: {', '.join(allowed[:4])} …")
        fields: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in allowed:
                near = get_close_matches(name, allowed, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(allowed)}"
                raise self._wrong(key, f"there is no {name!r}; {hint}")
            if name in fields:
                raise self._wrong(key, f"{name} stands here twice")
            fields[name] = value
        return fields

    def _value(self, node: Any) -> Any:
        try:
            return self._yaml.SafeLoader("").construct_object(node, deep=True)
        except self._yaml.YAMLError as error:
            raise self._wrong(node, f"no plain value: {getattr(error, 'problem', error)}") from None
