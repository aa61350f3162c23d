"""Two simulated engines and `orchestrator up` in one directory."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.cli.init import this_program
from orchestrator.demo.processes import Processes

PATIENCE = 20.0  # seconds for a process to come up

_SETTINGS = """\
database = "sqlite:///orchestrator.db"
run_dir = "run"
log_dir = "log"

[spools.default]
path = "spool"
"""
_ENGINE = """
[engines.{name}]
kind = "delphix"
url = {url}
username = "admin"
password = {password}
cpus = {cpus}
poll = "500ms"
"""


@dataclass(frozen=True)
class SimulatedEngine:
    """An engine that is not there. The same job has another id on each, as on real ones."""

    name: str
    cpus: int
    first_id: int


ENGINES = (SimulatedEngine("engine1", 2, 1), SimulatedEngine("engine2", 2, 1001))


class Stage:
    """The directory, and what runs in it."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        """Make what is missing in `directory`."""
        self.directory = directory
        self.settings = directory / "orchestrator.toml"
        self.spool = directory / "spool"
        self.log = directory / "log"
        self._processes = processes
        for path in (self.spool, self.log, directory / "run"):
            path.mkdir(mode=0o700, exist_ok=True)

    def start_engines(self, seconds: float) -> dict[str, subprocess.Popen[bytes]]:
        """Start the engines, whose jobs take `seconds`, and write settings that name them. Raises DemoError."""
        password = self.directory / "engine-password"
        _write_own(password, "admin\n")
        started, logs = {}, {}
        for engine in ENGINES:
            logs[engine.name] = self.log / f"{engine.name}.log"
            options = {"cpus": engine.cpus, "first-id": engine.first_id, "seconds": seconds}
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            command = [this_program(), "simulate-engine", *words]
            started[engine.name] = self._processes.start(command, logs[engine.name])
        text = _SETTINGS
        for engine in ENGINES:
            log = logs[engine.name]
            listening = partial(_url, log)
            self._processes.wait_until(listening, engine.name, started[engine.name], log, PATIENCE)
            text += _ENGINE.format(
                name=engine.name, cpus=engine.cpus, url=json.dumps(listening()), password=json.dumps(f"file:{password}")
            )
        _write_own(self.settings, text)
        return started

    def start_orchestrator(self, log: Path | None) -> subprocess.Popen[bytes]:
        """Start `orchestrator up` and wait until it serves the spool. Raises DemoError."""
        heartbeat = self.spool / ".heartbeat"
        heartbeat.unlink(missing_ok=True)
        process = self._processes.start([this_program(), "--config", str(self.settings), "up"], log)
        self._processes.wait_until(heartbeat.exists, "orchestrator up", process, log, PATIENCE)
        return process


def _write_own(path: Path, text: str) -> None:
    """Write a file that only its owner may read or change, whatever the umask is."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")


def _url(log: Path) -> str:
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("listening on ") and line.endswith("\n"):
            return line.removeprefix("listening on ").strip()
    return ""
