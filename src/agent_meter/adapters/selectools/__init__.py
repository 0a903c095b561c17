"""selectools: an observer that tells whose calls they are, and a provider that can refuse them.

    meter = Meter()
    provider = MeteredProvider(OpenAIProvider(), meter)
    agent = Agent(tools, provider=provider, config=AgentConfig(observers=[MeterObserver(meter)]))

An observer alone cannot refuse a call: selectools swallows what observers raise. Either works without the other, and
together they count each call once. Nothing here imports selectools.
"""

from __future__ import annotations

from .observer import MeterObserver
from .provider import MeteredProvider

__all__ = ["MeterObserver", "MeteredProvider"]
