"""Simulated masking engines, each in a process of its own; `python -m benchmarks.simulated CPUS SECONDS` is one.

That prints its URL. For each line that it reads it prints what the line asks for, as JSON: `requests`, the last
10,000 as the simulator tells them, or `executions`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from benchmarks.place import ROOT
from orchestrator.simulator import Simulator

JOB = "job=MASK_CRM"  # one of the jobs that each of them has
_MEMORY = 1_000_000  # MB: no job waits for that


class SimulatedEngine:
    """One of them, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line()

    def requests(self) -> list[str]:
        """Give the last 10,000 requests, oldest first."""
        asked: list[str] = self._ask("requests")
        return asked

    def executions(self) -> list[dict[str, Any]]:
        """Give all executions, oldest first."""
        started: list[dict[str, Any]] = self._ask("executions")
        return started

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a simulated engine ended by itself")
        return line.rstrip("\n")


@contextmanager
def simulated_engines(count: int, cpus: int, seconds: float) -> Iterator[list[SimulatedEngine]]:
    """Run so many engines with `cpus` each, whose jobs take so long."""
    command = [sys.executable, "-m", "benchmarks.simulated", str(cpus), str(seconds)]
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            stack.enter_context(process)  # closes its pipes, at which it ends, and waits for it
            processes.append(process)
        yield [SimulatedEngine(process) for process in processes]


def instant(text: str) -> float:
    """Give a simulator's time, which has milliseconds, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _serve(cpus: int, seconds: float) -> None:
    with Simulator(cpus=cpus, seconds=seconds, memory=_MEMORY) as engine:
        print(engine.url, flush=True)
        for line in sys.stdin:
            told = engine.requests if line == "requests\n" else engine.executions()
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
