"""A small file system of a test's own: to be filled, mounted over, and taken away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and run programs as another user")
# Root who may not write where the mode forbids it.
NO_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
# A namespace of its own, in which inotify gives nothing.
NO_INOTIFY = (
    "unshare", "--user", "--map-root-user",
    "sh", "-c", 'echo 0 >/proc/sys/user/max_inotify_instances; exec "$@"', "sh",
)  # fmt: skip


def run(*command: str) -> None:
    """Run a command of the system."""
    subprocess.run(command, check=True, capture_output=True)


def mount(folder: Path, size: str = "16m") -> None:
    """Mount an empty file system over a folder; skips the test where that cannot be."""
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=2000", "tmpfs", str(folder))
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no file system can be mounted: {exc.stderr!r}")


def unmount(folder: Path) -> None:
    """Take it away, also from those who have it open."""
    run("umount", "--lazy", str(folder))


def fill(folder: Path, *, inodes: bool = False) -> list[Path]:
    """Write until nothing more fits, nor a new file where `inodes`; the files that take the room."""
    fillers = [folder / ".filler"]
    with fillers[0].open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    while inodes:
        try:
            (folder / f".filler{len(fillers)}").touch()
        except OSError:
            break
        fillers.append(folder / f".filler{len(fillers)}")
    return fillers
