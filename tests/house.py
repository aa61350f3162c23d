"""A running installation for tests, with everything real but the masking engines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ORCHESTRATOR = (sys.executable, "-m", "orchestrator")
CLIENT = Path(__file__).parents[1] / "orchestrator" / "orchestrator.bash"


class House:
    """One installation in a folder of its own: its settings, its programs, its callers."""

    def __init__(self, folder: Path, under: tuple[str, ...] = ()) -> None:
        """Make it; its programs run under the command `under`, which replaces itself by them."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.spool = folder / "spool"
        self.settings = folder / "orchestrator.toml"
        self.database = folder / "orchestrator.db"
        self.log = folder / "programs.log"
        self.programs: list[subprocess.Popen[bytes]] = []
        self.callers: list[subprocess.Popen[str]] = []
        self.environment = os.environ | {"ENGINE_PASSWORD": "admin", "ORCHESTRATOR_SPOOL": str(self.spool)}
        self._under = under
        self.spool.mkdir()
        self.settings.write_text('[spools.default]\npath = "spool"\n')
        self.settings.chmod(0o644)  # whatever the umask is

    def add_engine(self, name: str, url: str, cpus: int = 2, more: str = "") -> None:
        """Add a masking engine to the settings."""
        self.add_settings(
            f'[engines.{name}]\nkind = "delphix"\nurl = "{url}"\nusername = "admin"\n'
            f'password = "env:ENGINE_PASSWORD"\ncpus = {cpus}\n{more}\n'
        )

    def add_settings(self, text: str) -> None:
        """Add tables to the settings."""
        with self.settings.open("a") as file:
            file.write(text + "\n")

    def start(self, *program: str) -> subprocess.Popen[bytes]:
        """Start a program, such as `up`, and wait until it says that it runs."""
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [*self._under, *ORCHESTRATOR, "--config", str(self.settings), *(program or ("up",))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
            )  # fmt: skip
        self.programs.append(started)
        wait_for(lambda: f"running, pid {started.pid}," in self.log.read_text() or started.poll() is not None)
        assert started.poll() is None, self.log.read_text()
        return started

    def kill(self, program: subprocess.Popen[bytes]) -> None:
        """Kill a program with -9."""
        program.kill()
        program.wait()

    def run(self, *arguments: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line; it must end with `status`."""
        done = subprocess.run(
            [*ORCHESTRATOR, "--config", str(self.settings), *arguments],
            capture_output=True, text=True, timeout=60, env=self.environment, check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done

    def call(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the drop-in client as a caller that waits."""
        caller = subprocess.Popen(
            ["bash", str(CLIENT), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip
        self.callers.append(caller)
        return caller

    def script(self, text: str) -> subprocess.Popen[str]:
        """Start a bash script as a caller."""
        caller = subprocess.Popen(
            ["bash", "-c", text],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip
        self.callers.append(caller)
        return caller

    def drop(self, name: str, *lines: str) -> None:
        """Drop a job file as the protocol says: the light first, then the file by mv."""
        (self.spool / f"{name}.trafficlight").touch()
        draft = self.spool / f".{name}.tmp"
        draft.write_text("".join(f"{line}\n" for line in lines))
        draft.rename(self.spool / f"{name}.job")

    def light(self, name: str) -> str | None:
        """Read a light: None where it is gone (green), empty where it is red."""
        try:
            return (self.spool / f"{name}.trafficlight").read_text()
        except FileNotFoundError:
            return None

    def verdict(self, name: str, seconds: float = 20) -> str | None:
        """Wait until a light changes, and give what it says; None for green."""
        wait_for(lambda: self.light(name) != "", seconds, lambda: f"{name} stays red\n{self.log.read_text()}")
        return self.light(name)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database as an operator would, with the sqlite3 shell."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    def job(self, name: str) -> dict[str, Any]:
        """Give a job's row."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            row = connection.execute("SELECT * FROM QUEUE WHERE name = ? ORDER BY id DESC", (name,)).fetchone()
        return dict(row) if row else {}

    def wait_for_status(self, name: str, *statuses: str, seconds: float = 20) -> dict[str, Any]:
        """Wait until a job has one of the statuses; its row."""
        wait_for(
            lambda: self.database.exists() and self.job(name).get("status") in statuses,
            seconds,
            lambda: f"{name} is {self.job(name)}\n{self.log.read_text()}",
        )
        return self.job(name)

    def wait_for_engine(self, name: str, state: str) -> None:
        """Wait until an engine is in a state."""
        wait_for(lambda: self.query("SELECT 1 FROM HEALTH WHERE engine = ? AND state = ?", name, state), 40)

    def json(self, *arguments: str) -> Any:
        """Run a command with --json; what it printed."""
        return json.loads(self.run(*arguments, "--json", status=None).stdout)

    def close(self) -> None:
        """End everything that was started."""
        processes: list[subprocess.Popen[Any]] = [*self.programs, *self.callers]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def wait_for(
    condition: Callable[[], object], seconds: float = 20, why: Callable[[], str] = lambda: "it never came true"
) -> None:
    """Wait until a condition holds; a failure tells why it should have."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(why())
        time.sleep(0.01)
