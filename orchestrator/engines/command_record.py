"""The file of a CPU: which attempt to run a command was started there last, as which process, and how it ended.

It is locked for as long as a runner has the attempt, or is about to have it.
See docs/decisions/0004-command-supervision.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from io import FileIO

from orchestrator.process import ProcessIdentity


@dataclass(frozen=True)
class Attempt:
    """What the file of a CPU tells of the attempt that was started there last."""

    execution: str
    runs: bool  # a runner has it, or is about to have it: the file is locked
    has_run: bool
    process: ProcessIdentity | None
    exit_status: int | None


def open_record(path: str, flags: int) -> FileIO | None:
    """Open the file of a CPU; None where it is not there, or is none: a command of our own user can put anything there.

    Raises OSError.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return FileIO(fd, "r+" if flags & os.O_RDWR else "r")


def last_of(record: FileIO) -> str:
    """Read what the file of a CPU tells of its last attempt."""
    tail = os.pread(record.fileno(), 4096, max(0, os.fstat(record.fileno()).st_size - 4096)).decode("ascii", "replace")
    return tail[tail.rfind("\nattempt ") + 1 :]


def lock(record: FileIO, kind: int) -> bool:
    """Lock the file of a CPU; False where another process holds a lock on it."""
    try:
        fcntl.flock(record, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_attempt(text: str, *, runs: bool) -> Attempt:
    """Read the file of a CPU. A line without its end was never finished, and one that makes no sense tells nothing."""
    told = dict(line.partition(" ")[::2] for line in text.split("\n")[:-1])
    process, status = None, told.get("exit", "")
    with contextlib.suppress(ValueError):
        process = ProcessIdentity.parse(told.get("process", ""))
    exit_status = int(status) if status.isdigit() and len(status) <= 3 else None
    return Attempt(told.get("attempt", ""), runs, "ran" in told, process, exit_status)
