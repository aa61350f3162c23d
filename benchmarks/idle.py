"""What the programs cost while jobs wait and nothing can be done about it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from benchmarks.place import Place, place, wait_until
from benchmarks.process import MIB, cpu_seconds, named_after, own_memory, resident_memory, wake_ups
from benchmarks.row import Row

SECONDS = 30  # in which everything that is done now and then is done once
QUEUED = 10_000


def idle() -> Iterator[Row]:
    """Processes, CPU, memory and wake-ups of `watch` and `schedule`, with 10,000 jobs queued and no CPU free."""
    with place() as here, here.running("watch", "schedule") as programs:
        _run_one_command(here)
        subprocess.run(here.command("engine", "drain", "local"), check=True, stdout=subprocess.DEVNULL)
        for number in range(QUEUED):
            here.drop(f"J{number}", "command=true")
        here.wait_for_jobs("QUEUED", QUEUED)
        time.sleep(3)
        processes = named_after(here.folder)  # also the runner of commands, which is nobody's child
        before, woken = cpu_seconds(processes), [wake_ups(program.pid) for program in programs]
        began = time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - began
        part = (cpu_seconds(processes) - before) / took
        often = [(wake_ups(program.pid) - start) / took for program, start in zip(programs, woken, strict=True)]
        processes = named_after(here.folder)
        memory, own = resident_memory(processes) / MIB, own_memory(processes) / MIB
    what = f"idle with {QUEUED:,} queued, watch, schedule and the runner of commands"
    yield Row(f"{what}: processes", str(len(processes)), goal="≤ 3", met=len(processes) <= 3)
    yield Row(f"{what}: of one core, over {SECONDS} s", f"{part:.2%}", goal="< 0.5 %", met=part < 0.005)
    yield Row(
        f"{what}: memory together",
        f"{memory:.0f} MiB",
        f"of their own {own:.0f} MiB",
        goal="< 120 MiB",
        met=memory < 120,
    )
    yield Row(
        f"{what}: wake-ups a second, the more often woken of them",
        f"{max(often):.2f}",
        goal="≤ 2",
        met=max(often) <= 2,
    )


def _run_one_command(here: Place) -> None:
    """Have all processes there that an installation has which has run a command."""
    here.drop("FIRST", "command=true")
    wait_until(lambda: here.is_green("FIRST"), "the first command has ended", pause=0.05)
