"""The database: there, ours, whole, of this version, and not held by a stranger. It is only read."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, account, fail, ok, shell, user, warn
from orchestrator.errors import SchemaTooNew, StoreError
from orchestrator.job import ascii_line
from orchestrator.settings import Settings
from orchestrator.spool.filesystem import file_system_of, is_shared
from orchestrator.spool.watch import SCHEDULE_BEAT
from orchestrator.store.database import file_of
from orchestrator.store.looking import check_integrity, check_schema, looking, writer_of

SUBJECT = "database"
HELD = 2.0  # seconds: a program of ours writes for some milliseconds
WHOLE = 10.0  # seconds that a look through all of it may take
LARGE_WAL = 256 * 2**20  # bytes; usually some 4 MB


def check_database(settings: Settings, serving: int | None) -> Iterator[Finding]:
    """See to the file, and then look into it."""
    path = file_of(settings.database)
    if not path.exists():
        if not path.parent.is_dir():
            yield fail(SUBJECT, f"the directory is missing: {path.parent}", "make it, or mount it")
        elif (settings.run_dir / SCHEDULE_BEAT).exists():
            advice = "see whether its disk is mounted; put a backup back, or let the next start make an empty one"
            yield fail(SUBJECT, f"{path}: there is none, though a program has run here", advice)
        else:
            yield warn(SUBJECT, f"{path}: there is none", "the first start of a program makes it")
        return
    yield from _file(path, serving)
    if not os.access(path, os.R_OK):
        found = f"{path}: {user(os.geteuid())} may not read it"
        yield warn(SUBJECT, found, "run doctor as the user who runs the programs")
        return
    writer = _lasting_writer(settings.database, HELD)
    if writer is not None:
        found = f"{path}: pid {writer} ({_name_of(writer)}) holds it locked: nothing is taken, started or released"
        yield fail(SUBJECT, found, "end what that process does, such as a forgotten sqlite3 shell")
    yield from _inside(settings, path)


def _file(path: Path, serving: int | None) -> Iterator[Finding]:
    status = path.stat()
    if status.st_mode & stat.S_IWOTH:
        yield fail(SUBJECT, f"{path}: everybody may write it", f"chmod o-w {shell(path)}")
    if serving is not None and serving not in (status.st_uid, 0):
        found = f"{path}: belongs to {user(status.st_uid)}, and the programs run as {user(serving)}"
        yield warn(SUBJECT, found, f"chown {account(serving)} {shell(path)}*")
    if is_shared(path):
        found = f"{path}: is on {file_system_of(path)}: SQLite's locks are not to be relied on there"
        yield fail(SUBJECT, found, "stop the programs, and move it to a local disk")
    wal = Path(f"{path}-wal")
    if wal.exists() and wal.stat().st_size > LARGE_WAL:
        found = f"{wal}: has {wal.stat().st_size // 2**20} MiB: somebody has been reading for long"
        yield warn(SUBJECT, found, f"fuser -v {shell(path)}, and end a forgotten sqlite3 shell")


def _lasting_writer(url: str, seconds: float) -> int | None:
    """Give the process that holds the lock for all of so many seconds; None where it comes and goes."""
    writer = writer_of(url)
    deadline = time.monotonic() + seconds
    while writer is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        if writer_of(url) != writer:
            return None
    return writer


def _name_of(pid: int) -> str:
    try:
        return ascii_line(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip())
    except OSError:
        return "unknown"


def _inside(settings: Settings, path: Path) -> Iterator[Finding]:
    try:
        version, known, wrong = _look(settings.database)
        if wrong:
            # Opened by a program meanwhile, it was read as nobody may read what is written to: once more.
            version, known, wrong = _look(settings.database)
    except SchemaTooNew as exc:
        yield fail(SUBJECT, str(exc), "install the newer orchestrator, or put the backup back")
        return
    except StoreError as exc:
        yield cannot_be_used(path, str(exc))
        return
    if version < known:
        found = f"{path}: schema version {version}, this orchestrator has {known}"
        yield warn(SUBJECT, found, "the next start of a program brings it up")
    if wrong is None:
        found = f"{path}: too large to be looked through in {WHOLE:.0f} s"
        yield warn(SUBJECT, found, "PRAGMA integrity_check on a backup, see docs/operators.md")
    elif wrong:
        found = f"{path}: is damaged: {'; '.join(line for text in wrong for line in text.splitlines())}"
        yield fail(SUBJECT, found[:500], "stop the programs, keep the file, and put the backup back")
    elif version == known:
        yield ok(SUBJECT, f"{path}: whole, schema version {version}, {path.stat().st_size // 1024} KiB")


def _look(url: str) -> tuple[int, int, list[str] | None]:
    with looking(url):
        return *check_schema(), check_integrity(WHOLE)


def cannot_be_used(path: Path, why: str) -> Finding:
    """Tell what keeps a database from being looked into."""
    if "locked" in why:
        return fail(SUBJECT, why, f"fuser -v {shell(path)} tells who holds it")
    if "not a database" in why or "malformed" in why:
        return fail(SUBJECT, why, "stop the programs, keep the file, and put the backup back")
    return fail(SUBJECT, why, "see to the file and its directory")
