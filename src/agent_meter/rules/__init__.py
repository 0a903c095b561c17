"""Alert rules: conditions over what the meter knows, and what to do when one becomes true.

    meter.register(Rules.load("budget-alerts.yaml"))

Needs the extra `rules` (PyYAML for the file, simpleeval for the conditions).
"""

from __future__ import annotations

from .actions import ACTIONS, Firing
from .engine import Rules
from .errors import RuleError
from .loading import RuleFile, load, read
from .model import Action, Rule
from .variables import PLACEHOLDERS, VARIABLES, Variable

__all__ = [
    "ACTIONS",
    "PLACEHOLDERS",
    "VARIABLES",
    "Action",
    "Firing",
    "Rule",
    "RuleError",
    "RuleFile",
    "Rules",
    "Variable",
    "load",
    "read",
]
