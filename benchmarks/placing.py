"""The time to place one job, with few rows and with many: the real step, without engines."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Iterator

from benchmarks.place import Place, folder
from benchmarks.row import Row, milliseconds
from benchmarks.rows import fill
from orchestrator.engines.base import Knows, Lookup
from orchestrator.opening import open_queue
from orchestrator.scheduler.schedule import KnownEngine, schedule
from orchestrator.settings import load_settings
from orchestrator.state import EngineState
from orchestrator.store.database import close_database

ROUNDS = 7
SAMPLES = 40  # a round
FEW = 100
HISTORY = 1_000_000
WAITING = 100_000

_ENGINES = {
    "local": KnownEngine(state=EngineState.UP, lookup=lambda _: Lookup(Knows.YES), ask=lambda: None),
}
# The job that was placed ends, another one comes: the numbers of both stay as they are.
_END = """
UPDATE QUEUE SET status = 'FINISHED', ended_at = submitted_at, released_at = submitted_at WHERE id = :id
"""
_COME = """
INSERT INTO QUEUE (host, spool, name, claim, status, job, engines, shell, params, priority, retries, on_caller_exit,
    on_unknown, on_warning, owner, demand, attempts, tried, submitted_at)
SELECT host, spool, name, claim || 'x', 'QUEUED', job, engines, shell, params, priority, retries, on_caller_exit,
    on_unknown, on_warning, owner, demand, 0, '', submitted_at FROM QUEUE WHERE id = :id
"""


def placing() -> Iterator[Row]:
    """One job is placed at a time, in a large queue and in a small one in turn."""
    with folder() as where:
        small = queue_of(Place(where / "small"), ended=FEW, waiting=FEW)
        large = queue_of(Place(where / "large"), ended=HISTORY, waiting=WAITING)
        rounds = [(placing_time(small), placing_time(large)) for _ in range(ROUNDS)]
    few, many = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(large_one / small_one for small_one, large_one in rounds)
    yield Row(
        f"to place one job with {HISTORY:,} ended and {WAITING:,} waiting, median of {ROUNDS} times {SAMPLES}",
        milliseconds(many),
        f"with {FEW} of each {milliseconds(few)}",
        ratio=ratio,
        goal="≤ 1.2",
        met=ratio <= 1.2,
    )


def queue_of(here: Place, *, ended: int, waiting: int) -> Place:
    """Make a queue with so many rows, and one CPU that is free."""
    open_queue(load_settings(here.settings))
    close_database()
    fill(here.database, ended=ended, waiting=waiting)
    with contextlib.closing(sqlite3.connect(here.database)) as connection, connection:
        connection.execute("INSERT INTO ENGINES (engine, cpu) VALUES ('local', 'CPU1')")
    return here


def placing_time(here: Place) -> float:
    """Place some jobs one by one; the median of the seconds that each took."""
    times = []
    open_queue(load_settings(here.settings))
    try:
        with contextlib.closing(sqlite3.connect(here.database)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for number in range(SAMPLES + 5):
                began = time.perf_counter()
                done = schedule(_ENGINES)
                took = time.perf_counter() - began
                if done.engines != {"local"}:
                    raise SystemExit("no job was placed")
                if number >= 5:  # the first ones open files and read what is not in memory
                    times.append(took)
                with connection:
                    [[job_id]] = connection.execute("SELECT job_id FROM ENGINES")
                    connection.execute(_END, {"id": job_id})
                    connection.execute(_COME, {"id": job_id})
                    connection.execute("UPDATE ENGINES SET status = 'FREE', job_id = NULL")
    finally:
        close_database()
    return statistics.median(times)
