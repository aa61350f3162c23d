"""How long from a drop to the start of its job, and from the end of a job to the change of its light."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import at_is_served, have, huey, task_spooler
from benchmarks.place import Place, folder, place, wait_until
from benchmarks.row import Row, milliseconds, within
from benchmarks.simulated import JOB, SimulatedEngine, instant, simulated_engines

SAMPLES = 200
FEWER = 60  # of what takes longer, or is read only
AT_SAMPLES = 5
LIGHTS = 100_000

# Each prints when it submits. The job is the same program everywhere: a bash that writes down when it began.
_DROP = 'echo "$EPOCHREALTIME"; printf "command=stamp\\nparam.file=%s\\n" "$1" > "$2.job"'
_TSP = 'echo "$EPOCHREALTIME"; tsp -n bash -c \'echo "$EPOCHREALTIME" > "$0"\' "$1" > /dev/null'
_NQ = 'echo "$EPOCHREALTIME"; nq -q bash -c \'echo "$EPOCHREALTIME" > "$0"\' "$1" > /dev/null'
_AT = """
echo "$EPOCHREALTIME"
echo "bash -c 'echo \\"\\$EPOCHREALTIME\\" > \\"\\$0\\"' '$1'" | at now 2> /dev/null
"""


def drop_to_start() -> Iterator[Row]:
    """Idle system, one no-op job at a time: ours and the peers' in turn."""
    ours, tsps, nqs, hueys, ats = [], [], [], [], []
    with (
        place() as here,
        here.running("up"),
        task_spooler(here.folder, 2) as environment,
        huey(here.folder, 2) as huey_jobs,
    ):
        nq = os.environ | {"NQDIR": str(here.folder / "nq")}
        for number in range(SAMPLES):
            stamp = here.folder / f"stamp{number}"
            ours.append(_our_start(here, number))
            tsps.append(_start(_TSP, Path(f"{stamp}.tsp"), environment=environment))
            if have("nq") and number < FEWER:
                nqs.append(_start(_NQ, Path(f"{stamp}.nq"), environment=nq))
            if huey_jobs is not None and number < FEWER:
                began = time.time()
                huey_jobs.stamp(f"{stamp}.huey")
                hueys.append(_stamped(Path(f"{stamp}.huey")) - began)
            if number < AT_SAMPLES and at_is_served():
                ats.append(_start(_AT, Path(f"{stamp}.at")))
            time.sleep(0.02)
    mine = statistics.median(ours)
    yield _beside(mine, "task-spooler", tsps, goal="≤ 1", highest=1.0)
    yield _beside(mine, "nq", nqs, missing="is not installed")
    yield _beside(mine, "huey on SQLite, polling each 10 ms", hueys, missing="is not installed")
    yield _beside(mine, "at", ats, missing="was left out: no atd runs here")
    late = statistics.quantiles(ours, n=100)[98]
    theirs = f"task-spooler {milliseconds(statistics.quantiles(tsps, n=100)[98])}"
    yield within(f"drop to start, idle, a command, 99th percentile of {SAMPLES}", late, 0.010, theirs)


def _beside(
    mine: float, name: str, theirs: Sequence[float], goal: str = "", highest: float = 0.0, missing: str = ""
) -> Row:
    what = "drop to start, idle, a command, median"
    if not theirs:
        return Row(what, milliseconds(mine), f"{name} {missing}")
    ratio = mine / statistics.median(theirs)
    return Row(
        what,
        milliseconds(mine),
        f"{name} {milliseconds(statistics.median(theirs))}",
        ratio=ratio,
        goal=goal,
        met=not goal or ratio <= highest,
    )


def drop_to_post() -> Iterator[Row]:
    """From a drop to the start of its execution at a simulated engine, which is in a process of its own."""
    times = []
    with simulated_engines(1, 4, 0.05) as [engine], _with_engine(engine) as here:
        for number in range(FEWER):
            name = f"M{number}"
            began = time.time()
            here.drop(name, JOB)
            _when_gone(here, name)
            times.append(instant(engine.executions()[-1]["startTime"]) - began)
            time.sleep(0.02)
    what = f"drop to POST /executions at a simulated engine, median of {FEWER}"
    yield within(what, statistics.median(times), 0.008)


def end_to_light() -> Iterator[Row]:
    """From the end of a job to the change of its light: a command's, and a masking job's."""
    commands = []
    with place() as here, here.running("up"):
        for number in range(SAMPLES):
            name, stamp = f"J{number}", here.folder / f"stamp{number}"
            here.drop(name, "command=stamp", f"param.file={stamp}")
            commands.append(_when_gone(here, name) - float(stamp.read_text()))
    what = f"end of a command to its light, median of {SAMPLES} (the end of its shell is in it)"
    yield within(what, statistics.median(commands), 0.002)
    late = []
    with simulated_engines(1, 4, 1.0) as [engine], _with_engine(engine) as here:
        for number in range(20):
            name = f"M{number}"
            here.drop(name, JOB)
            late.append(_when_gone(here, name) - instant(engine.executions()[-1]["endTime"]))
    yield Row(
        "end of a masking job of 1 s to its light, median of 20 (asked for each 100 ms then)",
        milliseconds(statistics.median(late)),
    )


def drop_to_start_among_lights() -> Iterator[Row]:
    """In a spool with 100,000 lights of other callers, and in one with none, in turn."""
    few, many = [], []
    with folder() as where:
        empty, full = Place(where / "empty"), Place(where / "full")
        full.make_database()  # where lights wait and there is no database, none is made
        for number in range(LIGHTS):
            (full.spool / f"OTHER{number}.trafficlight").touch()
        with empty.running("up"), full.running("up"):
            time.sleep(3)  # the first look through the spool
            for number in range(SAMPLES):
                few.append(_our_start(empty, number))
                many.append(_our_start(full, number))
                time.sleep(0.02)
    ratio = statistics.median(many) / statistics.median(few)
    yield Row(
        f"drop to start with {LIGHTS:,} lights in the spool, median of {SAMPLES}",
        milliseconds(statistics.median(many)),
        f"with none {milliseconds(statistics.median(few))}",
        ratio=ratio,
        goal="≤ 1.5",
        met=ratio <= 1.5,
    )


@contextmanager
def _with_engine(engine: SimulatedEngine) -> Iterator[Place]:
    with place() as here:
        here.add_masking_engines([engine.url], cpus=4, poll=2.0)
        with here.running("up"):
            yield here


def _our_start(here: Place, number: int) -> float:
    """Give the seconds from a drop to its job's start; its light is gone after that."""
    name, stamp = f"J{number}", here.folder / f"stamp{number}.ours"
    seconds = _start(_DROP, stamp, str(here.spool / name))
    files = [here.spool / f"{name}{end}" for end in (".job", ".trafficlight")]
    wait_until(lambda: not any(file.exists() for file in files), f"{name} has ended", pause=0.001)
    return seconds


def _start(script: str, stamp: Path, *more: str, environment: dict[str, str] | None = None) -> float:
    """Run a script that submits a job which writes down when it starts; the seconds from one to the other."""
    command = ["bash", "-c", script, "bash", str(stamp), *more]
    submitted = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return _stamped(stamp) - float(submitted.stdout)


def _stamped(stamp: Path) -> float:
    wait_until(lambda: stamp.exists() and stamp.read_text().endswith("\n"), f"{stamp} is written", pause=0.001)
    return float(stamp.read_text())


def _when_gone(here: Place, name: str) -> float:
    wait_until(lambda: here.is_green(name), f"{name} has ended", pause=0.0002)
    return time.time()
