"""Stores that processes share: an SQLite file, and a schema of its own on a real PostgreSQL server."""

from tests.store.conftest import postgres_server, postgres_url  # noqa: F401
