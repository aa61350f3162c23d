"""Looking into a database without changing anything. It may be in use, broken, or missing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from peewee import DatabaseError, InterfaceError, SqliteDatabase, fn

from orchestrator.errors import SchemaTooNew, StoreError
from orchestrator.job import Job
from orchestrator.state import EngineState
from orchestrator.store.database import MIGRATIONS, file_of, schema_version
from orchestrator.store.engines import deserted_cpus, stray_cpus
from orchestrator.store.models import IS_ACTIVE, IS_KEPT, IS_UNRELEASED, Events, Health, database, tuples_of
from orchestrator.store.moves import jobs_where
from orchestrator.store.placing import Capacity, capacities

BUSY_TIMEOUT = 2.0  # seconds that a look waits for a lock of somebody else
MOST = 1000  # jobs of which it is read when they last moved; the oldest
NEWEST_EVENTS = 10_000  # so many are read to see what has moved of late
_WRITE_LOCK = 120  # the byte of the -shm file that whoever writes has locked (sqlite.org/walformat.html)
_FLOCK = "hhqqi4x"  # struct flock of Linux: type, whence, start, length, pid


@dataclass(frozen=True, kw_only=True)
class EngineHealth:
    """What the daemons last found of an engine."""

    state: EngineState
    reason: str | None
    since: str | None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What stands in a database at one instant, as far as it may need somebody to do something."""

    active: Sequence[Job]
    unreleased: Sequence[Job]  # ended, and their light has not been changed
    kept: Sequence[Job]  # ended, and what they started may still run
    capacities: dict[str, Capacity]
    health: dict[str, EngineHealth]
    stray: list[tuple[str, str, str]]  # engine, CPU and its status, which is none of ours
    deserted: list[tuple[str, str, int]]  # engine, CPU and the id of a job that has no row
    moved: dict[int, str]  # when each active job last moved, or was asked to end, by its id
    busy: frozenset[tuple[str | None, str | None]]  # the newest events' engines and CPUs, since `busy_since`


@contextmanager
def looking(url: str) -> Iterator[None]:
    """Open a database so that nothing can be changed in it. All functions of the store look into it meanwhile.

    Raises StoreError where there is none, or it cannot be used; SchemaTooNew.
    """
    path = file_of(url)
    if not path.is_file():
        raise StoreError(f"{path}: there is none")
    opened = SqliteDatabase(_uri(path), uri=True, timeout=BUSY_TIMEOUT)
    before = database.obj
    database.initialize(opened)
    try:
        opened.connect()
        with opened.atomic():
            yield
    except (DatabaseError, InterfaceError) as exc:
        raise StoreError(f"{path}: {exc}") from exc
    finally:
        with contextlib.suppress(DatabaseError):
            opened.close()
        if before is not None:
            database.initialize(before)


def _uri(path: Path) -> str:
    """Give the URI that opens a file for reading only, and leaves none beside it."""
    if Path(f"{path}-wal").exists():
        if not Path(f"{path}-shm").exists():
            raise StoreError(f"{path}: it was not closed, and its -shm file is gone: the next start puts it right")
        return f"file:{quote(str(path))}?mode=ro"
    # Nobody has it open. To read it as usual would make its -wal and -shm files, and leave them there.
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


def check_schema() -> tuple[int, int]:
    """Give the version of the tables, and the one that this program knows. Raises SchemaTooNew."""
    found, known = schema_version(), len(MIGRATIONS)
    if found > known:
        raise SchemaTooNew(f"the database has schema version {found}, this orchestrator knows up to {known}")
    return found, known


def check_integrity(seconds: float) -> list[str] | None:
    """Read all of the database; what is wrong with it, or None where that would take longer than `seconds`."""
    deadline = time.monotonic() + seconds
    connection = database.connection()
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        rows = connection.execute("PRAGMA integrity_check(5)").fetchall()
    except Exception as exc:
        if "interrupted" in str(exc):
            return None
        raise StoreError(str(exc)) from exc
    finally:
        connection.set_progress_handler(None, 0)
    return [str(row[0]) for row in rows if row[0] != "ok"]


def writer_of(url: str) -> int | None:
    """Give the pid of the process that writes just now; None: none does. Asks the kernel, and takes no lock.

    To be called while this process has the database not open: closing a file gives up all its locks (fcntl(2)).
    """
    try:
        shm = os.open(f"{file_of(url)}-shm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _WRITE_LOCK, 1, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(shm, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(shm)
    return None if kind == fcntl.F_UNLCK else int(pid)


def read_rows(busy_since: str) -> Rows:
    """Read what may need somebody to do something; `busy_since` (UTC) is from when on a CPU counts as in use."""
    active = jobs_where(IS_ACTIVE)
    return Rows(
        active=active,
        unreleased=jobs_where(IS_UNRELEASED),
        kept=jobs_where(IS_KEPT),
        capacities=capacities(),
        health=_health(),
        stray=stray_cpus(),
        deserted=deserted_cpus(),
        moved=_moved([job.id for job in active][:MOST]),
        busy=_busy(busy_since),
    )


def _health() -> dict[str, EngineHealth]:
    found = {}
    for row in Health.select():
        state = EngineState(row.state) if row.state in list(EngineState) else EngineState.UNKNOWN  # written by hand
        found[row.engine] = EngineHealth(
            state=EngineState.DRAINING if row.draining else state, reason=row.reason, since=row.since
        )
    return found


def _moved(ids: Sequence[int]) -> dict[int, str]:
    query = Events.select(Events.job_id, fn.MAX(Events.at)).where(Events.job_id.in_(ids)).group_by(Events.job_id)
    return dict(tuples_of(query))


def _busy(since: str) -> frozenset[tuple[str | None, str | None]]:
    newest = Events.select(Events.engine, Events.cpu, Events.at).order_by(Events.id.desc()).limit(NEWEST_EVENTS)
    return frozenset((engine, cpu) for engine, cpu, at in tuples_of(newest) if at >= since)
