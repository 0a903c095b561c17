"""Budgets that several meters, processes and restarts share, in the ledger's file or in one of their own."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.budgets.test_budgets import GPT, until_denied

from agent_meter import Budget, BudgetExceeded, Call, Kind, Meter, Status, TokenUsage
from agent_meter.budgets import plugin
from agent_meter.budgets.sqlite import SqliteEngine
from agent_meter.records import Reserve
from agent_meter.testing import RecordingPlugin

CENT = TokenUsage(1000, 750)


ALL = ["ledger", "sqlite", "postgres", "postgres-ledger", "redis"]
everywhere = pytest.mark.parametrize("where", ALL, indirect=True)
in_files = pytest.mark.parametrize("where", ["ledger", "sqlite"], indirect=True)
each_kind = pytest.mark.parametrize("where", ["ledger", "postgres-ledger", "redis"], indirect=True)


def held(meter: Meter, **options: Any) -> Call:
    call = Call(Kind.LLM, model=GPT, **options)
    call.reserve = Reserve(1000, 750)
    return meter.open(call)


@everywhere
def test_two_meters_share_a_limit_and_a_third_finds_what_they_used(where: dict[str, Any]) -> None:
    budgets = [Budget("x", usd="0.10", per="total")]
    with Meter(budgets=budgets, **where) as one, Meter(budgets=budgets, **where) as two:
        calls = 0
        for meter in (one, two) * 10:
            try:
                meter.close(held(meter), CENT)
                calls += 1
            except BudgetExceeded:
                pass
        one.flush()
        two.flush()
        assert (calls, one.budgets.status("x").used, two.budgets.status("x").reserved) == (10, Decimal("0.10"), 0)

    with Meter(budgets=budgets, **where) as three:
        assert until_denied(three)[0] == 0


@everywhere
def test_alerts_come_once_whoever_crosses_the_threshold(where: dict[str, Any]) -> None:
    told = RecordingPlugin()
    budgets = [Budget("x", usd="0.10", per="total")]
    for number in range(4):
        with Meter([told], budgets=budgets, **where) as meter:
            until_denied(meter, 2 + number % 2)

    assert [str(alert) for alert in told.alerts] == [
        "x: 50% of budget used ($0.05)",
        "x: 80% of budget used ($0.08)",
        "x: 100% of budget used ($0.10)",
    ]


def test_what_is_settled_is_in_the_ledgers_transaction(tmp_path: Path) -> None:
    path = tmp_path / "meter.db"
    with Meter(budgets=[Budget("x", usd=1, per="total")], store=path) as meter:
        meter.close(held(meter), TokenUsage(400, 100))
        meter.record_usage(model="gpt-4o", provider="openai", input_tokens=400, output_tokens=100)
        meter.flush()
        with sqlite3.connect(path) as db:
            ((used, reserved),) = db.execute("SELECT used, reserved FROM budget_counter").fetchall()
            ((holds,),) = db.execute("SELECT COUNT(*) FROM budget_hold").fetchall()

        assert (used, reserved, holds) == (4 * 10**9, 0, 0)
        assert meter.usage.cost_usd == Decimal("0.004")
        assert meter.health()["budgets"]["unsettled"] == 0


@everywhere
def test_a_call_that_is_given_up_and_answers_late_is_corrected(where: dict[str, Any]) -> None:
    with Meter(budgets=[Budget("x", usd=1, per="total")], **where) as meter:
        call = held(meter)
        meter.expire(older_than=0)
        meter.flush()
        assert meter.budgets.status("x").used == Decimal("0.01")

        meter.close(call, TokenUsage(400, 100))
        meter.flush()

        assert (meter.budgets.status("x").used, meter.budgets.status("x").reserved) == (Decimal("0.002"), 0)


@everywhere
def test_what_a_person_sets_in_the_store_goes_before_the_code(where: dict[str, Any]) -> None:
    with Meter(budgets=[Budget("x", requests=1, per="total")], **where) as meter:
        assert until_denied(meter)[0] == 1
        with Meter(**where) as person:
            person.budgets.engine.keep("x", "set", '{"name": "x", "requests": 3, "per": "total"}')
        meter.budgets.look_up()

        assert until_denied(meter)[0] == 2
        assert meter.budgets.engine.kept("code") == {
            "x": '{"name": "x", "requests": 1, "per": "total"}',
        }
        meter.budgets.remove("x")
        assert len(meter.budgets) == 0


@in_files
def test_a_budget_in_the_store_that_nobody_can_read_changes_nothing(where: dict[str, Any]) -> None:
    with Meter(budgets=[Budget("x", requests=1)], **where) as meter:
        meter.budgets.engine.keep("y", "set", '{"name": "y", "colour": ["red"]}')
        meter.budgets.engine.keep("z", "set", '{"name": "z"}')
        meter.budgets.look_up()

        assert [budget.name for budget in meter.budgets] == ["x"]
        assert meter.health()["failures"]["budgets"] == {"look up": 2}


@everywhere
async def test_async_code_asks_a_shared_budget_without_holding_up_its_loop(where: dict[str, Any]) -> None:
    with Meter(budgets=[Budget("x", usd="0.02", per="total")], **where) as meter:
        for _ in range(2):
            call = Call(Kind.LLM, model=GPT)
            call.reserve = Reserve(1000, 750)
            meter.close(await meter.aopen(call), CENT)
        with pytest.raises(BudgetExceeded):
            await meter.aopen(Call(Kind.LLM, model=GPT))

        meter.flush()
        assert meter.budgets.status("x").reserved == 0


@everywhere
def test_a_forked_child_shares_the_budget(where: dict[str, Any]) -> None:
    with Meter(budgets=[Budget("x", requests=4, per="total")], **where) as meter:
        until_denied(meter, 2)
        meter.flush()
        child = os.fork()
        if child == 0:
            try:
                calls = until_denied(meter)[0]
                meter.flush(10)
                os._exit(calls)
            finally:
                os._exit(99)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 2
        assert until_denied(meter)[0] == 0
        assert meter.budgets.status("x").used == 4


def test_a_file_that_cannot_be_had_denies_and_raises_nothing_else(tmp_path: Path) -> None:
    with Meter(budgets=[Budget("x", usd=1)], budget_engine=str(tmp_path / "budgets.db")) as meter:
        call = held(meter)
        for name in tmp_path.iterdir():
            name.unlink()
        (tmp_path / "budgets.db").mkdir()
        meter.budgets.engine.close()

        with pytest.raises(BudgetExceeded, match="cannot be read"):
            held(meter)
        assert meter.close(call, CENT).status is Status.OK
        (tmp_path / "budgets.db").rmdir()
        SqliteEngine(tmp_path / "budgets.db").close()  # it is back, and what was on its way is settled


# ---------------------------------------------------------------------------------------------------- processes


class Worker:
    """A forked process that makes calls against five limits, and says of each that it was sent."""

    def __init__(self, where: dict[str, Any], calls: int, limit: str) -> None:
        self._hear, say = os.pipe()
        wait, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.read(wait, 1)
                self._work(where, calls, limit, say)
                code = 0
            finally:
                os._exit(code)
        os.close(say)
        os.close(wait)

    @staticmethod
    def _work(where: dict[str, Any], calls: int, limit: str, say: int) -> None:
        plugin.HOLD_TTL = 500 if calls > 10_000 else 300_000
        of: dict[str, dict[str, str]] = {
            "day": {}, "week": {"agent": "*"}, "month": {"user": "u"}, "year": {"model": "gpt-4o"}, "total": {},
        }  # fmt: skip
        budgets = [Budget(per, usd=limit, per=per, **scope) for per, scope in of.items()]
        chance, denied = random.Random(os.getpid()), 0
        with Meter(budgets=budgets, **where) as meter:
            for _ in range(calls):
                call = Call(Kind.LLM, model=GPT)
                call.reserve, call.agent, call.user = Reserve(1000, 750), "a", "u"
                try:
                    meter.open(call)
                except BudgetExceeded:
                    denied += 1
                    if denied > 20:
                        break
                    continue
                os.write(say, b".")
                meter.close(call, TokenUsage(1000, chance.randint(1, 750)))

    def go(self) -> None:
        os.write(self._go, b"!")

    def kill_after(self, sent: int) -> None:
        while sent > 0 and (heard := os.read(self._hear, sent)):
            sent -= len(heard)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._hear)
        os.close(self._go)

    def sent(self) -> int:
        """How many calls were sent; waits for the end."""
        count = 0
        while heard := os.read(self._hear, 65536):
            count += len(heard)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._hear)
        os.close(self._go)
        assert os.waitstatus_to_exitcode(status) == 0
        return count


def check_race(where: dict[str, Any], limit: str, calls: int) -> None:
    workers = [Worker(where, calls, limit) for _ in range(8)]
    for worker in workers:
        worker.go()
    sent = sum(worker.sent() for worker in workers)

    with Meter(budgets=[Budget("total", usd=limit, per="total")], **where) as meter:
        status = meter.budgets.status("total")
        assert Decimal(limit) - Decimal("0.01") < status.used <= Decimal(limit)  # unused: less than one estimate
        assert status.reserved == 0
        if "store" in where:
            assert meter.usage.cost_usd == status.used
            assert meter.usage.requests == sent


def check_kills(where: dict[str, Any], kills: int) -> None:
    with Meter(**where):
        pass
    for number in range(kills):
        workers = [Worker(where, 100_000, "1000") for _ in range(2)]
        for worker in workers:
            worker.go()
        for worker in workers:
            worker.kill_after(20 + number % 7)

    with Meter(budgets=[Budget("total", usd="1000", per="total")], **where) as meter:
        time.sleep(0.6)
        meter.budgets.engine.expire()
        status = meter.budgets.status("total")
        assert status.reserved == 0
        assert status.used > Decimal("0.05") * kills
        if meter.store is not None:
            store: Any = meter.store
            with store.transaction() as db:
                ((charged,),) = db.execute("SELECT COUNT(*) FROM budget_hold WHERE charged IS NOT NULL").fetchall()
            cost = meter.usage.cost_usd
            assert cost is not None
            # Exactly: the ledger, and a cent for each call that was held when its process died.
            assert status.used == cost + charged * Decimal("0.01")


@each_kind
@pytest.mark.timeout(120)
def test_eight_processes_never_pass_a_limit_and_use_nearly_all_of_it(where: dict[str, Any]) -> None:
    check_race(where, "0.50", 200)


@each_kind
@pytest.mark.timeout(120)
def test_what_a_killed_process_held_is_charged_and_nothing_stays_held(where: dict[str, Any]) -> None:
    check_kills(where, 2)


@everywhere
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_eight_processes_with_a_thousand_calls_each(where: dict[str, Any]) -> None:
    check_race(where, "20.00", 1000)


@everywhere
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_kills(where: dict[str, Any]) -> None:
    check_kills(where, 50)  # of two processes each
