"""Records as a meter makes them: of every kind, priced and unpriced, replayed, failed, corrected, hostile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from agent_meter import Meter, TokenUsage
from agent_meter.records import ABANDONED, Call, Kind, Model, Record
from agent_meter.testing import FakeClock, RecordingPlugin

START = datetime(2026, 3, 30, 22, 30, tzinfo=UTC)
HOSTILE = '=HYPERLINK("http://x","y")\r\n<b>"'


def fill(meter: Meter) -> None:
    """One of everything."""
    meter.record_usage(
        model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=100, cache_read_tokens=200,
        agent="researcher", user="ada", session="s1", duration=0.5, started_at=START, tenant="acme",
    )  # fmt: skip
    meter.record_usage(
        model="claude-sonnet-4-5", provider="anthropic", input_tokens=3000, output_tokens=70, cache_write_tokens=500,
        cache_write_1h_tokens=100, units={"web_searches": 2}, agent=HOSTILE, user="bob",
        started_at=START + timedelta(hours=3), duration=2.5,
    )  # fmt: skip
    meter.record_usage(model="acme-unknown", provider="acme", input_tokens=10, output_tokens=1, started_at=START)
    meter.record_usage(
        model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=100, cached=True, started_at=START
    )
    meter.record_usage(
        model="text-embedding-3-small", provider="openai", input_tokens=333, kind="embedding", started_at=START
    )
    meter.record_usage(model="llama3.2:latest", provider="ollama", input_tokens=5, output_tokens=5, started_at=START)
    meter.record_tool_call(
        "search", True, 0.25, {"q": "secret"}, cost=0.01, chunk_count=3, started_at=START, agent="researcher"
    )
    meter.record_tool_call("search", False, 0.5, {"q": "secret"}, error_type="TimeoutError", started_at=START)
    with meter.run("nightly", agent="researcher") as run:
        with run.step("think") as step, step.llm("gpt-4o-mini", provider="openai") as call:
            call.finish(TokenUsage(50, 5))
        with run.llm("gpt-4o-mini", provider="openai") as call:
            call.finish(TokenUsage(60, 6))
    late = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o")))
    meter.close(late, status=ABANDONED)
    meter.close(late, TokenUsage(7, 3))


def records() -> tuple[list[Record], Meter]:
    """What was recorded, each record in its last version as a store gives it, and the meter that counted it."""
    plugin = RecordingPlugin()
    meter = Meter([plugin], clock=FakeClock(START))
    fill(meter)
    latest: dict[str, Record] = {}
    for record in plugin.records:
        latest[record.id] = record
    return list(latest.values()), meter


def many(number: int) -> Iterator[Record]:
    """So many records, one after another, without keeping any."""
    found, _ = records()
    for index in range(number):
        yield found[index % len(found)]
