"""An installation in which all is well, to be made ill by a test."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import run
from orchestrator.settings import load_settings
from orchestrator.state import EngineState
from orchestrator.store.database import close_database, open_database
from orchestrator.store.engines import seed_cpus, set_health
from tests.house import House
from tests.unit.make import placed, queued

LONG_AGO = "2020-02-20T20:20:20.000000Z"


class Patient:
    """A house that nothing runs in, but that looks as if: heartbeats, a database, engines that are UP."""

    def __init__(self, house: House, capsys: pytest.CaptureFixture[str]) -> None:
        self.house = house
        self.host = socket.gethostname()
        self._capsys = capsys
        house.folder.chmod(0o755)
        house.spool.chmod(0o2770)
        house.settings.chmod(0o644)
        settings = load_settings(house.settings)  # makes its directories
        self.run_dir = settings.run_dir
        self.beat()
        self.open()
        for engine in settings.engines.values():
            seed_cpus(engine.name, engine.cpus or 0)
            set_health(engine.name, engine.kind, EngineState.UP, None)
        close_database()

    def beat(self) -> None:
        """Look alive."""
        (self.house.spool / ".heartbeat").touch()
        (self.run_dir / "schedule.beat").touch()

    def open(self) -> None:
        """Open the database, for functions of the store."""
        open_database(f"sqlite:///{self.house.database}")

    def take(self, name: str, **fields: Any) -> int:
        """Make a QUEUED job with a light; its id."""
        self.open()
        try:
            return queued(name, **{"host": self.host} | fields).id
        finally:
            close_database()
            (self.house.spool / f"{name}.trafficlight").touch()

    def place(self, name: str, engine: str = "local", cpu: str = "CPU1") -> int:
        """Make a SCHEDULED job; its id."""
        self.open()
        try:
            return placed(name, engine, cpu, host=self.host).id
        finally:
            close_database()

    def change(self, table: str, values: str, where: str = "1") -> None:
        """Change rows as with the sqlite3 shell, and leave no -wal behind."""
        self.house.query(f"UPDATE {table} SET {values} WHERE {where}")

    def long_ago(self) -> None:
        """Let all that ever happened have happened long ago."""
        self.change("EVENTS", f"at = '{LONG_AGO}'")
        self.change("HEALTH", f"since = '{LONG_AGO}'")

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run one command here; its status and what it printed."""
        self._capsys.readouterr()
        status = run(["--config", str(self.house.settings), *arguments])
        out, err = self._capsys.readouterr()
        return status, out + err

    def doctor(self, *arguments: str) -> list[dict[str, Any]]:
        """Give the findings; the exit status must suit them."""
        status, out = self.command("doctor", "--json", *arguments)
        findings: list[dict[str, Any]] = json.loads(out)["findings"]
        assert status == int(any(finding["level"] == "FAIL" for finding in findings))
        return findings

    def found(self, level: str, subject: str, *words: str) -> dict[str, Any]:
        """Give the one finding of this level and subject whose text has all words."""
        findings = self.doctor("--timeout", "2")
        fitting = [
            each
            for each in findings
            if (each["level"], each["subject"]) == (level, subject) and all(word in each["found"] for word in words)
        ]
        assert len(fitting) == 1, findings
        assert level == "OK" or fitting[0]["advice"]
        return fitting[0]

    def is_well(self, findings: Iterable[dict[str, Any]] | None = None) -> None:
        """See that no line is other than OK."""
        assert [each for each in (findings or self.doctor()) if each["level"] != "OK"] == []

    def recover(self) -> list[tuple[str, str, str]]:
        """Give what a restart would mend."""
        status, out = self.command("recover", "--dry-run", "--json")
        assert status == 0
        return [(each["what"], each["which"], each["then"]) for each in json.loads(out)]

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Give all there is: names, modes, owners, times and contents. Of folders no time: a file was dropped."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.house.folder.rglob("*")):
            status = path.lstat()
            facts: tuple[object, ...] = (stat.filemode(status.st_mode), status.st_uid, status.st_ino)
            if stat.S_ISREG(status.st_mode) and not path.name.endswith("-shm"):  # where readers leave their marks
                facts += (status.st_mtime_ns, path.read_bytes())
            found[str(path.relative_to(self.house.folder))] = facts
        return found


def make_executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def is_root() -> bool:
    """Tell whether this may become another user."""
    return os.geteuid() == 0
