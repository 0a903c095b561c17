"""The hooks, in the order in which a call meets them.

A plugin is any object (or module) with functions named like these, marked `@hookimpl`. Hooks are synchronous,
take one noun, and do no I/O on the caller's path. What a plugin raises never reaches the user's run
(`Meter(strict=True)` lets it): it is logged and counted in `meter.health()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .meter import Meter
    from .records import Alert, Call, Denial, Model, Rates, Record

hookspec = pluggy.HookspecMarker("agent_meter")
hookimpl = pluggy.HookimplMarker("agent_meter")


@hookspec(historic=True)
def meter_startup(meter: Meter) -> None:
    """The meter is ready: open what you need. A plugin registered later is told at once. May raise."""


@hookspec
def meter_tag_call(call: Call) -> Mapping[str, str] | None:
    """Whose call is this? Return what you know: agent, task, user, session, step, or tags of your own.

    All answers are merged; they fill what nobody has said yet and overwrite nothing.
    """


@hookspec(firstresult=True)
def meter_admit_call(call: Call) -> Denial | None:
    """May it go ahead? Return a `Denial` to stop a model or tool call before it is made; the first one counts."""


@hookspec
def meter_call_opened(call: Call) -> None:
    """An admitted call is on its way. Also runs and steps, which nobody admits."""


@hookspec(firstresult=True)
def meter_find_rates(model: Model) -> Rates | None:
    """What does it cost? Return the `Rates` of a model you know. The answer is kept per model."""


@hookspec
def meter_record(record: Record) -> None:
    """Here is a finished call, exactly one for each that was opened; `record.kind` says of what kind."""


@hookspec
def meter_alert(alert: Alert) -> None:
    """A threshold was crossed."""


@hookspec
def meter_shutdown() -> None:
    """Flush and close."""
