"""Everybody calls at once, and the limit holds: counted at the provider, in every mode of every front end of ours."""

from __future__ import annotations

import pytest
from benchmarks.budget_race import race
from benchmarks.racers import RACERS, Racer

OURS = [racer for racer in RACERS if racer.needs == "agent_meter"]
RACES = [(racer, mode) for racer in OURS for mode in ("threads", "tasks") if mode == "threads" or racer.make_async]
RACES += [(racer, "processes") for racer in OURS if "LangChain" not in racer.name]  # those import for seconds


@pytest.mark.parametrize(("racer", "mode"), RACES, ids=[f"{racer.name}, {mode}" for racer, mode in RACES])
def test_ten_calls_of_a_cent_fit_into_ten_cents_and_hardly_fewer(racer: Racer, mode: str) -> None:
    assert 0.85 <= race(racer, mode) <= 1.0
