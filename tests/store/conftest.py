"""Stores of every kind, fresh for each test; PostgreSQL on a real server."""

import os
import uuid

import pytest

from agent_meter.store import MemoryStore, SQLiteStore

# A server where a schema can be made; each test has one of its own.
POSTGRES = os.environ.get("AGENT_METER_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@pytest.fixture(scope="session")
def postgres_server():
    psycopg = pytest.importorskip("psycopg", reason="pip install 'agent-meter[postgres]'")
    try:
        psycopg.connect(POSTGRES, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL at AGENT_METER_POSTGRES ({error}): start one, for example `docker run postgres`")
    return POSTGRES


@pytest.fixture
def postgres_url(postgres_server):
    """The address of an empty ledger."""
    import psycopg

    schema = f"agent_meter_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        more = "&" if "?" in postgres_server else "?"
        yield f"{postgres_server}{more}options=-csearch_path%3D{schema}&application_name={schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request, tmp_path):
    opened = _open(request, tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
def durable(request, tmp_path):
    opened = _open(request, tmp_path)
    yield opened
    opened.close()


def _open(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "meter.db")
    from agent_meter.store import PostgresStore

    return PostgresStore(request.getfixturevalue("postgres_url"))
