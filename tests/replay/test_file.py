"""Answers in a file: what can be written, who may read it, and what survives."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from anthropic import Anthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from agent_meter import Meter, ReplayCache, StoreError, TokenUsage, UsageRecord
from agent_meter.records import FrozenMap
from agent_meter.replay import codec
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
USED = TokenUsage(1000, 100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


def test_an_answer_and_its_usage_outlive_the_cache(path: Path) -> None:
    record = Meter().record_usage(
        model="gpt-4o",
        provider="openai",
        input_tokens=1000,
        cache_read_tokens=600,
        output_tokens=100,
        units={"web_searches": 2, "seconds": Decimal("1.5")},
        context={"service_tier": "flex"},
        response_model="gpt-4o-2024-08-06",
        tools=("search",),
        user="ada",
    )
    ReplayCache(path=path).set("k", {"text": "Hello"}, usage=record)
    meter = Meter()
    again = ReplayCache(path=path, meter=meter)

    assert again.get("k") == {"text": "Hello"}
    replay = meter.history()[0]
    assert (replay.cached, replay.usage, replay.response_model) == (True, record.usage, "gpt-4o-2024-08-06")
    assert (replay.tools, replay.user) == (("search",), "")
    assert (replay.cost_usd, replay.billed_cost_usd) == (record.cost_usd, 0)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    colour: Colour = Colour.RED


class Note(BaseModel):
    text: str
    at: datetime | None = None


VALUES: list[Any] = [
    None, True, 0, 1.5, -0.0, 10**30, "text ☃ \ud800", b"\x00\xff", [1, [2]], (1, (2,)), {"a": 1}, {1: "a", (2,): None},
    {"$": "not a tag"}, {1, 2}, frozenset("ab"), datetime(2026, 1, 1, 5, tzinfo=UTC), date(2026, 1, 1),
    time_of_day(1, 2), timedelta(1, 2, 3), Decimal("1.10"), UUID(int=7),
    Note(text="a", at=datetime(2026, 1, 1, tzinfo=UTC)),
    TokenUsage(1, 2, units=FrozenMap({"seconds": Decimal("0.5")})), ("Hello", USED), Colour.RED,
    [Point(1)],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_can_be_written_comes_back_as_it_was(path: Path, value: Any) -> None:
    cache = ReplayCache(path=path)
    cache.set("k", value)
    again = cache.get("k")

    assert (again, type(again)) == (value, type(value))


def test_reading_a_dataclass_runs_no_code_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ReplayCache(path=path)
    cache.set("k", Point(1))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(Point, "__init__", never)

    assert cache.get("k").x == 1


class Local:
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [Local(), object, Text("a"), [Local()], FrozenMap({"a": 1}), range(3)])
def test_what_would_not_come_back_as_it_was_is_not_kept_and_counted(path: Path, value: Any) -> None:
    meter = Meter()
    cache = ReplayCache(path=path, meter=meter)
    cache.set("k", value)

    assert cache.size == 0
    assert "cannot be kept in a file" in meter.health()["last_errors"]["ReplayCache"]["set"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_any_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert repr(codec.loads(codec.dumps(value))) == repr(value)


def test_records_come_back_as_they_were() -> None:
    record = Meter().record_usage(model="gpt-4o", input_tokens=5, units={"seconds": Decimal("0.5")}, notes_of="x")
    (again,) = codec.load_records(codec.dump_records((record,)))

    assert isinstance(again, UsageRecord)
    assert (again.usage, again.cost, again.started_at, again.tags) == (record.usage, record.cost, record.started_at, {})
    assert hash(again) is not None


@pytest.mark.parametrize("kind", ["chat", "responses", "stream"])
def test_answers_of_openais_sdk_can_be_kept(path: Path, loopback: Loopback, kind: str) -> None:
    provider = loopback([Reply("Hello", tool_calls=[ToolCall("search", {"q": "x"})])])
    client = OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    meter, answers = Meter(), []
    for _ in range(2):  # a new cache each time, as another process would have
        cache = ReplayCache(path=path)
        if kind == "responses":
            create: Any = cache.replayed(meter)(client.responses.create)
            answers.append(create(model="gpt-4o", input="Hi"))
        else:
            create = cache.replayed(meter)(client.chat.completions.create)
            messages = [{"role": "user", "content": "Hi"}]
            answer = create(model="gpt-4o", messages=messages, stream=kind == "stream")
            answers.append(list(answer) if kind == "stream" else answer)

    assert (meter.health()["failures"], len(provider.requests)) == ({}, 1)
    if kind == "stream":
        first, second = answers
        assert [chunk.to_dict() for chunk in first] == [chunk.to_dict() for chunk in second]
    else:
        assert answers[0].to_dict() == answers[1].to_dict()


def test_answers_of_anthropics_sdk_can_be_kept(path: Path, loopback: Loopback) -> None:
    provider = loopback([Reply("Hello", tool_calls=[ToolCall("search", {"q": "x"})])])
    client = Anthropic(base_url=provider.anthropic_base_url, api_key="none", max_retries=0)
    create = ReplayCache(path=path).replayed(Meter())(client.messages.create)
    first, second = (
        create(model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "Hi"}]) for _ in "ab"
    )

    assert (first.to_dict(), len(provider.requests)) == (second.to_dict(), 1)


def test_an_answer_that_is_not_quite_as_the_sdk_describes_it_can_be_kept(path: Path) -> None:
    from openai.types.chat import ChatCompletion

    odd = ChatCompletion.construct(id="1", model="m", choices=[{"finish_reason": "eos", "odd": 1}], created="now")
    cache = ReplayCache(path=path)
    cache.set("k", odd)

    assert cache.get("k").to_dict(warnings=False) == odd.to_dict(warnings=False)


async def test_a_file_does_not_stop_the_event_loop(path: Path, loopback: Loopback) -> None:
    provider, meter, cache = loopback([Reply("Hello!")]), Meter(), ReplayCache(path=path)
    async with AsyncOpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0) as client:
        create = cache.replayed(meter)(client.chat.completions.create)
        await asyncio.gather(*(create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]) for _ in range(20)))

    assert (len(provider.requests), cache.stats.hits) == (1, 19)


# --------------------------------------------------------------------------------------------- strange files


def test_a_file_that_is_no_database_is_an_error_at_once(path: Path) -> None:
    path.write_text("This is no database, and long enough to be told from one. " * 20)

    with pytest.raises(StoreError, match=r"cannot keep answers: file is not a database"):
        ReplayCache(path=path)


@pytest.mark.parametrize(
    "answer",
    [
        '{"$":"dataclass","t":"tests.nowhere:Point","v":{}}',
        '{"$":"dataclass","t":"agent_meter.meter:Meter","v":{}}',
        '{"$":"enum","t":"agent_meter.meter:Meter","v":1}',
        '{"$":"model","t":"agent_meter.meter:Meter","v":{}}',
        "{",
        '{"$":"model","t":"os:system","v":{}}',
        '{"$":"pickle","v":""}',
        '{"$":"model","t":"nowhere:Note","v":{}}',
    ],
)
def test_an_entry_that_cannot_be_read_is_a_miss_and_counted(path: Path, answer: str) -> None:
    meter = Meter()
    cache = ReplayCache(path=path, meter=meter)
    cache.set("k", 1)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE agent_meter_answers_1 SET answer = ?", (answer,))

    assert (cache.get("k"), cache.stats.misses) == (None, 1)
    assert meter.health()["failures"] == {"ReplayCache": {"get": 1}}


def test_a_database_that_breaks_later_stops_nobodys_run(path: Path) -> None:
    meter = Meter()
    cache = ReplayCache(path=path, meter=meter)

    @cache.replayed(model="gpt-4o")
    def ask(question: str) -> Any:
        return question, USED

    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE agent_meter_answers_1")

    assert [ask("Hi"), ask("Hi")] == [("Hi", USED)] * 2
    assert meter.usage.api_calls == 2
    assert meter.health()["failures"]["ReplayCache"]["set"] == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
def test_nobody_else_can_read_the_file(path: Path) -> None:
    ReplayCache(path=path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_another_program_uses_as_well_is_left_in_peace(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.execute("PRAGMA user_version = 7")
    cache = ReplayCache(path=path)
    cache.set("k", 1)
    cache.clear()

    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)


# --------------------------------------------------------------------------------- threads, processes, kills

WRITER = """
import sys
from agent_meter import ReplayCache
cache = ReplayCache(0, None, path=sys.argv[1])
for number in range(int(sys.argv[3])):
    cache.set(f"{sys.argv[2]}-{number}", {"number": number, "text": "x" * 2000})
    print(number, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True)


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    process = writer(path, "a", 100_000)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 200:
            break
    process.send_signal(signal.SIGKILL)
    acknowledged = max(200, *(int(line) for line in process.stdout.read().split()[:-1] or ["200"]))
    process.wait(10)
    cache = ReplayCache(0, None, path=path)

    assert [cache.get(f"a-{number}")["number"] for number in range(acknowledged + 1)] == list(range(acknowledged + 1))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_processes_and_threads_share_a_file(path: Path) -> None:
    cache = ReplayCache(0, None, path=path)
    processes = [writer(path, name, 100) for name in "ab"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: cache.set(f"c-{number}", number), range(100)))
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [len(output.split()) for output in outputs] == [100, 100]
    assert (cache.size, cache.get("a-99")["number"], cache.get("c-99")) == (300, 99, 99)


def test_another_process_uses_what_this_one_has_used(path: Path) -> None:
    cache = ReplayCache(2, path=path)
    cache.set("a", 1)
    cache.set("b", 2)
    program = "import sys; from agent_meter import ReplayCache; print(ReplayCache(2, path=sys.argv[1]).get('a'))"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
    cache.set("c", 3)

    assert [cache.get(key) for key in "abc"] == [1, None, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_opens_the_file_anew(path: Path) -> None:
    cache = ReplayCache(path=path)
    cache.set("a", 1)
    child = os.fork()
    if child == 0:
        cache.set("b", 2)
        os._exit(0 if cache.get("a") == 1 else 1)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert (ended[1], cache.get("a"), cache.get("b")) == (0, 1, 2)
