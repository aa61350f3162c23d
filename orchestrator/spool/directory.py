"""A spool directory while it is open: its files by name, its private folder, its lock.

All access goes through the open directory, so that a path that is swapped meanwhile changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from orchestrator.errors import OrchestratorError

PRIVATE = ".orchestrator"  # claimed job files and lights in the making; ours alone, so nobody can forge them
REJECTED = "rejected"
HEARTBEAT = ".heartbeat"

_NEVER_FOLLOW = os.O_CLOEXEC | os.O_NOFOLLOW
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NEVER_FOLLOW
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _NEVER_FOLLOW


class SpoolGone(OrchestratorError):  # noqa: N818 - named for what it tells
    """The spool directory cannot be used now; it is tried again."""


class SpoolDirectory:
    """One spool directory. `fd` is the directory itself, `private` the folder that only the daemons use."""

    def __init__(self, path: Path) -> None:
        """Open the directory, and make its private folder. Raises SpoolGone where that cannot be done."""
        self.path = path
        try:
            self.fd = os.open(path, _OPEN_DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as exc:
            raise SpoolGone(f"{path}: cannot be opened: {exc.strerror}: is it there, and mounted?") from exc
        # Callers who need not trust each other: only its owner can remove a light (docs/security.md).
        self.sticky = bool(os.fstat(self.fd).st_mode & stat.S_ISVTX)
        try:
            self.private = self._open_private()
        except BaseException:
            os.close(self.fd)
            raise

    def _open_private(self) -> int:
        try:
            private = self._open_folder(PRIVATE, 0o700)
        except OSError as exc:
            raise SpoolGone(f"{self.path}/{PRIVATE}: cannot be used: {exc.strerror}") from exc
        status = os.fstat(private)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            os.close(private)
            raise SpoolGone(
                f"{self.path}/{PRIVATE}: belongs to uid {status.st_uid}, mode {status.st_mode & 0o777:03o}: "
                f"it must be ours (uid {os.geteuid()}) alone; remove it"
            )
        return private

    def _open_folder(self, name: str, mode: int) -> int:
        try:
            return os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            try:
                os.mkdir(name, mode, dir_fd=self.fd)
            except FileExistsError:  # another daemon made it just now
                return os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
            folder = os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
            made = os.fstat(folder)
            if made.st_uid == os.geteuid():  # whatever our umask is; setgid stays, as the spool gave it
                os.fchmod(folder, mode | made.st_mode & stat.S_ISGID)
            return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.private)
        os.close(self.fd)

    @contextmanager
    def rejected(self) -> Iterator[int]:
        """The folder of refused job files, open; it may be a caller's. Raises OSError, also where it is a link."""
        try:
            folder = self._open_folder(REJECTED, 0o755)
        except NotADirectoryError as exc:
            raise OSError(f"{self.path}/{REJECTED}: is no directory of its own: remove it") from exc
        try:
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other daemons from taking or releasing in this spool meanwhile."""
        fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self.private)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Make what was renamed and created so far outlive a loss of power."""
        self.sync_lights()
        _sync(self.private)

    def sync_lights(self) -> None:
        """The same for the lights alone: what is left in the private folder is then known for what it is."""
        _sync(self.fd)

    def beat(self) -> None:
        """Show callers that this spool is served: see docs/protocol.md, heartbeat. Raises OSError."""
        try:
            found = os.stat(HEARTBEAT, dir_fd=self.fd, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                os.utime(HEARTBEAT, dir_fd=self.fd, follow_symlinks=False)
                return
        except (FileNotFoundError, PermissionError):
            pass
        # None, or somebody else's, which only they may touch: a new one of ours takes its place.
        draft = f"{os.getpid()}.heartbeat"
        make_readable(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NEVER_FOLLOW, 0o644, dir_fd=self.private))
        os.rename(draft, HEARTBEAT, src_dir_fd=self.private, dst_dir_fd=self.fd)


def make_readable(fd: int) -> None:
    """Close a new file of ours that callers are to read: the daemons' umask keeps all others from it."""
    try:
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
