"""A queue with many rows, written straight into its database: jobs that have ended, and jobs that wait."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from orchestrator.job import JobRequest, demand_of

EVENTS_EACH = 4  # placed, started, ended, released: what a job of its own leaves

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
_COMMON = """host, spool, name, claim, status, job, engines, shell, params, priority, retries, on_caller_exit,
    on_unknown, on_warning, owner, demand, attempts, tried, submitted_at"""
_VALUES = "'bench', 'default', :name || i, :name || '-token-' || i, :status, 'MASK_CRM', '', 0, '{}'"
_REST = "0, 'keep', 'fail', 'fail', 1000, :demand"
_TIME = "strftime('%Y-%m-%dT%H:%M:%S', 1700000000 + i, 'unixepoch') || '.000000+00:00'"

_ENDED = f"""
INSERT INTO QUEUE ({_COMMON}, engine, cpu, execution, started_at, ended_at, released_at, light)
{_NUMBERS}
SELECT {_VALUES}, 50, {_REST}, 1, '', {_TIME}, 'engine1', 'CPU' || (i % 7), i, {_TIME}, {_TIME}, {_TIME}, '64768:' || i
FROM n
"""
_WAITING = f"""
INSERT INTO QUEUE ({_COMMON})
{_NUMBERS}
SELECT {_VALUES}, i % 101, {_REST}, 0, '', {_TIME} FROM n
"""
_EVENTS = f"""
INSERT INTO EVENTS (at, job_id, engine, cpu, move)
{_NUMBERS}
SELECT {_TIME}, (i - 1) / {EVENTS_EACH} + 1, 'engine1', 'CPU1', 'QUEUED -> SCHEDULED' FROM n
"""


_DEMAND = demand_of(JobRequest(job="MASK_CRM"), "", shell=False)


def fill(database: Path, *, ended: int = 0, waiting: int = 0) -> None:
    """Add rows to a database that no program has open: so many of jobs that ended, their events, so many that wait."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for pragma in ("journal_mode = DELETE", "synchronous = OFF", "cache_size = -400000"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = [
            (name, sql)
            for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
            if sql is not None
        ]
        connection.execute("BEGIN")
        for name, _ in indexes:  # to make them anew afterwards is faster than to keep them
            connection.execute(f'DROP INDEX "{name}"')
        if ended:
            connection.execute(_ENDED, {"count": ended, "name": "E", "status": "FINISHED", "demand": _DEMAND})
            connection.execute(_EVENTS, {"count": ended * EVENTS_EACH})
        if waiting:
            connection.execute(_WAITING, {"count": waiting, "name": "W", "status": "QUEUED", "demand": _DEMAND})
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
