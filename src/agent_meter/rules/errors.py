"""What a rules file can be wrong about, as a sentence that names the line."""

from __future__ import annotations

from ..errors import MeterError


class RuleError(MeterError, ValueError):
    """A rule cannot work. `where` is `file:line` when the rule came from a file."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where

    def __reduce__(self) -> tuple[type[RuleError], tuple[str, str]]:
        return (type(self), (self.message, self.where))
