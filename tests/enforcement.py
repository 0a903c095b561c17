"""What every front end owes a budget: a refused call is one denied record, and nothing stays held."""

from __future__ import annotations

import time

from agent_meter import Meter, Status


def refused(meter: Meter) -> int:
    """How many calls were refused: one denied record each, all of them closed, and nothing held any more."""
    until = time.monotonic() + 5
    while meter.health()["open_calls"] and time.monotonic() < until:
        time.sleep(0.01)  # what runs beside a refused call ends on a thread or a task of its own
    assert meter.health()["open_calls"] == 0
    assert meter.health()["budgets"]["held"] == 0
    assert [status for status in meter.budgets.status() if status.reserved] == []
    denied = [record for record in meter.history(include_denied=True) if record.status is Status.DENIED]
    assert len(denied) == meter.usage.denied_requests
    assert len({record.id for record in denied}) == len(denied)
    return len(denied)
