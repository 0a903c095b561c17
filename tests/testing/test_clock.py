from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent_meter.testing import FakeClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    before = (clock.now(), clock.monotonic())

    assert (clock.now(), clock.monotonic()) == before
    clock.advance(90)
    assert (clock.now() - before[0], clock.monotonic() - before[1]) == (timedelta(seconds=90), 90.0)


def test_ten_tenths_of_a_second_are_a_second_exactly() -> None:
    clock = FakeClock()

    for _ in range(10):
        clock.advance(0.1)

    assert clock.monotonic() == 1.0
    assert clock.now() == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_now_is_aware_and_in_utc_wherever_the_clock_starts() -> None:
    clock = FakeClock(datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=2))))

    assert clock.now().tzinfo is UTC
    assert clock.now() == datetime(2026, 3, 28, 23, 30, tzinfo=UTC)


def test_a_naive_start_is_refused() -> None:
    with pytest.raises(ValueError, match="aware datetime"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("step", [-1, -0.001, float("nan")])
def test_a_step_back_is_refused_and_moves_nothing(step: float) -> None:
    clock = FakeClock()

    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(step)
    assert clock.monotonic() == 0.0


def test_no_step_is_lost_between_threads() -> None:
    clock = FakeClock()

    def walk() -> None:
        for _ in range(1000):
            clock.advance(0.001)

    threads = [threading.Thread(target=walk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock.monotonic() == 8.0
