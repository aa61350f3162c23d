"""Trafficlights: made before a job file is taken, then removed (green) or rewritten (red), each exactly once.

A light is known by its inode and its time of birth, so that the light of a new caller under the same name is
never taken for the old one. See docs/decisions/0002-recoverable-release.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import stat
import struct
from enum import Enum
from typing import NamedTuple

from orchestrator.errors import JobRefused
from orchestrator.job import LIGHT_SUFFIX, Job, ascii_line
from orchestrator.spool.directory import WRITE_NEW, SpoolDirectory, make_readable
from orchestrator.state import JobStatus

MAX_REASON = 500  # characters of the reason in a light's first line


class Released(Enum):
    """What a release found, and did."""

    GREEN = "the light was removed"
    RED = "the light was rewritten"
    NO_LIGHT = "the light was gone already"
    NOT_OURS = "the light belongs to a later caller, and was left alone"


class LightRefused(JobRefused):
    """A light does not serve the job file that came with it. `light`: it is to say so; None: it is left as it is."""

    def __init__(self, reason: str, light: str | None = None) -> None:
        super().__init__(reason)
        self.light = light


def ensure_light(spool: SpoolDirectory, name: str, owner: int) -> tuple[str, bool]:
    """See to it that `name` has an empty light, before its job file, of uid `owner`, is taken.

    Gives the light's identity, and whether the light is new. What an earlier job left in it is replaced: an old
    verdict must not stand for a new job. Raises LightRefused where a directory is in its place, or somebody else's.
    """
    light = name + LIGHT_SUFFIX
    try:
        found = _see(spool.fd, light)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # the caller made it just now
            make_readable(os.open(light, WRITE_NEW, 0o644, dir_fd=spool.fd))
            return _identity(spool.fd, light), True
        found = _see(spool.fd, light)
    _check_whose(spool, light, found, owner)
    if stat.S_ISREG(found.mode) and found.size == 0:
        return found.identity, False
    fresh = secrets.token_hex(8)
    make_readable(os.open(fresh, WRITE_NEW, 0o644, dir_fd=spool.private))
    os.rename(fresh, light, src_dir_fd=spool.private, dst_dir_fd=spool.fd)
    return _identity(spool.fd, light), True


def standing_light(spool: SpoolDirectory, name: str, owner: int) -> str | None:
    """Give the identity of `name`'s light as it stands, None where it is gone; nothing is made or replaced.

    For a job file that was claimed before a crash: its light was made then, and may have been released since.
    Raises LightRefused as `ensure_light` does.
    """
    light = name + LIGHT_SUFFIX
    try:
        found = _see(spool.fd, light)
    except FileNotFoundError:
        return None
    _check_whose(spool, light, found, owner)
    return found.identity


def _check_whose(spool: SpoolDirectory, light: str, found: _Seen, owner: int) -> None:
    """Check that a light may stand for a job file of uid `owner`. Raises LightRefused.

    Under the sticky bit a light is removed by its owner or by us. One of another user's would turn green when that
    user likes; and what it says of another user's job would be lost if it were emptied for this one.
    """
    if stat.S_ISDIR(found.mode):
        raise LightRefused(f"{light} is a directory: remove it")
    if not spool.sticky or found.uid == owner:
        return
    told = stat.S_ISREG(found.mode) and found.size > 0
    if found.uid not in (0, os.geteuid()):
        raise LightRefused(
            f"{light} belongs to uid {found.uid}, the job file to uid {owner}: take another NAME",
            None if told else found.identity,
        )
    if told:
        raise LightRefused(f"{light} tells how an earlier job ended: in a sticky spool take a new NAME each time")


def turn_green(spool: SpoolDirectory, job: Job) -> Released:
    """Remove the light of a FINISHED job; the caller of this holds the spool's lock and then records it.

    The light is first moved aside and looked at again: what came into its place meanwhile is put back.
    """
    light, aside = job.name + LIGHT_SUFFIX, f"{job.id}.green"
    left = _identity_or_none(spool.private, aside)
    if left is not None and left != job.light:  # a crash kept it from being put back
        _put_back(spool, aside, light)
        left = None
    if left is None:
        standing = _identity_or_none(spool.fd, light)
        if standing is None:
            return Released.NO_LIGHT
        if standing != job.light:
            return Released.NOT_OURS
        os.rename(light, aside, src_dir_fd=spool.fd, dst_dir_fd=spool.private)
    if _identity(spool.private, aside) != job.light:
        _put_back(spool, aside, light)
        return Released.NOT_OURS
    os.unlink(aside, dir_fd=spool.private)
    return Released.GREEN


def turn_red(spool: SpoolDirectory, job: Job) -> Released:
    """Rewrite the light of a job that did not finish, in one rename; the caller of this holds the spool's lock."""
    light = job.name + LIGHT_SUFFIX
    standing = _identity_or_none(spool.fd, light)
    if standing is None:
        return Released.NO_LIGHT
    if standing != job.light:
        return Released.RED if _is_verdict_of(spool, light, job) else Released.NOT_OURS
    write_light(spool, light, f"{job.id}.red", verdict(job), job.owner)
    return Released.RED


def write_light(spool: SpoolDirectory, light: str, draft: str, text: str, owner: int | None) -> None:
    """Put a light with this text in place, whole or not at all; `draft` names it in the private folder until then.

    Where we may, it becomes `owner`'s, who could not remove it from a sticky directory otherwise.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=spool.private)  # half written by someone who crashed
    fd = os.open(draft, WRITE_NEW, 0o644, dir_fd=spool.private)
    with open(fd, "w", encoding="ascii") as file:
        os.fchmod(fd, 0o644)  # the caller must be able to read it, whatever our umask is
        if owner is not None and os.geteuid() == 0:
            os.fchown(fd, owner, -1)
        file.write(text)
        file.flush()
        os.fsync(fd)
    os.rename(draft, light, src_dir_fd=spool.private, dst_dir_fd=spool.fd)


def verdict(job: Job) -> str:
    """Give the text of a red light: one line that a shell can cut up, then more for people."""
    facts = {"id": job.id, "job": job.job, "engine": job.engine, "cpu": job.cpu, "execution": job.execution}
    if job.exit is not None:
        facts["exit"] = job.exit
    words = [f"{key}={_word(value)}" for key, value in facts.items() if value is not None]
    line = f'{job.status} {" ".join(words)} reason="{_quoted(job.reason or "no reason was given")}"'
    more = [ascii_line(each) for each in (job.detail or "").splitlines()]
    return "\n".join([line, *more]) + "\n"


def refusal(reason: str) -> str:
    """Give the text of a red light for a file that could not even be given a job."""
    return f'{JobStatus.REJECTED} reason="{_quoted(reason)}"\n'


def _put_back(spool: SpoolDirectory, aside: str, light: str) -> None:
    try:
        os.link(aside, light, src_dir_fd=spool.private, dst_dir_fd=spool.fd, follow_symlinks=False)
    except FileExistsError:
        pass
    except PermissionError:  # another user's file, which fs.protected_hardlinks keeps us from linking
        if _identity_or_none(spool.fd, light) is None:
            os.rename(aside, light, src_dir_fd=spool.private, dst_dir_fd=spool.fd)
            return
    os.unlink(aside, dir_fd=spool.private)


def _quoted(text: str) -> str:
    return ascii_line(text).replace('"', "'")[:MAX_REASON]


def _word(value: object) -> str:
    return "".join(f"\\x{ord(char):02x}" if char in " \"'=" else char for char in ascii_line(value))


def _is_verdict_of(spool: SpoolDirectory, light: str, job: Job) -> bool:
    try:
        fd = os.open(light, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=spool.fd)
    except OSError:
        return False
    try:
        words = os.read(fd, 200).split(maxsplit=2)
    except OSError:  # a directory, or a FIFO that is held open
        return False
    finally:
        os.close(fd)
    return words[:2] == [job.status.encode(), f"id={job.id}".encode()]


def _identity_or_none(folder: int, name: str) -> str | None:
    try:
        return _identity(folder, name)
    except FileNotFoundError:
        return None


def _identity(folder: int, name: str) -> str:
    return _see(folder, name).identity


class _Seen(NamedTuple):
    """What a light is. `identity`: its inode and time of birth, which truncating it again does not change.

    Where the file system keeps no time of birth, the time of the last change stands for it.
    """

    identity: str
    mode: int
    uid: int
    size: int


def _see(folder: int, name: str) -> _Seen:
    """Look at a file itself, not at what it links to. Raises OSError."""
    buffer = _Buffer()
    if _statx(folder, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, _WANTED, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    mask, uid, mode, inode, size, born, born_ns, changed, changed_ns = _STATX.unpack_from(buffer)
    kind, seconds, nanoseconds = ("b", born, born_ns) if mask & _STATX_BTIME else ("m", changed, changed_ns)
    return _Seen(f"{inode}:{kind}{seconds}.{nanoseconds:09}", mode, uid, size)


# statx(2), for the time of birth, which os.stat does not tell.
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BASIC_STATS, _STATX_BTIME = 0x7FF, 0x800
_WANTED = _STATX_BASIC_STATS | _STATX_BTIME
_STATX = struct.Struct("=I16xI4xH2xQQ32xqI20xqI")  # of struct statx: mask, uid, mode, ino, size, btime, mtime
_Buffer = ctypes.c_char * 256
_statx = ctypes.CDLL(None, use_errno=True).statx
_statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
