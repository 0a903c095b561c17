"""The engines that every claim about engines is tested on; servers are real ones."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_meter.budgets import MemoryEngine
from agent_meter.budgets.sqlite import SqliteEngine
from agent_meter.store.sqlite import SQLiteStore
from agent_meter.testing import FakeClock

ENGINES = ["memory", "sqlite", "ledger", "postgres", "postgres-ledger", "redis"]
POSTGRES = os.environ.get("AGENT_METER_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("AGENT_METER_REDIS", "redis://127.0.0.1:6379/0")
MakeEngine = Callable[..., Any]


def _missing(what: str, error: Exception) -> None:
    if os.environ.get("CI"):
        raise error
    pytest.skip(f"{what} ({error})")


@pytest.fixture(scope="session")
def postgres_server() -> str:
    psycopg = pytest.importorskip("psycopg", reason="pip install 'agent-meter[postgres]'")
    try:
        psycopg.connect(POSTGRES, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        _missing("no PostgreSQL at AGENT_METER_POSTGRES: start one, for example `docker run postgres`", error)
    return POSTGRES


@pytest.fixture(scope="session")
def redis_server() -> str:
    redis = pytest.importorskip("redis", reason="pip install 'agent-meter[redis]'")
    try:
        redis.Redis.from_url(REDIS, socket_connect_timeout=3).ping()
    except redis.RedisError as error:
        _missing("no Redis at AGENT_METER_REDIS: start one, for example `docker run redis`", error)
    return REDIS


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty schema."""
    server = request.getfixturevalue("postgres_server")
    import psycopg

    schema = f"agent_meter_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        more = "&" if "?" in server else "?"
        yield f"{server}{more}options=-csearch_path%3D{schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server whose database 9 has no budgets in it; the fixture's own, for the time of a test."""
    from agent_meter.budgets.redis import RedisEngine

    url = request.getfixturevalue("redis_server").rpartition("/")[0] + "/9"
    RedisEngine(url).clear()
    yield url
    RedisEngine(url).clear()


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Where the budgets of a meter are: in the ledger, or beside it; in which store says the parameter."""
    kind = request.param
    if kind == "ledger":
        return {"store": str(tmp_path / "meter.db")}
    if kind == "sqlite":
        return {"budget_engine": str(tmp_path / "budgets.db")}
    if kind == "redis":
        return {"budget_engine": request.getfixturevalue("redis_url")}
    return {"store" if kind == "postgres-ledger" else "budget_engine": request.getfixturevalue("postgres_url")}


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_engine(engine_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeEngine]:
    """Makes empty engines of one kind, and closes them after the test."""
    made: list[Any] = []
    space = uuid.uuid4().hex

    def make(clock: FakeClock | None = None) -> Any:
        now: dict[str, Any] = {} if clock is None else {"now": lambda: clock.now().timestamp()}
        name = f"{len(made)}"
        if engine_name == "memory":
            engine: Any = MemoryEngine(**now)
        elif engine_name == "sqlite":
            engine = SqliteEngine(tmp_path / f"{name}.db", **now)
        elif engine_name == "ledger":
            made.append(SQLiteStore(tmp_path / f"ledger-{name}.db"))
            engine = SqliteEngine(transaction=made[-1].transaction, **now)
        elif engine_name == "redis":
            from agent_meter.budgets.redis import RedisEngine

            engine = RedisEngine(request.getfixturevalue("redis_server"), name=f"{space}-{name}", **now)
        else:
            from agent_meter.budgets.postgres import PostgresEngine
            from agent_meter.store import PostgresStore

            url = request.getfixturevalue("postgres_url")
            if engine_name == "postgres":
                engine = PostgresEngine(url, **now)
            else:
                made.append(PostgresStore(url))
                engine = PostgresEngine(transaction=made[-1].transaction, **now)
            with engine._transaction() as db:  # one schema a test
                db.execute("DELETE FROM budget_hold")
                db.execute("DELETE FROM budget_counter")
        made.append(engine)
        return engine

    yield make
    for engine in made:
        if hasattr(engine, "clear"):
            engine.clear()
        engine.close()
