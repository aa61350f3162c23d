"""A place to measure in: an installation with a command engine, its programs, and whatever is added to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "orchestrator" / "orchestrator.bash"

_SETTINGS = """
[spools.default]
path = "spool"
[engines.local]
kind = "command"
cpus = {cpus}
[commands.true]
run = ["/bin/true"]
[commands.stamp]
run = ["/bin/bash", "-c", 'echo "$EPOCHREALTIME" > "$0"', "{{param.file}}"]
"""

_MASKING_ENGINE = """
[engines.engine{number}]
kind = "delphix"
url = "{url}"
username = "admin"
password = "env:BENCH_PASSWORD"
cpus = {cpus}
poll = "{poll}s"
"""


class Place:
    """A folder with an installation of its own, whose command engine has so many CPUs."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.database = folder / "orchestrator.db"
        self.settings = folder / "orchestrator.toml"
        self.settings.write_text(_SETTINGS.format(cpus=cpus))
        self.settings.chmod(0o644)
        self.log = folder / "programs.log"
        self.environment = os.environ | {"BENCH_PASSWORD": "admin", "ORCHESTRATOR_SPOOL": str(self.spool)}

    def add_masking_engines(self, urls: Sequence[str], cpus: int, poll: float) -> None:
        """Add masking engines to the settings, called engine1, engine2 ...; `poll` in seconds."""
        with self.settings.open("a") as settings:
            for number, url in enumerate(urls, 1):
                settings.write(_MASKING_ENGINE.format(number=number, url=url, cpus=cpus, poll=poll))

    def command(self, *arguments: str) -> list[str]:
        """Give the command line that runs `orchestrator` here."""
        return [sys.executable, "-m", "orchestrator", "--config", str(self.settings), *arguments]

    @contextmanager
    def running(self, *programs: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Run programs, such as `up`, meanwhile; every engine has answered before the block begins."""
        with self.log.open("wb") as log:
            started = [
                subprocess.Popen(self.command(program), stdin=subprocess.DEVNULL, stderr=log, env=self.environment)
                for program in programs
            ]
            try:
                while self.log.read_text().count("running, pid") < len(programs):
                    self._see_that_they_run(started)
                    time.sleep(0.01)
                if {"up", "schedule"} & set(programs):
                    self._wait_for_engines(started)
                yield started
                self._see_that_they_run(started)
            finally:
                for program in started:
                    program.terminate()
                for program in started:
                    _end(program)

    def make_database(self) -> None:
        """Let a program make the database, as at the first start."""
        with self.running("schedule"):
            pass

    def drop(self, name: str, *lines: str) -> None:
        """Drop a job file as a caller does: the light first, then the file, whole, by a rename."""
        (self.spool / f"{name}.trafficlight").touch()
        draft = self.spool / f".{name}.tmp"
        draft.write_text("".join(f"{line}\n" for line in lines))
        draft.rename(self.spool / f"{name}.job")

    def is_green(self, name: str) -> bool:
        """Tell whether a job's light is gone; one with a verdict in it ends the benchmark."""
        try:
            verdict = (self.spool / f"{name}.trafficlight").read_text()
        except FileNotFoundError:
            return True
        if verdict:
            raise SystemExit(f"{name} ended red: {verdict}")
        return False

    def wait_for_jobs(self, status: str, count: int) -> None:
        """Wait until exactly so many jobs have a status."""
        counting = "SELECT count(*) FROM QUEUE WHERE status = ?"
        wait_until(lambda: self.query(counting, status) == [(count,)], f"{count} jobs are {status}")

    def query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Ask the database."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(sql, values).fetchall()

    def _wait_for_engines(self, started: Sequence[subprocess.Popen[bytes]], seconds: float = 30) -> None:
        wanted = self.settings.read_text().count("[engines.")
        deadline = time.monotonic() + seconds
        while self.query("SELECT count(*) FROM HEALTH WHERE state = 'UP'") != [(wanted,)]:
            self._see_that_they_run(started)
            if time.monotonic() > deadline:
                raise SystemExit(f"not all of {wanted} engines are up:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        time.sleep(0.5)  # what they were asked at first is done with

    def _see_that_they_run(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        if any(program.poll() is not None for program in started):
            raise SystemExit(f"a program ended by itself:\n{self.log.read_text()[-2000:]}")


def _end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(20)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 180, pause: float = 0.2) -> None:
    """Wait until a condition holds, looked at each `pause` seconds; `what` was waited for ends the benchmark else."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not in {seconds:g} s: {what}")
        time.sleep(pause)


@contextmanager
def place(cpus: int = 2) -> Iterator[Place]:
    """Give a place, and take it away."""
    with folder() as path:
        yield Place(path, cpus)


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder in the directory for temporary files, and take it away."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as path:
        yield Path(path)
