"""What can be done about a denial: a person who is asked, a maximum for answers that have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain.agents.middleware import ModelRequest
from langgraph.types import interrupt

from ...errors import BudgetExceeded
from ...meter import Meter
from ..asking import output_limit
from .flights import FRAMEWORK

# How integrations call the maximum, among the fields of their models.
_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict")


def question(error: BudgetExceeded, tool: str = "") -> dict[str, Any]:
    """What a person is shown: plain values, for they go through a checkpoint."""
    numbers = {name: getattr(error, name) for name in ("limit", "used", "reserved", "requested", "resets_at")}
    said = {name: str(value) for name, value in numbers.items() if value is not None}
    about = {"tool": tool} if tool else {}
    return {"reason": error.denial.reason, "by": error.denial.by, "budget": error.budget, **said, **about}


def ask(meter: Meter, error: BudgetExceeded, tool: str = "") -> bool:
    """Interrupt the graph; whether the person says to try again. A mapping says what to set the budget to."""
    shown = question(error, tool)
    while True:
        answer = interrupt(shown)
        if not isinstance(answer, Mapping) or not answer:
            return bool(answer)
        try:
            if error.budget is not None:
                meter.budgets.set(error.budget, **answer)
            return True
        except (TypeError, ValueError) as wrong:  # a person's typing error is no reason to end the run
            shown = {**shown, "error": str(wrong)}
        except Exception as failure:
            meter.plugins.failed(FRAMEWORK, "raise a budget", failure)
            return True


def output_limit_of(request: ModelRequest[Any]) -> int | None:
    """The most that the model may answer, by the request or by itself."""
    return output_limit(request.model_settings, getattr(request.model, "__dict__", None))


def limited(request: ModelRequest[Any], most: int, *, only_unlimited: bool = False) -> ModelRequest[Any]:
    """The request with a maximum of output tokens, where it names its own or the model has a field for it."""
    if only_unlimited and output_limit_of(request) is not None:
        return request
    settings, model = request.model_settings, request.model
    named = next((name for name in _FIELDS if settings.get(name) is not None), None)
    if named is not None:
        return request.override(model_settings={**settings, named: most})
    field = next((name for name in _FIELDS if name in type(model).model_fields), None)
    if field is None:
        return request.override(model_settings={**settings, "max_tokens": most})
    return request.override(model=model.model_copy(update={field: most}))
