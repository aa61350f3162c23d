"""What it takes to run one command, and to start the daemons."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks.place import Place, place
from benchmarks.row import Row, milliseconds, within

SAMPLES = 10
COMMANDS = (("status",), ("submit", "MASK_CRM"), ("--help",))
DAEMONS = ("watch", "schedule", "up")


def commands() -> Iterator[Row]:
    """CPU time, user's and system's, of one command of the command line."""
    with place() as here:
        here.make_database()
        floor = statistics.median(_cpu_of([sys.executable, "-c", "pass"], here) for _ in range(SAMPLES))
        for arguments in COMMANDS:
            used = statistics.median(_cpu_of(here.command(*arguments), here) for _ in range(SAMPLES))
            beside = f"of a Python that does nothing {milliseconds(floor)}"
            yield within(f"CPU time of `orchestrator {arguments[0]}`, median of {SAMPLES}", used, 0.150, beside)


def daemons() -> Iterator[Row]:
    """From the start of a daemon until it says that it runs, on a database that is there."""
    with place() as here:
        here.make_database()
        for program in DAEMONS:
            took = statistics.median(_ready_after(here, program) for _ in range(SAMPLES))
            yield within(f"`orchestrator {program}` until it says that it runs, median of {SAMPLES}", took, 0.5)


def _cpu_of(command: Sequence[str], here: Place) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=here.environment, check=False
    )
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:  # status says 1 where nothing serves the spool
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _ready_after(here: Place, program: str) -> float:
    began = time.monotonic()
    started = subprocess.Popen(
        here.command(program), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=here.environment
    )
    try:
        assert started.stderr is not None
        for line in started.stderr:
            if "running, pid" in line:
                return time.monotonic() - began
        raise SystemExit(f"{program} ended before it ran")
    finally:
        started.terminate()
        started.communicate()
