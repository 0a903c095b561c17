"""Memory is bounded, however many different parameters, users and tasks come; and the summary stays quick.

A short form runs always; the long one, at the size that is promised, with `make soak`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

# In an interpreter of its own, so that nothing else grows meanwhile. Memory is what the process holds, in MB.
PROGRAM = textwrap.dedent("""
    import gc, json, os, resource, sys, time
    from agent_meter import Meter

    calls, users = int(sys.argv[1]), int(sys.argv[2])

    def held():
        gc.collect()
        try:
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        except OSError:  # not Linux: the most that it has ever held
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return most / (1e6 if sys.platform == "darwin" else 1e3)

    def tool_calls(first, last):
        for number in range(first, last):
            meter.record_tool_call(
                f"tool {number % 10}",
                number % 7 > 0,
                number % 100 / 1000,
                {"query": f"a text that comes once, {number}", "page": number, "filter": {"id": number}},
                user=f"user {number % users}",
                task=f"task {number % users}" if number % 2 else "",
            )

    def quickest(ask):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)
        return min(times) * 1000

    meter = Meter()
    tool_calls(0, 100)
    meter.record_usage(model="gpt-4o", input_tokens=1)
    str(meter.usage), meter.analytics.summary(), meter.usage_by("user")

    start = held()
    tool_calls(100, calls // 2)
    half = held()
    tool_calls(calls // 2, calls)
    tools = held()
    for number in range(users):
        meter.record_usage(model="gpt-4o", input_tokens=300, output_tokens=500, user=f"user {number}")
    everything = held()

    summary = meter.analytics.summary()
    by_user = meter.usage_by("user")
    print(json.dumps({
        "half": half - start,
        "tools": tools - start,
        "everything": everything - start,
        "summary_ms": quickest(meter.analytics.summary),
        "usage_ms": quickest(lambda: str(meter.usage)),
        "calls": sum(one.total_calls for one in meter.analytics.get_all_metrics().values()),
        "distinct": meter.analytics.get_metrics("tool 3").distinct("query"),
        "requests": meter.usage.requests,
        "keys": len(by_user),
        "by_user": sum(one.requests for one in by_user.values()),
        "by_user_tools": sum(sum(one.tool_usage.values()) for one in by_user.values()),
        "lines": len(summary.splitlines()),
    }))
""")


def measured(calls: int, users: int) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(calls), str(users)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    figures: dict[str, Any] = json.loads(run.stdout)
    print(figures)
    return figures


def assert_bounded(figures: dict[str, Any], calls: int, users: int) -> None:
    assert figures["tools"] < 20
    assert figures["everything"] < 30  # with a full history of 10,000 records beside
    assert figures["summary_ms"] < 50
    assert (figures["calls"], figures["requests"]) == (calls, users + 1)
    assert (figures["by_user"], figures["by_user_tools"]) == (users + 1, calls)
    assert figures["keys"] == 10_002  # "(other)" and the one call that nobody made
    assert abs(figures["distinct"] - calls / 10) < 0.12 * calls / 10
    assert figures["lines"] < 200


def test_unique_parameters_and_users_do_not_grow_the_meter() -> None:
    """100,000 calls of 25,000 users: the second half of the calls needs next to nothing more."""
    figures = measured(100_000, 25_000)

    assert_bounded(figures, 100_000, 25_000)
    assert figures["tools"] - figures["half"] < 2


@pytest.mark.soak
def test_a_million_calls_of_a_hundred_thousand_users_stay_below_20_mb() -> None:
    figures = measured(1_000_000, 100_000)

    assert_bounded(figures, 1_000_000, 100_000)
    assert figures["tools"] - figures["half"] < 3
