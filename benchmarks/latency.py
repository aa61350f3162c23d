"""How long from a drop to the start of its job, and from the end of a job to the change of its light."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

from benchmarks.place import Place, have, place, task_spooler
from orchestrator.simulator import Simulator

SAMPLES = 60

_DROP = 'echo "$EPOCHREALTIME"; printf "command=stamp\\nparam.file=%s\\n" "$2" > "$1.job"'
_TSP = 'echo "$EPOCHREALTIME"; tsp -n bash -c \'echo "$EPOCHREALTIME" > "$0"\' "$1" > /dev/null'
_NQ = 'echo "$EPOCHREALTIME"; nq -q bash -c \'echo "$EPOCHREALTIME" > "$0"\' "$1" > /dev/null'


def drop_to_start() -> None:
    """Idle system, one no-op job at a time: ours, task-spooler's and nq's in turn."""
    ours, theirs, nqs = [], [], []
    with place() as here, here.running("up"), task_spooler(here.folder, 2) as environment:
        for number in range(SAMPLES):
            stamp = here.folder / f"stamp{number}"
            ours.append(_stamp([_DROP, str(here.spool / f"J{number}"), f"{stamp}.ours"], Path(f"{stamp}.ours")))
            _gone(here, f"J{number}")
            theirs.append(_stamp([_TSP, f"{stamp}.tsp"], Path(f"{stamp}.tsp"), environment))
            if have("nq"):
                nq = environment | {"NQDIR": str(here.folder / "nq")}
                nqs.append(_stamp([_NQ, f"{stamp}.nq"], Path(f"{stamp}.nq"), nq))
            time.sleep(0.02)
    mine, tsp = statistics.median(ours), statistics.median(theirs)
    print(f"drop to start of a no-op command, idle, median of {SAMPLES}")
    print(f"  orchestrator {mine * 1000:6.2f} ms   task-spooler {tsp * 1000:6.2f} ms   ratio {mine / tsp:.2f} (bar: 3)")
    if nqs:
        print(f"  nq           {statistics.median(nqs) * 1000:6.2f} ms   ratio {mine / statistics.median(nqs):.2f}")


def _stamp(script: list[str], stamp: Path, environment: dict[str, str] | None = None) -> float:
    """Run a script that prints when it submits; the seconds until the job's own stamp."""
    command = ["bash", "-c", script[0], "bash", *script[1:]]
    began = float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    while not stamp.exists() or not stamp.read_text().endswith("\n"):
        time.sleep(0.001)
    return float(stamp.read_text()) - began


def _gone(here: Place, name: str) -> None:
    while any((here.spool / f"{name}{suffix}").exists() for suffix in (".job", ".trafficlight")):
        time.sleep(0.001)


def end_to_light() -> None:
    """From the end of a job to the change of its light: a command's, and a masking job's."""
    commands = []
    with place() as here, here.running("up"):
        for number in range(SAMPLES):
            stamp, light = here.folder / f"stamp{number}", here.spool / f"J{number}.trafficlight"
            light.touch()
            (here.spool / f"J{number}.job").write_text(f"command=stamp\nparam.file={stamp}\n")
            gone = _when_gone(light)
            commands.append(gone - float(stamp.read_text()))
    print(f"end of a job to the change of its light, median of {SAMPLES} commands, 20 masking jobs")
    print(f"  command      {statistics.median(commands) * 1000:6.2f} ms (bar: 5; the shell's own end is in it)")
    os.environ["BENCH_PASSWORD"] = "admin"
    late = []
    with Simulator(seconds=1.0, cpus=4) as engine, place() as here:
        with here.settings.open("a") as settings:
            settings.write(f'[engines.engine1]\nkind = "delphix"\nurl = "{engine.url}"\nusername = "admin"\n')
            settings.write('password = "env:BENCH_PASSWORD"\ncpus = 4\n')
        with here.running("up"):
            for number in range(20):
                light = here.spool / f"M{number}.trafficlight"
                light.touch()
                (here.spool / f"M{number}.job").write_text("job=MASK_CRM\n")
                gone = _when_gone(light)
                ended = datetime.fromisoformat(engine.executions()[-1]["endTime"]).timestamp()
                late.append(gone - ended)
    print(f"  masking job  {statistics.median(late) * 1000:6.2f} ms, of 1 s each (a poll is 100 ms then, 2 s at most)")


def _when_gone(light: Path) -> float:
    while light.exists():
        time.sleep(0.0002)
    return time.time()
