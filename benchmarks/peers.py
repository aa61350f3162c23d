"""The queues that ours is measured beside: task-spooler and nq from Debian, huey with SQLite, and at."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.place import ROOT
from benchmarks.process import text_of

POLL = 0.01  # seconds between two looks of huey's workers and callers; by default they are up to 10 s


def have(program: str) -> bool:
    """Tell whether a peer is installed."""
    return shutil.which(program) is not None


def have_huey() -> bool:
    """Tell whether huey is installed."""
    return importlib.util.find_spec("huey") is not None


def at_is_served() -> bool:
    """Tell whether `at` is installed and its daemon runs."""
    names = (text_of(process / "comm") for process in Path("/proc").glob("[0-9]*"))
    return have("at") and any(name == "atd\n" for name in names)


@contextmanager
def task_spooler(folder: Path, slots: int) -> Iterator[dict[str, str]]:
    """Run a task-spooler of our own; the environment that its clients need. Goals rest on it, so it must be there."""
    if not have("tsp"):
        raise SystemExit("task-spooler is missing: install the Debian package task-spooler (make bench does, as root)")
    environment = os.environ | {"TS_SOCKET": str(folder / "tsp.sock"), "TS_SLOTS": str(slots), "TMPDIR": str(folder)}
    subprocess.run(["tsp", "-S", str(slots)], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        yield environment
    finally:
        subprocess.run(["tsp", "-K"], env=environment, check=False)


@contextmanager
def huey(folder: Path, workers: int) -> Iterator[Any]:
    """Run a consumer of huey's on an SQLite file; the module `huey_jobs` bound to it. None where huey is missing."""
    if not have_huey():
        yield None
        return
    environment = os.environ | {"BENCH_HUEY": str(folder / "huey.db"), "PYTHONPATH": str(ROOT)}
    os.environ["BENCH_HUEY"] = environment["BENCH_HUEY"]
    from benchmarks import huey_jobs

    jobs = importlib.reload(huey_jobs)  # bound to this file, whatever it was bound to before
    options = ["-w", str(workers), "-k", "process", "-d", str(POLL), "-m", str(POLL), "-n", "-q"]
    consumer = subprocess.Popen(
        [sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.huey_jobs.queue", *options],
        env=environment, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        jobs.no_op().get(blocking=True, timeout=30, max_delay=POLL)  # its workers are there
        yield jobs
    finally:
        jobs.queue.storage.close()
        os.killpg(consumer.pid, signal.SIGKILL)
        consumer.wait()
