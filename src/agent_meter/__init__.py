"""agent_meter: the meter that an agent framework plugs into.

    from agent_meter import Meter
    from agent_meter.adapters.langchain import MeterCallback

    meter = Meter()
    agent.invoke(question, {"callbacks": [MeterCallback(meter)]})
    print(meter.usage)
    print(meter.analytics.summary())

What is re-exported here is the public interface: the nouns and the hook marker at once, so that a plugin or a type
hint costs nothing more, the rest on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import front_door
from ._version import __version__
from .errors import BudgetError, BudgetExceeded, MeterError, PluginError, PriceError, StoreError, UnknownModel
from .hookspecs import hookimpl
from .records import (
    Alert,
    Attempt,
    Call,
    Cost,
    CostStatus,
    Denial,
    Kind,
    Model,
    RunRecord,
    Status,
    TokenUsage,
    ToolRecord,
    UsageRecord,
)

if TYPE_CHECKING:
    from .adapters.native import (
        AgentObserver,
        AsyncAgentObserver,
        LoggingObserver,
        SimpleStepObserver,
        StepObserver,
        WorkflowHooks,
        WorkflowResult,
        WorkflowState,
        WorkflowStep,
    )
    from .analytics import AgentAnalytics, ToolMetrics
    from .budgets import Budget
    from .caching import CacheStats
    from .installation import Installation, install
    from .meter import Meter, default_meter
    from .pricing import CostEstimator, PriceBook, Rates
    from .replay import ReplayCache
    from .tokens import TokenCounter
    from .tracker import UsageTracker
    from .usage import AgentUsage

UsageStats = UsageRecord  # the seed documents' names for them
CostBreakdown = Cost

_LAZY = {
    "AgentAnalytics": ".analytics",
    "AgentObserver": ".adapters.native",
    "AgentUsage": ".usage",
    "AsyncAgentObserver": ".adapters.native",
    "Budget": ".budgets",
    "CacheStats": ".caching",
    "CostEstimator": ".pricing",
    "Installation": ".installation",
    "LoggingObserver": ".adapters.native",
    "Meter": ".meter",
    "PriceBook": ".pricing",
    "Rates": ".pricing",
    "ReplayCache": ".replay",
    "SimpleStepObserver": ".adapters.native",
    "StepObserver": ".adapters.native",
    "TokenCounter": ".tokens",
    "ToolMetrics": ".analytics",
    "UsageTracker": ".tracker",
    "WorkflowHooks": ".adapters.native",
    "WorkflowResult": ".adapters.native",
    "WorkflowState": ".adapters.native",
    "WorkflowStep": ".adapters.native",
    "default_meter": ".meter",
    "install": ".installation",
}

__all__ = [
    "AgentAnalytics",
    "AgentObserver",
    "AgentUsage",
    "Alert",
    "AsyncAgentObserver",
    "Attempt",
    "Budget",
    "BudgetError",
    "BudgetExceeded",
    "CacheStats",
    "Call",
    "Cost",
    "CostBreakdown",
    "CostEstimator",
    "CostStatus",
    "Denial",
    "Installation",
    "Kind",
    "LoggingObserver",
    "Meter",
    "MeterError",
    "Model",
    "PluginError",
    "PriceBook",
    "PriceError",
    "Rates",
    "ReplayCache",
    "RunRecord",
    "SimpleStepObserver",
    "Status",
    "StepObserver",
    "StoreError",
    "TokenCounter",
    "TokenUsage",
    "ToolMetrics",
    "ToolRecord",
    "UnknownModel",
    "UsageRecord",
    "UsageStats",
    "UsageTracker",
    "WorkflowHooks",
    "WorkflowResult",
    "WorkflowState",
    "WorkflowStep",
    "__version__",
    "default_meter",
    "hookimpl",
    "install",
]

__getattr__, __dir__ = front_door(globals(), _LAZY)
