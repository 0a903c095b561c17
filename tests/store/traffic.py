"""Records as meters make them, of every kind and every way to end."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal

from agent_meter import BudgetExceeded, Denial, Meter, TokenUsage, hookimpl
from agent_meter.records import FrozenMap, Record, Status
from agent_meter.testing import FakeClock, RecordingPlugin

START = datetime(2026, 11, 19, 22, 30, tzinfo=UTC)
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("acme", "nobody-knows-it"),
)


class _Moody:
    """Denies now and then."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    @hookimpl
    def meter_admit_call(self, call):
        return Denial("not today") if self.chance.random() < 0.05 else None


def metered(calls: int = 300, seed: int = 7, start: datetime = START, **options) -> tuple[Meter, list[Record]]:
    """A meter that has seen some traffic over two days, and all its records in the order in which they ended."""
    chance = random.Random(seed)
    seen, clock = RecordingPlugin(), FakeClock(start)
    meter = Meter([seen, _Moody(chance)], clock=clock, **options)
    while len(seen.records) < calls:
        clock.advance(chance.randrange(1, 1200))
        who = {
            "agent": chance.choice(["planner", "writer", ""]),
            "user": chance.choice(["u1", "u2", "ü3"]),
            "session": f"s{chance.randrange(9)}",
            "task": chance.choice(["", "t1"]),
            "team": chance.choice(["red", "blue"]),
        }
        try:
            with meter.scope(**{name: value for name, value in who.items() if value}):
                _run(meter, clock, chance)
        except (BudgetExceeded, KeyError):
            pass
    return meter, list(seen.records)


def _run(meter: Meter, clock: FakeClock, chance: random.Random) -> None:
    with meter.run("answer") as run:
        for _ in range(chance.randrange(1, 4)):
            with run.step() as step:
                provider, model = chance.choice(MODELS)
                with step.llm(model, provider=provider) as call:
                    clock.advance(chance.random() * 3)
                    if chance.random() < 0.1:
                        raise KeyError("the provider hung up")
                    call.finish(_usage(chance))
                with step.tool("search", {"q": "what was asked"}):
                    clock.advance(chance.random())
                    if chance.random() < 0.3:
                        with meter.llm("text-embedding-3-small", provider="openai", kind="embedding") as call:
                            call.finish(TokenUsage(chance.randrange(1, 500)))
        meter.record_usage(
            model=model, provider=provider, input_tokens=1000, output_tokens=10, cached=chance.random() < 0.3,
            tools=tuple(chance.choices(["search", "fetch"], k=chance.randrange(3))),
            status=chance.choice([Status.OK, Status.ERROR]),
        )  # fmt: skip
        if chance.random() < 0.5:
            with meter.run("helper", agent="helper"):
                meter.record_usage(model=model, provider=provider, input_tokens=5, output_tokens=5)


def _usage(chance: random.Random) -> TokenUsage:
    given = chance.randrange(10, 5000)
    units = FrozenMap(seconds=Decimal("1.25"), web_searches=1) if chance.random() < 0.2 else FrozenMap()
    return TokenUsage(given, chance.randrange(1, 900), given // 3, given // 7, given // 9, 1, units=units)
