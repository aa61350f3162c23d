"""What processes cost, as /proc tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def tree(pid: int) -> list[int]:
    """Give a process and all that come from it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, text_of(children).split())
    return found


def named_after(folder: Path) -> list[int]:
    """Give the processes whose command line names a folder, or something in it."""
    wanted = os.fsencode(folder)
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if wanted in os.fsencode(text_of(process / "cmdline"))
    ]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Add up the CPU time of living processes and of those children of theirs that have ended, in seconds."""
    total = 0.0
    for pid in pids:
        tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
        total += sum(int((text_of(task).split() or ["0"])[0]) for task in tasks) / 1e9
        fields = text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) * _TICK if fields else 0.0
    return total


def own_memory(pids: Iterable[int]) -> int:
    """Add up the bytes that each has for itself alone."""
    return sum(_kib(f"/proc/{pid}/smaps_rollup", "Private_Clean", "Private_Dirty") for pid in pids) * 1024


def resident_memory(pids: Iterable[int]) -> int:
    """Add up the bytes that are in memory; what several share counts for each."""
    return sum(int((text_of(Path(f"/proc/{pid}/statm")).split() or ["0", "0"])[1]) for pid in pids) * _PAGE


def wake_ups(pid: int) -> int:
    """Count how often its threads went to sleep so far."""
    return sum(_kib(str(task), "voluntary_ctxt_switches") for task in Path(f"/proc/{pid}/task").glob("*/status"))


def _kib(file: str, *keys: str) -> int:
    lines = (line.partition(":") for line in text_of(Path(file)).splitlines())
    return sum(int(value.split()[0]) for key, _, value in lines if key in keys)


def text_of(file: Path) -> str:
    """Read a file of /proc; empty where its process has ended."""
    try:
        return file.read_text()
    except OSError:
        return ""
