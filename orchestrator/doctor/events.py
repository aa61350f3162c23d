"""Whether the kernel tells of what is dropped: inotify's limits, and a file that is dropped and seen."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, fail, ok, user, warn
from orchestrator.settings import SpoolSettings
from orchestrator.spool.observe import POLL_INTERVAL, SpoolEvents, make_observer, must_poll

PROBE = ".doctor."  # how the name of the file begins that is dropped: hidden, so that nobody takes it
PATIENCE = 1.5  # seconds that an event may take to arrive, besides what polling takes
AGAIN = 0.25  # seconds until the file is written again: one that polls knows no file that was there at its first look
NEARLY = 0.9  # of a limit

_LIMITS = Path("/proc/sys/fs/inotify")
_PROC = Path("/proc")


class _Probe(SpoolEvents):
    """Waits for one hidden file, which the observer of a program passes over."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, lambda _: None, lambda: None, lambda: None)
        self.seen = threading.Event()
        self._name = name

    def tell(self, name: str) -> None:
        """Take the name of a file that was seen."""
        if name == self._name:
            self.seen.set()


def check_events(spool: SpoolSettings, patience: float = PATIENCE) -> Iterator[Finding]:
    """Drop a file that no program takes, see whether its event arrives, and remove it."""
    subject = f"spool {spool.name}"
    if not os.access(spool.path, os.W_OK | os.X_OK):
        found = f"whether events arrive was not tried: {user(os.geteuid())} may not write in {spool.path}"
        yield warn(subject, found, "run doctor as the user who runs the programs")
        return
    name = f"{PROBE}{os.getpid()}.{secrets.token_hex(4)}"
    probe = _Probe(spool.path, name)
    polled = must_poll(spool.path, spool.observer)
    try:
        observer = make_observer(probe, spool.observer)
    except OSError as exc:
        yield _no_inotify(subject, exc)
        return
    try:
        try:
            observer.start()
        except OSError as exc:
            yield _no_inotify(subject, exc)
            return
        took = _drop(probe, spool.path / name, patience + (2 * POLL_INTERVAL if polled else 0))
    except OSError as exc:
        yield fail(subject, f"{spool.path}: no file can be dropped: {exc.strerror}", "see to its disk and its mount")
        return
    finally:
        observer.stop()
        with contextlib.suppress(RuntimeError):  # it was never started
            observer.join(1)
    way = "polling" if polled else "inotify"
    if took is None:
        advice = 'observer = "polling" in the settings; until then a look every 30 s finds what is dropped'
        yield fail(subject, f"no event came of a file that was dropped ({way})", advice)
    else:
        yield ok(subject, f"a file that was dropped was seen after {took * 1000:.0f} ms ({way})")


def _drop(probe: _Probe, file: Path, patience: float) -> float | None:
    """Write a file until it is seen, and remove it; the seconds that took. Raises OSError."""
    began = time.monotonic()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(file, flags, 0o600)
    try:
        while True:
            os.close(fd)
            if probe.seen.wait(min(AGAIN, patience)):
                return time.monotonic() - began
            if time.monotonic() - began > patience:
                return None
            fd = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.write(fd, b"doctor\n")
    finally:
        file.unlink(missing_ok=True)


def _no_inotify(subject: str, exc: OSError) -> Finding:
    found = f"inotify cannot watch it: {exc.strerror}: it is polled"
    return fail(subject, found, "raise fs.inotify.max_user_instances or max_user_watches with sysctl")


def check_limits(uid: int) -> Iterator[Finding]:
    """See how much of inotify's limits is used up by the user who runs the programs."""
    instances, watches = _used(uid)
    found, bad = [], False
    for name, used in (("max_user_instances", instances), ("max_user_watches", watches)):
        try:
            limit = int((_LIMITS / name).read_text())
        except (OSError, ValueError):
            continue
        found.append(f"{name} {limit}, used {used}")
        bad |= used >= limit * NEARLY
    if not found:
        yield warn("inotify", f"{_LIMITS} cannot be read", "see whether /proc is mounted")
    elif bad:
        told = f"{user(uid)} has nearly reached a limit: {'; '.join(found)}"
        yield warn("inotify", told, "raise it with sysctl fs.inotify..., else new spools are polled")
    else:
        yield ok("inotify", "; ".join(found))


def _used(uid: int) -> tuple[int, int]:
    """Count the inotify instances and watches of a user's processes, as far as /proc shows them."""
    instances = watches = 0
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if process.stat().st_uid != uid:
                continue
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) == "anon_inode:inotify":
                    instances += 1
                    watches += (process / "fdinfo" / fd.name).read_text().count("inotify wd:")
        except OSError:  # it has ended, or is not shown to us
            continue
    return instances, watches
