"""What the programs cost while nothing happens."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.place import place

SECONDS = 20


def idle() -> None:
    """Wake-ups a second and memory, of `watch` and `schedule`."""
    with place() as here, here.running("watch", "schedule") as programs:
        time.sleep(2)
        before = [_wakes(program.pid) for program in programs]
        time.sleep(SECONDS)
        print(f"idle for {SECONDS} s")
        total = 0.0
        for name, program, start in zip(("watch", "schedule"), programs, before, strict=True):
            wakes, memory = (_wakes(program.pid) - start) / SECONDS, _memory(program.pid)
            total += memory
            print(f"  {name:12} {wakes:6.2f} wake-ups a second (bar: 2)   {memory:4.0f} MiB")
        print(f"  together                                        {total:4.0f} MiB (bar: 150)")


def _wakes(pid: int) -> int:
    lines = [
        line for task in Path(f"/proc/{pid}/task").iterdir() for line in (task / "status").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
