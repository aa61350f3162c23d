"""What callers cost that wait: the drop-in client, while its job gets no CPU."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.place import CLIENT, Place, place
from benchmarks.process import MIB, cpu_seconds, own_memory, tree
from benchmarks.row import Row

CALLERS = 1_000
SETTLING = 25.0  # seconds until each looks as seldom as it ever will
SECONDS = 30.0  # in which each looks at the heartbeat once


@dataclass(frozen=True)
class Waiting:
    """The cost of callers that wait."""

    cpu: float  # of all, as a part of one core
    median_memory: float  # bytes of its own, of one with its children
    most_memory: float


def callers() -> Iterator[Row]:
    """1,000 callers that wait."""
    cost = waiting_callers(CALLERS)
    yield Row(
        f"CPU of {CALLERS:,} waiting orchestrator.bash, of one core, over {SECONDS:g} s",
        f"{cost.cpu:.1%}",
        goal="< 10 %",
        met=cost.cpu < 0.10,
    )
    yield Row(
        f"memory of its own of one of {CALLERS:,} waiting orchestrator.bash, the largest",
        f"{cost.most_memory / MIB:.2f} MiB",
        f"their median {cost.median_memory / MIB:.2f} MiB",
        goal="< 4 MiB",
        met=cost.most_memory < 4 * MIB,
    )


def waiting_callers(count: int) -> Waiting:
    """Start so many, wait until all wait, and look on."""
    with place(cpus=0) as here, here.running("up"):
        started: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(count):
                started.append(_call(here))  # noqa: PERF401 - those that run are to be ended whatever comes
            here.wait_for_jobs("QUEUED", count)
            time.sleep(SETTLING)
            before, began = _cpu(started), time.monotonic()
            time.sleep(SECONDS)
            busy, took = _cpu(started) - before, time.monotonic() - began
            memory = [own_memory(tree(caller.pid)) for caller in started]
            if any(caller.poll() is not None for caller in started):
                raise SystemExit("a caller did not wait")
        finally:
            for caller in started:
                caller.kill()  # a kinder signal would make it cancel its job
            for caller in started:
                caller.wait()
    return Waiting(busy / took, statistics.median(memory), max(memory))


def _call(here: Place) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", str(CLIENT), "HELD", "command=true"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=here.environment,
    )  # fmt: skip


def _cpu(started: list[subprocess.Popen[bytes]]) -> float:
    return cpu_seconds(pid for caller in started for pid in tree(caller.pid))
