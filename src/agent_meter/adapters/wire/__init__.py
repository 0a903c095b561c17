"""Transport taps: what a provider really answered, joined to the call that a framework announced.

This adapter can refuse a call, where no framework announced it: before it is sent. Three ways to switch it on:
`meter.wrap(client)`, `MeterCallback(meter, wire=True)` and the like, `agent_meter.install(wire=True)`.

    from agent_meter.adapters.wire import switch_on

    with switch_on(meter): ...     # for a while
    keep_on(meter)                  # what every adapter's `wire=True` does: until the meter is shut down
"""

from __future__ import annotations

from .endpoints import add_endpoint
from .switching import Switch, keep_on, switch_on
from .wrapping import unwrap, wrap

__all__ = ["Switch", "add_endpoint", "keep_on", "switch_on", "unwrap", "wrap"]
