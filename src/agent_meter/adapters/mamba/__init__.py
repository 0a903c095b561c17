"""mamba-agents, and the pydantic-ai under it: workflows told by hooks, requests and tools seen where they are made.

    meter = Meter()
    agent = Agent(MeteredModel(model, meter), toolsets=[MeteredToolset(FunctionToolset([search]), meter)])
    workflow = ReActWorkflow(agent, hooks=MeterWorkflowHooks(meter))

Hooks alone cannot refuse a call, and hear of it when its step is over; they give structure: runs and steps. The model
and the toolset see each request and each tool call, and refuse those that a guard denies. What both see is counted
once. `MeterWorkflowHooks` imports nothing; the other two import pydantic-ai.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import front_door
from .hooks import MeterWorkflowHooks

if TYPE_CHECKING:
    from .model import MeteredModel
    from .toolset import MeteredToolset

__all__ = ["MeterWorkflowHooks", "MeteredModel", "MeteredToolset"]

__getattr__, __dir__ = front_door(
    globals(), {"MeteredModel": ".model", "MeteredToolset": ".toolset"}, "pydantic-ai-slim"
)
