"""Every point at which a program can be cut off: the system calls with which it changes something.

strace attaches to one thread of a running program from outside and kills the program, or lets the call fail, at the
thread's Nth such call: no hook in the program. After that a job must end as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.simulator import Simulator
from tests.house import House, wait_for

WHOLE = os.environ.get("FAULTS") == "whole"  # `make faults`: every point; otherwise a few, chosen at random
CHANGES = (
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "openat", "mkdir", "mkdirat", "write",
    "pwrite64", "fsync", "fdatasync", "ftruncate", "sendto", "connect", "execve", "clone", "clone3", "vfork", "kill",
    "pidfd_send_signal", "flock",
)  # fmt: skip
# What a job is called, what it asks for, and how it must end.
JOBS = {
    "succeeds": ("job=MASK_CRM", None),
    "fails": ("job=MASK_BROKEN", "FAILED"),
    "leaks": ("job=MASK_LEAKS", "FAILED"),
    "cancelled": ("job=MASK_HANGS", "CANCELLED"),
    "command": ("command=run\nparam.status=0", None),
    "failing command": ("command=run\nparam.status=3", "FAILED"),
}

SETTINGS = 'poll = "100ms"\nlost_start_wait = "300ms"\ncrashed_start_wait = "500ms"'

RUNNER = "runner"  # among the programs: the process that runs commands
# What callers may be told then of a command, which can be run but once.
RUNNER_DIED = ("killed together with the process that watches it",)
RUNNER_FAILED = (*RUNNER_DIED, "so the command was not run", "exit status 126")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@dataclass(frozen=True)
class Point:
    """One thread's Nth call of one kind. `thread` counts the threads of the program in order of birth."""

    thread: int
    call: str
    number: int


class RunnerProcess:
    """The process that runs commands in a house; another one takes its place where it has died."""

    def __init__(self, house: House) -> None:
        self._house = house

    @property
    def pid(self) -> int:
        """Its pid; -1 where there is none."""
        found = subprocess.run(
            ["pgrep", "-f", f"command_runner.* {self._house.folder}/run/commands$"], capture_output=True, check=False
        ).stdout.split()
        for pid in map(int, found):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) != pid:  # not the one that starts it, and then ends
                    return pid
        return -1

    def poll(self) -> int | None:
        """Tell whether it has ended, as Popen does."""
        return -9 if self.pid == -1 else None


class Ground:
    """A house with one simulated engine and one program, which is cut off again and again."""

    def __init__(self, folder: Path, engine: Simulator, *programs: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.house = House(folder)
        self.engine = engine
        self._programs = programs
        self._count = 0
        self._last = ""
        self._kinds: dict[str, str] = {}
        self._before: dict[str, int] = {}  # what had been started when a job was dropped
        engine.put_job(name="MASK_HANGS", environment="DEMO", outcome="hang")
        self.house.add_engine(
            "engine1", engine.url, more='poll = "200ms"\nlost_start_wait = "300ms"\ncrashed_start_wait = "500ms"'
        )
        self._ran = folder / "ran"
        self.house.add_settings(
            '[engines.local]\nkind = "command"\ncpus = 2\n[commands.run]\n'
            f"""run = ["/bin/sh", "-c", 'echo "$ORCHESTRATOR_NAME" >> {self._ran}; exit "$0"', "{{param.status}}"]"""
        )
        self.running = {program: self.house.start(program) for program in programs if program != RUNNER}
        self._runner = RunnerProcess(self.house)
        if RUNNER in programs:
            wait_for(lambda: not self.has_ended(RUNNER))

    def close(self) -> None:
        """End everything."""
        self.house.close()

    def has_ended(self, program: str) -> bool:
        """Tell whether a program runs no more."""
        return self._process(program).poll() is not None

    def _process(self, program: str) -> subprocess.Popen[bytes] | RunnerProcess:
        return self._runner if program == RUNNER else self.running[program]

    def threads(self, program: str) -> list[int]:
        """Give the threads of a program, in order of birth."""
        return sorted(int(task) for task in os.listdir(f"/proc/{self._process(program).pid}/task"))

    def starts(self, name: str) -> int:
        """Count what was started, on the engine in all or of one command."""
        if not JOBS[self._kinds[name]][0].startswith("command"):
            return len(self.engine.executions())
        return self._ran.read_text().split().count(name) if self._ran.exists() else 0

    def drop(self, kind: str) -> str:
        """Drop a job of one kind, and its cancel file once it runs; its NAME."""
        self._count += 1
        name = f"J{self._count}"
        self._kinds[name] = kind
        self._before[name] = self.starts(name)
        self.house.drop(name, JOBS[kind][0])
        return name

    def hit(self, program: str, point: Point, inject: str, kind: str) -> tuple[str, bool]:
        """Drop a job while a fault waits at a point; its NAME, and whether the point was reached.

        `inject` is what strace does there, such as `signal=SIGKILL`.
        """
        report = self._trace(
            program, point.thread, kind, point.call, f"inject={point.call}:{inject}:when={point.number}"
        )
        return self._last, "(INJECTED)" in report or self.has_ended(program)

    def calls(self, program: str, thread: int, kind: str) -> Counter[str]:
        """Let a job of one kind pass through; what a thread did meanwhile, and how often."""
        report = self._trace(program, thread, kind, ",".join(CHANGES))
        self.check(self._last, kind)
        return Counter(line.split("(")[0].split()[-1] for line in report.splitlines() if "(" in line)

    def _trace(self, program: str, thread: int, kind: str, calls: str, *more: str) -> str:
        """Drop a job, and see it to its end or the program to its, while one thread is traced; what strace tells."""
        # Those of a program that was just started, or in the place of one that has died, come within a moment.
        wait_for(lambda: len(self.threads(program)) > thread, 35)
        task = self.threads(program)[thread]
        report = self.house.folder / "strace.out"
        report.unlink(missing_ok=True)
        options = [word for each in (f"trace={calls}", *more) for word in ("-e", each)]
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", str(report), *options, "-p", str(task)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(lambda: f"TracerPid:\t{tracer.pid}" in _status(task) or tracer.poll() is not None)
            self._last = name = self.drop(kind)
            self._see_to_its_end(name, kind, lambda: self.has_ended(program), 3.0)
            red = self.house.light(name) == ""
            wait_for(lambda: red or self.has_ended(program) or self.house.job(name).get("released_at"))
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)  # it lets go of the thread
            tracer.wait()
            time.sleep(0.01)  # a kill of just now shows
        return report.read_text() if report.exists() else ""

    def _see_to_its_end(self, name: str, kind: str, stop: Callable[[], bool], seconds: float) -> None:
        """Wait for the light, and cancel what is to be cancelled, until `stop()`."""
        deadline = time.monotonic() + seconds
        asked = False
        while self.house.light(name) == "" and not stop() and time.monotonic() < deadline:
            if kind == "cancelled" and not asked and not (self.house.spool / f"{name}.job").exists():
                asked = True
                (self.house.spool / f"{name}.cancel").touch()
            time.sleep(0.005)

    def mend(self) -> None:
        """Start again what has ended."""
        for program in self._programs:
            if self.has_ended(program):
                if program == RUNNER:
                    self.check(self.drop("command"), "command", may_be_told=RUNNER_DIED)  # the next command starts one
                    wait_for(lambda: not self.has_ended(RUNNER))
                else:
                    self.running[program] = self.house.start(program)

    def check(self, name: str, kind: str, *, may_be_told: tuple[str, ...] = ()) -> None:
        """See a job to its end, and that nothing is wrong with it or left behind.

        `may_be_told`: what a caller may be told, instead of its job being run in spite of what failed.
        """
        self._see_to_its_end(name, kind, lambda: False, 20.0)
        house, (_, end) = self.house, JOBS[kind]
        light = house.light(name)
        if light is not None and any(each in light for each in may_be_told):
            end = "FAILED"
        story = f"{kind}: {house.job(name)}\n{house.log.read_text()[-3000:]}"
        assert light != "", f"the light stays red\n{story}"
        assert (light is None) == (end is None), f"{light!r}\n{story}"
        assert light is None or light.startswith(f"{end} "), f"{light!r}\n{story}"
        assert house.query("SELECT count(*) FROM QUEUE WHERE name = ?", name) == [(1,)], story
        job = house.job(name)
        assert job["status"] == (end or "FINISHED"), story
        wait_for(lambda: house.job(name)["released_at"] is not None, 20, lambda: f"never recorded\n{story}")
        wait_for(
            lambda: house.query("SELECT DISTINCT status, job_id FROM ENGINES") == [("FREE", None)],
            20,
            lambda: f"a CPU stays busy: {house.query('SELECT * FROM ENGINES')}\n{story}",
        )
        starts = self.starts(name) - self._before[name]
        assert starts == 1 or (starts == 0 and (kind == "cancelled" or may_be_told)), f"started {starts} times\n{story}"

        def left() -> list[str]:
            return [file for file in os.listdir(house.spool) if file.startswith(f"{name}.") and "light" not in file]

        wait_for(lambda: not left(), 35, lambda: f"left behind: {left()}\n{story}")

    def check_all(self) -> None:
        """See that the database is whole, and nothing is left behind."""
        assert self.house.query("PRAGMA integrity_check") == [("ok",)]
        private = self.house.spool / ".orchestrator"
        wait_for(lambda: os.listdir(private) == ["lock"], 35, lambda: f"left behind: {os.listdir(private)}")


def hit_points(ground: Ground, program: str, inject: str, kind: str, sample: int = 4) -> tuple[int, int]:
    """Hit a program at all of its points, or at a few by chance, each while a job of this kind passes through.

    Each job must end as it should. Gives how many points were reached, and how many were tried.
    """

    told: tuple[str, ...] = () if inject.startswith("signal=") else ("[Errno ",)
    if program == RUNNER:
        told = RUNNER_DIED if inject.startswith("signal=") else RUNNER_FAILED

    def cut_off(point: Point) -> bool:
        name, reached = ground.hit(program, point, inject, kind)
        ground.mend()
        ground.check(name, kind, may_be_told=told)
        return reached

    threads = range(len(ground.threads(program)))
    places = [
        Point(thread, call, number)
        for thread in threads
        for call, count in sorted(ground.calls(program, thread, kind).items())
        for number in range(1, count + 1)
    ]
    if not WHOLE:
        places = random.Random(f"{program} {inject} {kind}").sample(places, min(sample, len(places)))
    return sum([cut_off(point) for point in places]), len(places)


def _status(thread: int) -> str:
    try:
        return Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return ""
