"""A caller in Python: drops a job file and waits on its light, as docs/protocol.md says. For the command line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX, LIGHT_SUFFIX
from orchestrator.spool.directory import HEARTBEAT
from orchestrator.state import JobStatus

log = logging.getLogger(__name__)

HEARTBEAT_STALE = 180.0  # seconds after which nobody serves the spool (docs/protocol.md)
HEARTBEAT_GRACE = 20.0  # seconds that somebody has then to serve it, before a job is withdrawn
MOVED_GRACE = 5.0  # seconds within which a spool that is not where it was may come back
FIRST_LOOK, LAST_LOOK = 0.02, 1.0  # seconds between two looks at the light

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]", re.ASCII)
_STATUS = {JobStatus.REJECTED: 65, JobStatus.CANCELLED: 66, JobStatus.TIMEOUT: 124}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
NOT_SERVED = 69


class SpoolNotServed(OrchestratorError):  # noqa: N818 - named for what it tells
    """The spool cannot be written, or nothing takes from it."""

    exit_status = NOT_SERVED


@dataclass(frozen=True)
class Verdict:
    """How a job ended: the exit status of docs/protocol.md, and all that its light says; None where it was removed."""

    status: int
    light: str | None

    @property
    def first_line(self) -> str | None:
        """The line of the light that scripts read."""
        return self.light and self.light.partition("\n")[0]


class Caller:
    """A caller in one spool directory, which it holds open: what is missing in another one is no green light."""

    def __init__(self, spool: Path) -> None:
        """Open the spool. Raises SpoolNotServed."""
        self._path = spool
        try:
            self._fd = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise SpoolNotServed(f"{spool}: cannot be opened: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def drop(self, job: str, pairs: Sequence[str], announce: Callable[[str], None] = lambda _: None) -> str:
        """Drop a job file with these `key=value` lines; its NAME.

        `announce` is called with it just before anybody can take the job; what that raises leaves nothing behind.
        Raises UsageError or SpoolNotServed.
        """
        lines = (f"job={job}", *pairs)
        for line in lines:
            # What is not UTF-8 on the command line comes as surrogates.
            if "=" not in line or "\n" in line or any("\ud800" <= char <= "\udfff" for char in line):
                raise UsageError(f"not key=value, or not one line of UTF-8: {line!r}")
        stem = _UNSAFE.sub("_", job)
        if not stem[:1].isalnum():
            stem = f"_{stem}"
        name = f"{stem[:150]}@{time.strftime('%Y%m%dT%H%M%S')}.{os.getpid()}.{secrets.token_hex(3)}"
        with contextlib.ExitStack() as undo:
            with self._writing():
                os.close(os.open(name + LIGHT_SUFFIX, _NEW, 0o666, dir_fd=self._fd))
                undo.callback(self._remove, name + LIGHT_SUFFIX)
                draft = os.open(f".{name}.tmp", _NEW, 0o666, dir_fd=self._fd)
                undo.callback(self._remove, f".{name}.tmp")
                with os.fdopen(draft, "w", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
            announce(name)
            with self._writing():
                self._rename(f".{name}.tmp", name + JOB_SUFFIX)
            undo.pop_all()
        return name

    def wait(self, name: str) -> Verdict:
        """Wait until the light is gone or says something.

        Raises SpoolNotServed where the spool is no longer there, or where nothing serves it and the job could be
        withdrawn.
        """
        pause = FIRST_LOOK
        moved: float | None = None  # since when, on the monotonic clock
        stale: float | None = None
        while True:
            # The job file before the light, and the path after both: see docs/protocol.md.
            waits = self._has(name + JOB_SUFFIX)
            light = self._read_light(name)
            here, now = self._is_in_place(), time.monotonic()
            if not waits and light is None and here:
                return Verdict(0, None)
            if not waits and light:
                self._remove_read_light(name)
                return Verdict(exit_status_of(light.partition("\n")[0]), light)
            if here:
                moved = None
            else:
                moved = now if moved is None else moved
                if now - moved >= MOVED_GRACE:
                    became = f"ask the orchestrator how job {name} ended"
                    with contextlib.suppress(OSError):
                        if self._take_back(name):
                            became = f"job {name} was withdrawn before it was taken"
                    raise SpoolNotServed(f"the spool {self._path} was removed, moved or unmounted: {became}")
            if here and pause >= LAST_LOOK:
                stale = self._look_at_heartbeat(name, waits, stale, now)
            time.sleep(pause)
            pause = min(LAST_LOOK, pause * 1.2)

    def withdraw(self, name: str) -> str:
        """Cancel a job that nobody waits for any more: its job file goes, or NAME.cancel comes. What was done."""
        try:
            if self._take_back(name):
                return f"job {name} was withdrawn before it was taken"
            if not self._is_in_place():  # nobody would read a NAME.cancel there
                return f"the spool {self._path} was removed, moved or unmounted: job {name} may go on"
            os.close(os.open(name + CANCEL_SUFFIX, _NEW & ~os.O_EXCL, 0o666, dir_fd=self._fd))
        except OSError as exc:
            return f"{self._path}: cannot be written: {exc.strerror}: job {name} may go on"
        self._remove(name + LIGHT_SUFFIX)
        return f"job {name} is being cancelled"

    def _look_at_heartbeat(self, name: str, waits: bool, stale: float | None, now: float) -> float | None:
        """See whether the spool is served; since when it is not. Withdraws a job that waits for too long then."""
        if self._is_served():
            if stale is not None:
                log.warning("the spool %s is served again: waiting for job %s", self._path, name)
            return None
        if stale is None:
            stale = now
            then = f"start it within {HEARTBEAT_GRACE:g} s, or job {name} is withdrawn"
            if not waits:
                then = f"job {name} was taken; start the orchestrator"
            log.warning("nothing serves %s (no heartbeat for 3 minutes): %s", self._path, then)
        if waits and now - stale >= HEARTBEAT_GRACE:
            try:
                withdrawn = self._take_back(name)
            except OSError as exc:
                raise SpoolNotServed(f"nothing serves {self._path}; job {name} waits there: {exc.strerror}") from exc
            if withdrawn:
                raise SpoolNotServed(
                    f"nothing serves {self._path} (no heartbeat): job {name} was withdrawn; "
                    "start the orchestrator and submit it again"
                )
        return stale

    def _take_back(self, name: str) -> bool:
        """Take the job file back, and its light with it; False where the orchestrator was quicker."""
        try:
            self._rename(name + JOB_SUFFIX, f".{name}.withdrawn")  # a rename has one winner
        except FileNotFoundError:
            return False
        self._remove(f".{name}.withdrawn")
        self._remove(name + LIGHT_SUFFIX)
        return True

    def _read_light(self, name: str) -> str | None:
        try:
            with open(os.open(name + LIGHT_SUFFIX, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd), "rb") as file:
                return file.read().decode("ascii", errors="backslashreplace")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise SpoolNotServed(f"{self._path}/{name}{LIGHT_SUFFIX}: cannot be read: {exc.strerror}") from exc

    def _remove_read_light(self, name: str) -> None:
        try:
            os.unlink(name + LIGHT_SUFFIX, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as exc:  # as in a sticky spool, where a rewritten light is the orchestrator's
            log.warning("the light %s/%s%s cannot be removed: %s", self._path, name, LIGHT_SUFFIX, exc.strerror)

    def _is_in_place(self) -> bool:
        """Tell whether the spool's path still leads to the directory that is held open."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False

    def _is_served(self) -> bool:
        try:
            return time.time() - os.stat(HEARTBEAT, dir_fd=self._fd).st_mtime < HEARTBEAT_STALE
        except OSError:
            return False

    def _has(self, file: str) -> bool:
        try:
            os.stat(file, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise SpoolNotServed(f"{self._path}/{file}: cannot be seen: {exc.strerror}") from exc
        return True

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _remove(self, file: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(file, dir_fd=self._fd)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise SpoolNotServed(f"{self._path}: cannot be written: {exc.strerror}") from exc


def exit_status_of(line: str) -> int:
    """Read the exit status out of a light's first line."""
    words = line.partition(" reason=")[0].split()
    status = _STATUS.get(JobStatus(words[0])) if words and words[0] in list(JobStatus) else None
    if status is not None:
        return status
    given = next((word.removeprefix("exit=") for word in words if word.startswith("exit=")), "")
    return int(given) if given.isascii() and given.isdigit() and 1 <= int(given) <= 63 else 1
