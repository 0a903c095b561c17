"""Admitting from async code: what must wait waits with `await`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from .budget import WAIT

if TYPE_CHECKING:
    from ..records import Call, Denial
    from .matching import Line
    from .plugin import Budgets

FIRST, LONGEST = 0.001, 0.05  # seconds between two looks


async def admit(budgets: Budgets, call: Call, lines: tuple[Line, ...]) -> Denial | None:
    started, pause, asked = time.monotonic(), FIRST, False
    while True:
        denial = await _attempt(budgets, call, lines)
        if denial is None:
            return None
        budget = budgets.get(denial.budget)
        if budget is not None and budget.mode == WAIT:
            left = started + budget.timeout - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, pause))
                pause = min(LONGEST, pause * 2)
                continue
        if not asked and budget is not None and budget.on_exceed is not None:
            asked = True
            if await asyncio.to_thread(budgets.ask, budget, call, denial):
                lines = budgets.lines(call)
                continue
        budgets.count_denied(denial)
        return denial


async def _attempt(budgets: Budgets, call: Call, lines: tuple[Line, ...]) -> Denial | None:
    if not budgets.engine.blocking:
        return budgets.attempt(call, lines)
    trying = asyncio.get_running_loop().run_in_executor(None, budgets.attempt, call, lines)
    try:
        return await asyncio.shield(trying)
    except asyncio.CancelledError:
        # The thread goes on: what it holds is for a call that will never be made.
        trying.add_done_callback(lambda _: budgets.release(call.id))
        raise
