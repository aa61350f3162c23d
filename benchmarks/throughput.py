"""No-op jobs a second: 50 callers that wait for each, 2 CPUs."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.peers import POLL, have, huey, task_spooler
from benchmarks.place import Place, place
from benchmarks.row import Row

CALLERS = 50
JOBS = 20  # each
FEWER = 10  # each, of the peers that no goal rests on
ROUNDS = 5

_OURS = """
exec 9<> <(:)
for job in $(seq "$3"); do
    name=$1/J$2_$job
    : > "$name.trafficlight"
    echo command=true > "$name.job"
    while [ -e "$name.trafficlight" ] && [ ! -s "$name.trafficlight" ]; do read -r -t 0.1 -u 9; done
    [ ! -e "$name.trafficlight" ] || exit 1
done
"""
_TSP = 'for job in $(seq "$1"); do tsp -nf true || exit 1; done'
_NQ = 'for job in $(seq "$1"); do id=$(nq true) && nq -w "$id" || exit 1; done'  # a directory runs one at a time


def throughput() -> Iterator[Row]:
    """Ours, every job durable in SQLite, and the peers', in turn: what else the machine does meets all."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"task-spooler": [], "nq": [], "huey on SQLite, polling each 10 ms": []}
    tsp, nq, with_huey = theirs
    for _ in range(ROUNDS):
        with place() as here:
            with here.running("watch", "schedule"):
                scripts = [[_OURS, str(here.spool), str(number), str(JOBS)] for number in range(CALLERS)]
                ours.append(_rate(scripts, JOBS))
            with task_spooler(here.folder, 2) as environment:
                theirs[tsp].append(_rate([[_TSP, str(JOBS)]] * CALLERS, JOBS, [environment]))
            if have("nq"):
                theirs[nq].append(_rate([[_NQ, str(FEWER)]] * CALLERS, FEWER, _nq_environments(here)))
            with huey(here.folder, 2) as jobs:
                if jobs is not None:
                    theirs[with_huey].append(_huey_rate(jobs))
    for name, rates in theirs.items():
        yield _beside(ours, name, rates, has_goal=name == tsp)


def _beside(ours: Sequence[float], name: str, theirs: Sequence[float], *, has_goal: bool) -> Row:
    what = f"no-op jobs a second, {CALLERS} callers that wait, 2 CPUs, median of {ROUNDS} rounds"
    mine = f"{statistics.median(ours):.0f}"
    if not theirs:
        return Row(what, mine, f"{name} is not installed")
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    peer = f"{name} {statistics.median(theirs):.0f}"
    return Row(what, mine, peer, ratio=ratio, goal="≥ 1" if has_goal else "", met=not has_goal or ratio >= 1)


def _nq_environments(here: Place) -> list[dict[str, str]]:
    """Two directories: as many jobs at once as the others run."""
    return [os.environ | {"NQDIR": str(here.folder / f"nq{number}")} for number in range(2)]


def _rate(
    scripts: Sequence[Sequence[str]], jobs: int, environments: Sequence[dict[str, str] | None] = (None,)
) -> float:
    """Run one bash a script, with the environments in turn; the jobs a second, of which each runs so many."""
    began = time.monotonic()
    callers: list[subprocess.Popen[bytes]] = []
    try:
        for number, (script, *words) in enumerate(scripts):
            command = ["bash", "-c", script, "bash", *words]
            environment = environments[number % len(environments)]
            callers.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        statuses = [caller.wait(300) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()
    if any(statuses):
        raise SystemExit("a caller was not released green")
    return len(scripts) * jobs / (time.monotonic() - began)


def _huey_rate(jobs: Any) -> float:
    """Do the same by threads of this process, since a Python a caller would take most of the time to start."""

    def call() -> None:
        for _ in range(FEWER):
            jobs.no_op().get(blocking=True, timeout=300, max_delay=POLL)

    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as threads:
        for done in [threads.submit(call) for _ in range(CALLERS)]:
            done.result()
    return CALLERS * FEWER / (time.monotonic() - began)
