"""Which process is which: pid, start time and boot together name one process for ever (Linux /proc)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

MAX_PID = 2**22  # the kernel's own limit (proc(5), pid_max)

_TICKS = os.sysconf("SC_CLK_TCK")
# A caller may write pid= into its job file in the second in which it was born; clocks differ by this much at most.
_BIRTH_SLACK = 1.0


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of this host. `start` is in clock ticks since `boot`."""

    pid: int
    start: int
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}:{self.boot}"

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity:
        """Read what `str()` gave. Raises ValueError where it names no process."""
        pid, start, boot = text.split(":", 2)
        if not 0 < int(pid) <= MAX_PID:
            raise ValueError(f"not a pid: {pid[:20]}")
        return cls(int(pid), int(start), boot)

    @classmethod
    def of_child(cls, pid: int) -> ProcessIdentity:
        """Name a child that has not been waited for, so that its pid is still its own, even where it has ended."""
        found = _stat(pid)
        if found is None:
            raise AssertionError(f"no child {pid}")
        return cls(pid, found.start, boot_id())

    def is_alive(self) -> bool:
        """Tell whether this very process still runs (a zombie does not)."""
        found = _stat(self.pid)
        return found is not None and found.start == self.start and found.state not in "ZX" and self.boot == boot_id()


@cache
def boot_id() -> str:
    """The kernel's id of the present boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessIdentity | None:
    """Name the process that bears `pid` now; None where there is none."""
    found = _stat(pid)
    return None if found is None or found.state in "ZX" else ProcessIdentity(pid, found.start, boot_id())


def identify_caller(pid: int, owner: int, written_at: float) -> ProcessIdentity | None:
    """Prove that `pid` is the caller that wrote a job file owned by uid `owner` at `written_at` (seconds, UTC).

    None where it is another user's process, is gone, or was born after the file was written (a reused pid).
    """
    caller = identify(pid)
    if caller is None or uid_of(pid) != owner:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - caller.start / _TICKS
    if time.time() - age > written_at + _BIRTH_SLACK:
        return None
    return caller


def signal_caller(caller: ProcessIdentity, owner: int, number: signal.Signals) -> bool:
    """Send a signal to the proven caller only (P6); False where it is gone or no longer of uid `owner`.

    The pidfd holds on to one process, so between the proof and the signal the pid cannot come to mean another.
    """
    try:
        fd = os.pidfd_open(caller.pid)
    except OSError:
        return False
    try:
        if not caller.is_alive() or uid_of(caller.pid) != owner:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def session_members(leader: ProcessIdentity, owner: int) -> list[int]:
    """Give the pids of the processes of uid `owner` in the session that `leader` opened, itself among them."""
    bearer = _stat(leader.pid)
    # A pid is not given out again while it names a session: another process that bears it shows that ours is empty.
    if leader.boot != boot_id() or (bearer is not None and bearer.start != leader.start):
        return []
    members = []
    for pid in _pids():
        found = _stat(pid)
        # Born after the leader: a session of an earlier process with the same pid is another one.
        if found is not None and found.session == leader.pid and found.start >= leader.start and uid_of(pid) == owner:
            members.append(pid)
    return members


def processes_writing_to(path: str, owner: int) -> list[int]:
    """Give the pids of the processes of uid `owner` whose standard output is the file at `path`."""
    members = []
    with contextlib.suppress(OSError):
        file = os.stat(path)
        for pid in _pids():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/1"), file) and uid_of(pid) == owner:
                    members.append(pid)
    return members


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


class _Stat(NamedTuple):
    """What is needed of /proc/PID/stat, fields 3, 6 and 22 (proc(5))."""

    state: str
    session: int
    start: int


def _stat(pid: int) -> _Stat | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_stat(os.read(fd, 4096).decode("utf-8", errors="replace"))
    except OSError:  # it went meanwhile
        return None
    finally:
        os.close(fd)


def _read_stat(text: str) -> _Stat:
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def uid_of(pid: int) -> int | None:
    """Give the real uid of a process. /proc/PID's own owner may be root for processes that cannot be dumped."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])
