"""The end of a task, for runs that have no other: cancelled, timed out, or left in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..records import ABANDONED, CANCELLED, Status


def when_task_ends(told: Callable[[Status], None]) -> Callable[[], None] | None:
    """Call `told` at the end of the current task. Returns what calls that off, or None where there is no task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    if task is None:
        return None

    def ended(task: asyncio.Task[object]) -> None:
        told(CANCELLED if task.cancelled() else ABANDONED)

    def unwatch() -> None:
        task.remove_done_callback(ended)

    task.add_done_callback(ended)
    return unwatch
