"""No-op jobs a second: 50 callers that wait for each, 2 CPUs."""

from __future__ import annotations

import subprocess
import time

from benchmarks.place import place, task_spooler

CALLERS = 50
JOBS = 20  # each
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


def throughput() -> None:
    """Ours, every job durable in SQLite, and task-spooler's, in turn: what else the machine does meets both."""
    rounds = []
    for _ in range(ROUNDS):
        with place() as here:
            with here.running("watch", "schedule"):
                ours = _rate(
                    [["bash", "-c", _OURS, "bash", str(here.spool), str(n), str(JOBS)] for n in range(CALLERS)]
                )
            with task_spooler(here.folder, 2) as environment:
                theirs = _rate([["bash", "-c", _TSP, "bash", str(JOBS)]] * CALLERS, environment)
        rounds.append((ours / theirs, ours, theirs))
    ratio, ours, theirs = sorted(rounds)[len(rounds) // 2]
    print(f"no-op jobs a second, {CALLERS} callers that wait, 2 CPUs, the median of {ROUNDS} rounds")
    print(f"  orchestrator {ours:6.0f}      task-spooler {theirs:6.0f}      ratio {ratio:.2f} (bar: 0.33)")
    print(f"  all ratios   {'  '.join(f'{each:.2f}' for each, *_ in sorted(rounds))}")


def _rate(commands: list[list[str]], environment: dict[str, str] | None = None) -> float:
    began = time.monotonic()
    callers = [subprocess.Popen(command, env=environment) for command in commands]
    statuses = [caller.wait() for caller in callers]
    if any(statuses):
        raise SystemExit("a caller was not released green")
    return CALLERS * JOBS / (time.monotonic() - began)
