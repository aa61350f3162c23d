"""The jobs that huey runs: the same programs that the others run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from huey import SqliteHuey

queue = SqliteHuey(filename=os.environ["BENCH_HUEY"], fsync=True)


def _no_op() -> bool:
    subprocess.run(["/bin/true"], check=True)
    return True  # of a job that returns None nobody is told the end


def _stamp(file: str) -> bool:
    subprocess.run(["/bin/bash", "-c", 'echo "$EPOCHREALTIME" > "$0"', file], check=True)
    return Path(file).exists()


no_op = queue.task()(_no_op)
stamp = queue.task()(_stamp)
