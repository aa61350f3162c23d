"""The machine that figures were taken on, and the versions of what was measured beside."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

PEERS = ("task-spooler", "nq", "at")


def facts() -> dict[str, str]:
    """Give what a reader has to know of it, by name."""
    return {
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system of temporary files": _file_system(Path(tempfile.gettempdir()).resolve()),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: _debian_version(name) for name in PEERS},
        "huey": _python_version("huey"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Give the kind of the file system that a path is on: of the mounts above it the nearest, and of these the last."""
    mounts = enumerate(line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    above = [(len(point), number, kind) for number, (_, point, kind, *_) in mounts if path.is_relative_to(point)]
    return max(above)[2]


def _debian_version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "not installed"


def _python_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
