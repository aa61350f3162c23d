"""Taking a job file out of callers' sight, whole: never half written (P7), never twice (P1).

A claimed file lies in the spool's private folder as NAME.TOKEN until its row is in QUEUE. Whoever finds one there,
after a crash, goes on with it: the token is in the row, so it becomes one row only.
See docs/decisions/0001-claiming.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import signal
import stat
import time
from dataclasses import dataclass

from orchestrator.job import JOB_SUFFIX, MAX_FILE_BYTES, Job
from orchestrator.spool.directory import SpoolDirectory
from orchestrator.spool.light import LightRefused, ensure_light, standing_light

log = logging.getLogger(__name__)

TOKEN = 16  # characters of a claim's token
SETTLED = 10.0  # seconds without a change after which a file counts as whole where no lease can tell

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StillWritten(Exception):  # noqa: N818 - not an error: the file is tried again
    """Somebody has the file open for writing."""


@dataclass(frozen=True)
class Claim:
    """One claimed job file. `content` is None where it cannot be read, then `refused` says why."""

    name: str
    token: str
    content: bytes | None
    refused: str | None
    owner: int  # its uid as it was opened, whatever bore the name before
    mode: int  # its permissions
    written_at: float  # seconds, UTC
    light: str | None = None
    light_is_new: bool = False

    @property
    def file(self) -> str:
        """Its name in the private folder."""
        return f"{self.name}.{self.token}"


def claim(spool: SpoolDirectory, name: str, *, certain: bool, shared: bool) -> Claim | None:
    """Claim NAME.job; None where it is not there.

    `certain` where the kernel told that its writer closed it, or moved it in; `shared` where other hosts may write,
    of whom the kernel here cannot tell. Raises StillWritten where it is not yet whole, and OSError where the file
    system cannot serve (full, read-only): then the file is still there, and is tried again.
    """
    file = name + JOB_SUFFIX
    token = secrets.token_hex(TOKEN // 2)
    try:
        with _look(spool.fd, file, must_settle=not certain, shared=shared) as looked:
            light = _light_of(spool, name, looked.status.st_uid)
            os.rename(file, f"{name}.{token}", src_dir_fd=spool.fd, dst_dir_fd=spool.private)
            if looked.is_at(spool.private, f"{name}.{token}"):
                claimed = _read(name, token, light, looked)
                if looked.is_still_leased():
                    return claimed
    except FileNotFoundError:
        return None
    try:
        return _look_and_read(spool, name, token, light, shared=shared)
    except StillWritten:  # it was opened again between the look and the claim
        _put_back(spool, name, f"{name}.{token}")
        raise


def claims_left_over(spool: SpoolDirectory, *, shared: bool) -> list[Claim]:
    """Give the claims whose taker crashed before they were dealt with."""
    found = []
    for file in os.listdir(spool.private):
        name, dot, token = file.rpartition(".")
        if dot and len(token) == TOKEN:
            try:
                if not _was_put_back(spool, name, file):
                    found.append(_look_and_read(spool, name, token, None, shared=shared))
            except (FileNotFoundError, StillWritten):
                pass
            except Exception as exc:  # noqa: BLE001 - one that cannot be read must not keep the others waiting
                log.error("%s, claimed in spool %s, cannot be read now: %r: it stays", file, spool.path, exc)
    return found


def claimed_names(spool: SpoolDirectory) -> set[str]:
    """Give the names of the job files that are claimed, and perhaps no row yet."""
    found = (file.rpartition(".") for file in os.listdir(spool.private))
    return {name for name, _, token in found if len(token) == TOKEN}


def is_asked_again(spool: SpoolDirectory, job: Job) -> bool:
    """Tell whether a later job file of the same name lies there that is no row yet, or no more than claimed.

    In a sticky spool another user's does not count: it gets neither the name nor the light, nor may it hold it up.
    """
    for file in os.listdir(spool.private):
        name, _, token = file.rpartition(".")
        if name == job.name and len(token) == TOKEN and token != job.claim and _counts(spool.private, file, spool, job):
            return True
    return _counts(spool.fd, job.name + JOB_SUFFIX, spool, job)


def _counts(folder: int, file: str, spool: SpoolDirectory, job: Job) -> bool:
    try:
        found = os.stat(file, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return not spool.sticky or job.owner is None or found.st_uid == job.owner


def give_back(spool: SpoolDirectory, claimed: Claim) -> None:
    """Put a claimed file back that could not be recorded."""
    _put_back(spool, claimed.name, claimed.file)


def forget(spool: SpoolDirectory, claimed: Claim) -> None:
    """Remove a claimed file that has become a row."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(claimed.file, dir_fd=spool.private)


def _put_back(spool: SpoolDirectory, name: str, file: str) -> None:
    """Where that cannot be (a new file has its place, or it is a directory), the claim stays, and is found there."""
    with contextlib.suppress(OSError):
        os.link(file, name + JOB_SUFFIX, src_dir_fd=spool.private, dst_dir_fd=spool.fd, follow_symlinks=False)
        os.unlink(file, dir_fd=spool.private)


def _was_put_back(spool: SpoolDirectory, name: str, file: str) -> bool:
    """Tell whether a crash came between the two steps of putting a claim back: then the second one is done."""
    try:
        there = os.stat(name + JOB_SUFFIX, dir_fd=spool.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not os.path.samestat(there, os.stat(file, dir_fd=spool.private, follow_symlinks=False)):
        return False
    os.unlink(file, dir_fd=spool.private)
    return True


@dataclass(frozen=True)
class _Light:
    owner: int  # of the job file that it is to stand for
    identity: str | None
    is_new: bool
    refused: str | None = None


def _light_of(spool: SpoolDirectory, name: str, owner: int) -> _Light:
    try:
        return _Light(owner, *ensure_light(spool, name, owner))
    except LightRefused as exc:
        return _Light(owner, exc.light, False, exc.reason)


def _light_left(spool: SpoolDirectory, name: str, owner: int) -> _Light:
    try:
        return _Light(owner, standing_light(spool, name, owner), False)
    except LightRefused as exc:
        return _Light(owner, exc.light, False, exc.reason)


def _look_and_read(spool: SpoolDirectory, name: str, token: str, light: _Light | None, *, shared: bool) -> Claim:
    with _look(spool.private, f"{name}.{token}", must_settle=False, shared=shared) as looked:
        if light is None or light.owner != looked.status.st_uid:  # another file took its place before the claim
            light = _light_left(spool, name, looked.status.st_uid)
        return _read(name, token, light, looked)


def _read(name: str, token: str, light: _Light, looked: _Look) -> Claim:
    content = None
    if looked.unreadable is None:
        content = b""
        # One byte more than is allowed shows that there is too much.
        while len(content) <= MAX_FILE_BYTES:
            part = os.read(looked.fd, MAX_FILE_BYTES + 1 - len(content))
            if not part:
                break
            content += part
    return Claim(
        name=name,
        token=token,
        content=content,
        refused=light.refused or looked.unreadable,
        owner=looked.status.st_uid,
        mode=stat.S_IMODE(looked.status.st_mode),
        written_at=looked.status.st_mtime,
        light=light.identity,
        light_is_new=light.is_new,
    )


class _Look:
    """A file that was looked at: open, and, where a lease can be had, until it is closed nobody else writes to it."""

    def __init__(self, fd: int, status: os.stat_result, unreadable: str | None) -> None:
        self.fd = fd
        self.status = status
        self.unreadable = unreadable

    def is_at(self, folder: int, name: str) -> bool:
        """Tell whether this name, and no other, leads to the file."""
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return os.path.samestat(there, self.status) and there.st_nlink == 1

    def is_still_leased(self) -> bool:
        """Tell whether nobody has begun to write since the look; whoever tried waits until it is closed (fcntl(2))."""
        with contextlib.suppress(OSError):
            return self.fd >= 0 and fcntl.fcntl(self.fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
        return False

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)  # ends the lease too

    def __enter__(self) -> _Look:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _look(folder: int, file: str, *, must_settle: bool, shared: bool) -> _Look:
    """Open a file without being caught by it: a FIFO would block, a symlink read something else.

    Raises FileNotFoundError, or StillWritten.
    """
    try:
        fd = _open(folder, file)
    except OSError as exc:
        status = os.stat(file, dir_fd=folder, follow_symlinks=False)
        if exc.errno == errno.ELOOP:
            return _Look(-1, status, "a symbolic link: a job file must be a file of its own")
        if exc.errno in (errno.EACCES, errno.EPERM):
            why = f"cannot be read by uid {os.geteuid()}, which runs the orchestrator: {exc.strerror}"
            return _Look(-1, status, why)
        if exc.errno in (errno.ENXIO, errno.ENODEV):
            return _Look(-1, status, "a socket or device: a job file must be a regular file")
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return _Look(fd, status, "not a regular file")
        if status.st_nlink > 1:
            # Who linked a file is not known, only whose it is. `ln draft NAME.job; rm draft` has two for a moment.
            if _age(status) < SETTLED:
                raise StillWritten(file)
            why = f"it has {status.st_nlink} names (hard links): a job file must be a file of its own"
            return _Look(fd, status, why)
        written = _is_written(fd)
        if shared and written:
            written = None  # NFSv4 refuses a lease for reasons of its own too
        if written or (written is None and must_settle and _age(status) < SETTLED):
            raise StillWritten(file)
    except BaseException:
        os.close(fd)
        raise
    return _Look(fd, status, None)


def _open(folder: int, file: str) -> int:
    try:
        return os.open(file, _READ, dir_fd=folder)
    except PermissionError:  # refusing a job cannot be undone: what is no more than a fault of a moment is asked again
        return os.open(file, _READ, dir_fd=folder)


def _is_written(fd: int) -> bool | None:
    """Tell whether anybody has the file open for writing: then the kernel refuses a read lease (fcntl(2)).

    None where no lease can be had at all: another user's file, or a network file system.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        return True if exc.errno == errno.EAGAIN else None
    return False


def _age(status: os.stat_result) -> float:
    return abs(time.time() - max(status.st_mtime, status.st_ctime))


def ignore_lease_breaks() -> None:
    """Let the kernel's word that somebody waits for a lease pass: they are held for a moment only."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
