"""LangChain and LangGraph: `agent.invoke(question, {"callbacks": [MeterCallback(meter)]})`.

This adapter can refuse a call: a denied model or tool call is never made, and the caller sees `BudgetExceeded`.
"""

from .attach import metering
from .callback import MeterCallback

__all__ = ["MeterCallback", "metering"]
