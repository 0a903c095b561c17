"""A ledger for the commands: the same records whenever it is made, around 30 March 2026."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_meter import Meter, TokenUsage
from agent_meter.records import ABANDONED, Call, Kind, Model
from agent_meter.testing import FakeClock

DAY = datetime(2026, 3, 30, tzinfo=UTC)


def make(path: Path) -> Path:
    """Three days, three agents, two users, a replay, an unpriced model, tools, a run with a step, a denied call."""
    clock = FakeClock(DAY + timedelta(hours=9))
    with Meter(store=str(path), clock=clock) as meter:
        number = iter(range(1, 1000))

        def id_of() -> str:
            n = next(number)
            return f"01a20000-0000-7{n:03d}-8000-{n:012d}"

        for day in range(3):
            at = DAY + timedelta(days=day, hours=10)
            for agent, model, provider, into, out, user in (
                ("researcher", "gpt-4o", "openai", 12_000, 900, "ada"),
                ("researcher", "claude-sonnet-4-5", "anthropic", 40_000, 2_100, "ada"),
                ("writer", "gpt-4o-mini", "openai", 8_000, 3_000, "bob"),
            ):
                meter.record_usage(
                    model=model, provider=provider, input_tokens=into * (day + 1), output_tokens=out,
                    cache_read_tokens=into // 2, agent=agent, user=user, session=f"s{day}", duration=1.5,
                    started_at=at, id=id_of(), tools=("search",) if agent == "researcher" else (), team="red",
                )  # fmt: skip
            meter.record_tool_call(
                "search", day != 1, 0.25 * (day + 1), {"q": "secret"}, started_at=at, agent="researcher",
                error_type=None if day != 1 else "TimeoutError",
            )  # fmt: skip
        meter.record_usage(
            model="gpt-4o", provider="openai", input_tokens=12_000, output_tokens=900, agent="researcher", user="ada",
            cached=True, started_at=DAY + timedelta(days=2, hours=11), id=id_of(),
        )  # fmt: skip
        meter.record_usage(
            model="acme-1", provider="acme", input_tokens=500, output_tokens=20, agent="triage",
            started_at=DAY + timedelta(days=2, hours=11), id=id_of(),
        )  # fmt: skip
        with meter.run("nightly", agent="writer") as run:
            with run.step("draft") as step, step.llm("gpt-4o-mini", provider="openai") as call:
                call.finish(TokenUsage(1_000, 200))
            with run.llm("gpt-4o-mini", provider="openai") as call:
                call.finish(TokenUsage(600, 60))
        late = meter.open(Call(Kind.LLM, model=Model("openai", "gpt-4o")))
        meter.close(late, status=ABANDONED)
        meter.close(late, TokenUsage(700, 30))
        meter.flush()
    return path
