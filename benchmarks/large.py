"""A ledger of any size, made by SQL alone: rows and rollups as a store would have written them, in a tenth of the time.

`python -m benchmarks.large FILE RECORDS` makes one and, up to a million records, has the store verify every cell.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agent_meter.store import SQLiteStore
from agent_meter.store.cells import CUBES, DAY, HOUR, LIVE, MEASURES, MINUTE, MONTH, minute_of, month_of

DAYS = 90
MODELS = (("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "o3"), ("anthropic", "claude-sonnet-4-5"),
          ("anthropic", "claude-haiku-4-5"), ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"),
          ("mistral", "mistral-large"), ("deepseek", "deepseek-chat"), ("groq", "llama-3.3-70b"))  # fmt: skip

_SUMS = {
    "requests": "COUNT(*)",
    "api_calls": "COUNT(*)",
    **{
        name: f"SUM({name})"
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "list_pico",
                     "billed_pico", "input_pico", "output_pico")
    },
}  # fmt: skip


def fill(path: Path, number: int) -> float:
    """Twenty agents, ten models, a thousand users, ten calls a session, evenly over 90 days; seconds it took."""
    start = time.perf_counter()
    SQLiteStore(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -400000")
    db.execute("PRAGMA temp_store = FILE")
    db.execute("CREATE TEMP TABLE known (place INTEGER PRIMARY KEY, provider TEXT, name TEXT)")
    db.executemany("INSERT INTO known VALUES (?, ?, ?)", [(n, *model) for n, model in enumerate(MODELS)])
    now = datetime.now(UTC)
    ends = minute_of(now) // 1440 * 1440 * 60_000_000
    begins = ends - DAYS * 86_400_000_000
    step = (ends - begins) // number
    db.execute("BEGIN")
    db.execute(
        f"""
        INSERT INTO record (seq, id, revision, kind, at, duration, status, framework, agent, task, user, session, step,
            name, provider, model, request_model, response_model, response_id, cached, estimated, input_tokens,
            output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens,
            input_audio_tokens, output_audio_tokens, input_image_tokens, output_image_tokens, cost_status, list_pico,
            billed_pico, input_pico, output_pico, card_id)
        WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {number}),
             mixed AS (SELECT n, ((n * 2654435761) & 4294967295) >> 5 AS h FROM counted),
             made AS (SELECT n, h, h % 4000 AS given, (h >> 3) % 900 AS made FROM mixed)
        SELECT n, printf('019a%04x-%04x-7%03x-8%03x-%012x', n >> 28, (n >> 12) & 65535, n & 4095, h & 4095, h), 0,
            'llm', {begins} + n * {step}, (h % 900) / 100.0, 'ok', 'langchain', 'agent-' || (h % 20), '',
            'user-' || ((h / 200) % 1000), 'session-' || (n / 10), '', '', provider, name, name,
            name || '-2026-06-01', 'chatcmpl-' || h, 0, 0, given, made, given / 3, 0, 0, made / 4, 0, 0, 0, 0, 'priced',
            given * 2500000 + made * 10000000, given * 2500000 + made * 10000000, given * 2500000, made * 10000000,
            'c1f2e3d4a5b6'
        FROM made JOIN known ON known.place = (h / 20) % 10
        """
    )
    minute = "at / 60000000"
    for cube in CUBES:
        columns = [*cube.dimensions, "''", "''", "''"][:3]
        if cube.name == "model":
            late = f"at >= {ends - 2 * 86_400_000_000}"
            _group(db, "model", MINUTE, minute, columns, f"FROM record WHERE {late}")
            _group(db, "model", HOUR, f"{minute} / 60 * 60", columns, "FROM record")
            _coarser(db, "model", HOUR, DAY, "at / 1440 * 1440")
        else:
            _group(db, cube.name, DAY, f"{minute} / 1440 * 1440", columns, "FROM record")
    days = [day for (day,) in db.execute(f"SELECT DISTINCT at FROM cell WHERE cube = 'model' AND grain = {DAY}")]
    closed = month_of(minute_of(now))
    for month in sorted({month_of(day) for day in days}):
        for cube in CUBES:
            if month < closed or cube.name in LIVE:
                inside = [day for day in days if month_of(day) == month]
                _coarser(db, cube.name, DAY, MONTH, str(month), f"AND at BETWEEN {min(inside)} AND {max(inside)}")
    minutes_from = (ends - 2 * 86_400_000_000) // 60_000_000
    for name, value in (("folded", number), ("closed", closed), (f"grain {MINUTE} from", minutes_from)):
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, str(value)))
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return time.perf_counter() - start


def _group(db: sqlite3.Connection, cube: str, grain: int, at: str, columns: list[str], source: str) -> None:
    sums, empty = ", ".join(_SUMS.get(name, "0") for name in MEASURES), "''"
    db.execute(
        f"INSERT INTO cell (cube, grain, at, k1, k2, k3, part, {', '.join(MEASURES)}) "
        f"SELECT '{cube}', {grain}, {at} AS began, {', '.join(columns)}, '', {sums} {source} "
        f"GROUP BY {', '.join(['began', *(column for column in columns if column != empty)])}"
    )


def _coarser(db: sqlite3.Connection, cube: str, finer: int, grain: int, at: str, where: str = "") -> None:
    sums = ", ".join(f"SUM({name})" for name in MEASURES)
    db.execute(
        f"INSERT INTO cell (cube, grain, at, k1, k2, k3, part, {', '.join(MEASURES)}) "
        f"SELECT cube, {grain}, {at} AS began, k1, k2, k3, part, {sums} FROM cell "
        f"WHERE cube = '{cube}' AND grain = {finer} {where} GROUP BY began, k1, k2, k3, part"
    )


if __name__ == "__main__":
    made = int(sys.argv[2].replace("_", ""))
    print(f"{made:,} records in {fill(Path(sys.argv[1]), made):,.0f} s")
    if made <= 1_000_000:
        audit = SQLiteStore(sys.argv[1]).verify()
        print("verified" if audit.ok else f"WRONG: {audit.differences[:3]}")
