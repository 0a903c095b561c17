"""The tables of a ledger, for every SQL database, and how an older ledger becomes one of today."""

from __future__ import annotations

from ..records import TOKEN_CLASSES
from .cells import MEASURES
from .rows import COLUMNS

VERSION = 1
READABLE_BY = 1  # the oldest version of this schema whose library may still write to the tables

META = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
KEY = ("cube", "grain", "at", "k1", "k2", "k3")


def tables(types: dict[str, str], suffix: str) -> list[str]:
    """CREATE statements. `types` are the database's words for text, int, real, sums (big, money) and exact decimals."""
    text, whole, real, big = types["text"], types["int"], types["real"], types["big"]
    columns = []
    for name, kind, optional in COLUMNS:
        column = f'"{name}" {types[kind]}'
        if not optional:
            column += " NOT NULL"
        if name == "id":
            column += " CHECK (length(id) BETWEEN 1 AND 1000)"
        elif name in _COUNTS:
            column += f" CHECK ({name} >= 0)"
        columns.append(column)
    statuses = ", ".join(f"'{name}'" for name in ("ok", "error", "denied", "cancelled", "abandoned"))
    kinds = ", ".join(f"'{name}'" for name in ("llm", "embedding", "rerank", "tool", "run", "step"))
    key = ", ".join(f"{name} {whole if name in ('grain', 'at') else text} NOT NULL" for name in KEY)
    primary = ", ".join(KEY)
    sums = ", ".join(f"{name} {types['money'] if name.endswith('_pico') else big} NOT NULL" for name in MEASURES)
    # A primary key that is the table needs no second tree (SQLite only).
    clustered = f" {suffix}, WITHOUT ROWID" if suffix else ""
    plain = f" {suffix}" if suffix else ""
    return [
        f"CREATE TABLE record (seq {whole} PRIMARY KEY, {', '.join(columns)}, UNIQUE (id, revision), "
        f"CHECK (kind IN ({kinds})), CHECK (status IN ({statuses}))){plain}",
        "CREATE INDEX record_at ON record (at)",
        "CREATE INDEX record_run ON record (run_id) WHERE run_id IS NOT NULL",
        "CREATE INDEX record_inside ON record (parent_id) WHERE kind = 'run' AND parent_id IS NOT NULL",
        "CREATE UNIQUE INDEX record_corrects ON record (corrects, revision) WHERE corrects IS NOT NULL",
        "CREATE INDEX record_tool_error ON record (name, seq) WHERE kind = 'tool' AND error_type IS NOT NULL",
        f"CREATE TABLE cell ({key}, part {text} NOT NULL, {sums}, PRIMARY KEY ({primary}, part)){clustered}",
        f"CREATE TABLE cell_unit ({key}, unit {text} NOT NULL, amount {types['exact']} NOT NULL, "
        f"PRIMARY KEY ({primary}, unit)){clustered}",
        f"CREATE TABLE tool_day (name {text} NOT NULL, at {whole} NOT NULL, ok {whole} NOT NULL, "
        f"failed {whole} NOT NULL, denied {whole} NOT NULL, pico {types['money']} NOT NULL, chunks {big} NOT NULL, "
        f"streamed {whole} NOT NULL, seconds {real} NOT NULL, low {real}, high {real}, "
        f"PRIMARY KEY (name, at)){clustered}",
        f"CREATE TABLE tool_bucket (name {text} NOT NULL, at {whole} NOT NULL, bucket {whole} NOT NULL, "
        f"calls {whole} NOT NULL, PRIMARY KEY (name, at, bucket)){clustered}",
        # What could not be stored: why, and what it said.
        f"CREATE TABLE dead (id {text} NOT NULL, at {whole} NOT NULL, reason {text} NOT NULL, "
        f"document {text} NOT NULL){plain}",
        f"CREATE TABLE meta (name {text} PRIMARY KEY, value {text} NOT NULL){plain}",
    ]


_COUNTS = frozenset(TOKEN_CLASSES)

# What makes a ledger of version n one of version n + 1, in one transaction: MIGRATIONS[n].
MIGRATIONS: dict[int, list[str]] = {}
