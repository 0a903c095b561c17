"""Observers and workflow hooks: be told of every model call and tool call, in whichever framework it happens.

Nothing in here can refuse a call: guards do that (`meter_admit_call`). What an observer or a hook raises is counted in
`meter.health()` and goes no further.
"""

from __future__ import annotations

from .hooks import ReActHooks, WorkflowHooks
from .listening import LoggingObserver, SimpleStepObserver, StepObserver
from .observer import AgentObserver
from .seed_events import SeedEvents
from .twins import AsyncAgentObserver
from .workflow import WorkflowResult, WorkflowState, WorkflowStep

__all__ = [
    "AgentObserver",
    "AsyncAgentObserver",
    "LoggingObserver",
    "ReActHooks",
    "SeedEvents",
    "SimpleStepObserver",
    "StepObserver",
    "WorkflowHooks",
    "WorkflowResult",
    "WorkflowState",
    "WorkflowStep",
]
