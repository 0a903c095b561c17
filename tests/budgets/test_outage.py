"""A store that goes away and comes back: hard budgets refuse meanwhile, and nothing is lost or left held."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.budgets.proxy import Proxy
from tests.budgets.test_shared import CENT, held

from agent_meter import Budget, BudgetExceeded, Meter, Status


@pytest.fixture(params=["redis_url", "postgres_url"])
def behind(request: pytest.FixtureRequest) -> Iterator[tuple[Proxy, str]]:
    """A way to a real server, and the URL that goes this way."""
    parts = urlsplit(request.getfixturevalue(request.param))
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    user = f"{parts.username}@" if parts.username else ""
    yield proxy, urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}"))
    proxy.close()


def test_it_refuses_while_the_store_is_away_and_settles_when_it_is_back(behind: tuple[Proxy, str]) -> None:
    proxy, url = behind
    meter = Meter(budgets=[Budget("x", usd=1, per="total")], budget_engine=url)
    before, during = held(meter), held(meter)
    meter.close(before, CENT)
    meter.flush()
    proxy.cut()

    with pytest.raises(BudgetExceeded, match=r"budget x: it cannot be read \(StoreError\)"):
        held(meter)
    assert meter.close(during, CENT).status is Status.OK
    assert meter.health()["budgets"]["unsettled"] == 1
    assert meter.health()["failures"]["budgets"]["meter_admit_call"] == 1
    proxy.mend()
    meter.flush(20)

    meter.close(held(meter), CENT)
    meter.flush(20)
    status = meter.budgets.status("x")
    assert (status.used, status.reserved) == (Decimal("0.03"), 0)
    assert meter.health()["budgets"]["unsettled"] == 0
    meter.shutdown()


def test_a_budget_that_lets_through_on_errors_counts_what_it_let_through(behind: tuple[Proxy, str]) -> None:
    proxy, url = behind
    meter = Meter(budgets=[Budget("x", usd=1, per="total", on_error="allow")], budget_engine=url)
    meter.close(held(meter), CENT)
    meter.flush()
    proxy.cut()
    call: Any = held(meter)
    meter.close(call, CENT)
    proxy.mend()
    meter.flush(20)

    assert meter.budgets.status("x").used == Decimal("0.02")
    meter.shutdown()
