"""What calls cost: rate cards in integer pico-dollars, the price book that finds them, and the estimator.

Importing this package imports no price list; the first model that has to be looked up does.
"""

from __future__ import annotations

from ..errors import PriceError, UnknownModel
from .book import PriceBook
from .cards import Line, Price, RateCard
from .estimator import CostEstimator, ModelInfo, calculate_cost, calculate_embedding_cost, model_info
from .rates import Rates

__all__ = [
    "CostEstimator",
    "Line",
    "ModelInfo",
    "Price",
    "PriceBook",
    "PriceError",
    "RateCard",
    "Rates",
    "UnknownModel",
    "calculate_cost",
    "calculate_embedding_cost",
    "model_info",
]
