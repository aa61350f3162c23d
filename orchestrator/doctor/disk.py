"""Disk space: of the spools, the database and the logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, fail, ok, warn
from orchestrator.settings import Settings
from orchestrator.store.database import file_of

LITTLE, NEXT_TO_NOTHING = 0.10, 0.01  # of the space that there is
NEXT_TO_NOTHING_BYTES = 50 * 2**20


_statvfs = os.statvfs


def check_disk(settings: Settings) -> Iterator[Finding]:
    """See how much is free on each file system that something of ours lies on."""
    places = {"database": file_of(settings.database).parent, "log": settings.log_dir, "run": settings.run_dir}
    places |= {f"spool {spool.name}": spool.path for spool in settings.spools.values()}
    on: dict[int, tuple[Path, list[str]]] = {}
    for what, path in places.items():
        there = next((each for each in (path, *path.parents) if each.exists()), None)
        if there is not None:
            on.setdefault(os.stat(there).st_dev, (there, []))[1].append(what)
    for path, names in on.values():
        yield _space(path, ", ".join(names))


def _space(path: Path, what: str) -> Finding:
    disk = _statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    share = disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail)  # as df tells it
    files = disk.f_favail / disk.f_files if disk.f_files else 1.0  # some file systems do not count them
    found = f"{path} ({what}): {_size(free)} free, {share:.0%}"
    if files < share:
        found += f"; {files:.0%} of its inodes"
    if min(share, files) < NEXT_TO_NOTHING or free < NEXT_TO_NOTHING_BYTES:
        return fail("disk", found, "make room: jobs are not taken, started or released on a full disk")
    if min(share, files) < LITTLE:
        return warn("disk", found, "make room")
    return ok("disk", found)


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
