"""A place to measure in: an installation with command engines, its programs, and the peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = """
[spools.default]
path = "spool"
[engines.local]
kind = "command"
cpus = 2
[commands.true]
run = ["/bin/true"]
[commands.stamp]
run = ["/bin/bash", "-c", 'echo "$EPOCHREALTIME" > "$0"', "{param.file}"]
"""


class Place:
    """A folder with an installation of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.settings = folder / "orchestrator.toml"
        self.settings.write_text(SETTINGS)
        self.log = folder / "programs.log"

    @contextmanager
    def running(self, *programs: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Run programs, such as `up`, meanwhile."""
        command = [sys.executable, "-m", "orchestrator", "--config", str(self.settings)]
        with self.log.open("wb") as log:
            started = [subprocess.Popen([*command, program], stderr=log) for program in programs]
            try:
                while self.log.read_text().count("running, pid") < len(programs):
                    if any(program.poll() is not None for program in started):
                        sys.exit(self.log.read_text())
                    time.sleep(0.05)
                time.sleep(1)  # the engines are asked once
                yield started
            finally:
                for program in started:
                    program.terminate()
                    program.wait()


@contextmanager
def place() -> Iterator[Place]:
    """Give a place, and take it away."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
        yield Place(Path(folder))


@contextmanager
def task_spooler(folder: Path, slots: int) -> Iterator[dict[str, str]]:
    """Run a task-spooler of our own; the environment that its clients need. None of ours where it is missing."""
    environment = os.environ | {"TS_SOCKET": str(folder / "tsp.sock"), "TS_SLOTS": str(slots), "TMPDIR": str(folder)}
    subprocess.run(["tsp", "-S", str(slots)], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        yield environment
    finally:
        subprocess.run(["tsp", "-K"], env=environment, check=False)


def have(program: str) -> bool:
    """Tell whether a peer is installed."""
    return shutil.which(program) is not None
