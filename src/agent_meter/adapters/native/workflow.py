"""What workflow hooks are told about: light objects with the fields of the seed documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ...usage import AgentUsage

STEPS_KEPT = 1000  # of one run; `total_steps` counts all


@dataclass
class WorkflowStep:
    """One step of a run. Times are aware UTC, `duration_seconds` is None until the step has ended.

    `metadata["id"]` is the step's id, for `meter.tree`. `input_data` and `output_data` are None unless the hooks want
    content.
    """

    step_number: int
    step_type: str = "step"
    description: str = ""
    input_data: Any = None
    output_data: Any = None
    agent_result: Any = None
    error: Any = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    completed_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    usage: AgentUsage | None = None

    @property
    def duration_seconds(self) -> float | None:
        return None if self.completed_at is None else (self.completed_at - self.started_at) / timedelta(seconds=1)

    @property
    def success(self) -> bool:
        return self.completed_at is not None and self.error is None


@dataclass
class WorkflowState:
    """How far a run is.

    Each event has a `context` of its own, so that a callback that runs later still finds its step's usage in it.
    `metadata` is one dict for the whole run: write there what a later callback should find.
    """

    current_step: int = 1
    total_steps: int = 0
    iteration_count: int = 0
    is_complete: bool = False
    is_failed: bool = False
    steps: list[WorkflowStep] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    name: str = ""
    current_thought: str | None = None
    current_action: dict[str, Any] | None = None
    current_observation: str | None = None

    def add_step(self, step: WorkflowStep) -> None:
        self.steps.append(step)
        self.total_steps += 1
        if len(self.steps) > STEPS_KEPT:
            del self.steps[0]

    def get_latest_step(self) -> WorkflowStep | None:
        return self.steps[-1] if self.steps else None

    def get_step(self, step_number: int) -> WorkflowStep | None:
        """The last step of that number, among the last 1,000."""
        return next((step for step in reversed(self.steps) if step.step_number == step_number), None)

    def with_usage(self, usage: dict[str, Any]) -> WorkflowState:
        """The state as it is now, with `usage` in a context of its own."""
        from copy import copy

        now = copy(self)
        now.steps = list(self.steps)
        now.context = {**self.context, "usage": usage}
        return now


@dataclass
class WorkflowResult:
    """How a run ended. `termination_reason` is "completed", "error", "timeout", "cancelled" or "unknown"."""

    success: bool
    output: Any = None
    state: WorkflowState | None = None
    error: Any = None
    total_steps: int = 0
    total_iterations: int = 0
    duration_seconds: float = 0.0
    termination_reason: str = "unknown"

    @classmethod
    def ok(cls, output: Any, state: WorkflowState, duration: float, reason: str = "completed") -> Self:
        return cls(True, output, state, None, state.total_steps, state.iteration_count, duration, reason)

    @classmethod
    def fail(cls, error: Any, state: WorkflowState, duration: float, reason: str = "error") -> Self:
        return cls(False, None, state, error, state.total_steps, state.iteration_count, duration, reason)
