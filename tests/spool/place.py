"""A spool, its settings and its database in a folder of a test, with the steps to be called by hand."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.job import Job
from orchestrator.settings import load_settings
from orchestrator.spool.intake import Intake
from orchestrator.spool.release import Release
from orchestrator.state import JobStatus
from orchestrator.store.engines import seed_cpus
from orchestrator.store.models import Events, Queue, tuples_of
from orchestrator.store.moves import jobs_where
from orchestrator.store.placing import place
from orchestrator.store.running import ended, started

HOST = "here"
PATIENCE = 10.0
T = TypeVar("T")

SETTINGS = """
[spools.default]
path = "spool"

[engines.engine1]
kind = "delphix"
url = "http://engine1.invalid/masking/api"

[engines.engine2]
kind = "delphix"
url = "http://engine2.invalid/masking/api"

[engines.local]
kind = "command"

[commands.greet]
run = ["/bin/echo", "{param.who}"]
"""


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def bash(script: str, spool: Path) -> subprocess.Popen[str]:
    """Start a real bash in the spool."""
    return subprocess.Popen(
        ["bash", "-c", script], cwd=spool, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def output_of(caller: subprocess.Popen[str]) -> str:
    """Wait for a bash; what it printed."""
    return caller.communicate(timeout=PATIENCE)[0]


class Place:
    """One spool with its settings, and an open database."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.folder = folder
        self.path = folder / "spool"
        self.path.mkdir(exist_ok=True)
        file = folder / "orchestrator.toml"
        file.write_text(settings)
        self.settings = load_settings(file)
        self.spool = self.settings.spools["default"]
        self.intake = Intake(self.settings, self.spool, HOST)
        self.release = Release(self.settings, HOST)

    def drop(self, name: str, text: str | bytes = "", *, light: bool = True) -> Path:
        """Drop a job file as the six lines of the protocol do; without `light` as a touch-only caller does."""
        if light:
            self.light(name).open("w").close()
        draft = self.path / f".{name[:100]}.tmp"
        draft.write_bytes(text if isinstance(text, bytes) else text.encode())
        return draft.rename(self.path / f"{name}.job")

    def light(self, name: str) -> Path:
        """Give the path of a light."""
        return self.path / f"{name}.trafficlight"

    def rejected(self, name: str) -> Path:
        """Give the path of a refused job file; `.with_suffix('.reason')` is why."""
        return self.path / "rejected" / f"{name}.job"

    def why_rejected(self, name: str) -> str:
        """Read why a job file was refused."""
        return (self.path / "rejected" / f"{name}.reason").read_text()

    def take(self) -> int:
        """Look through the spool once, as a rescan does."""
        return self.intake.take_all()

    def listing(self) -> list[str]:
        """Give what callers see in the spool."""
        return sorted(name for name in os.listdir(self.path) if not name.startswith(".") and name != "rejected")

    def private(self) -> list[str]:
        """Give what the daemons left in their private folder."""
        return sorted(name for name in os.listdir(self.path / ".orchestrator") if name != "lock")

    def finish(self, name: str) -> Job:
        """Let the job called `name` run and end as FINISHED."""
        return self.end(name, JobStatus.FINISHED)

    def end(self, name: str, to: JobStatus, reason: str | None = "it broke", **more: Any) -> Job:
        """Let the job called `name` run and end."""
        seed_cpus("engine1", 1)
        job = self.run(name)
        assert ended(job, to, reason, **more)
        return self.row(name)

    def run(self, name: str) -> Job:
        """Let the job called `name` run."""
        seed_cpus("engine1", 1)
        assert place([(self.active(name), ("engine1", "CPU1"))]) == 1
        assert started(self.active(name), "4711")
        return self.active(name)

    def active(self, name: str) -> Job:
        """Give the unfinished row of this name."""
        [found] = [job for job in self.rows(name) if job.ended_at is None]
        return found

    def rows(self, name: str | None = None) -> list[Job]:
        """Give the rows of QUEUE, of one name or all."""
        return jobs_where(Queue.id > 0 if name is None else Queue.name == name)

    def row(self, name: str) -> Job:
        """Give the latest row of this name."""
        return self.rows(name)[-1]

    def statuses(self) -> dict[str, str]:
        """Give each NAME's latest status."""
        return {job.name: job.status for job in self.rows()}


def moves_of(job: Job) -> list[str]:
    """Give what EVENTS says of a job."""
    return [
        move for (move,) in tuples_of(Events.select(Events.move).where(Events.job_id == job.id).order_by(Events.id))
    ]


class Crash(BaseException):
    """The process is killed here."""


class Killer:
    """Kills the process, as far as a test can, just before its n-th step that others can see."""

    STEPS = ("open", "rename", "unlink", "link", "mkdir", "stat", "fsync", "read", "listdir")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for step in self.STEPS:
            patch.setattr(os, step, self._mortal(getattr(os, step)))
        patch.setattr("orchestrator.store.taking.record_event", self._mortal(_real_record_event))
        patch.setattr("orchestrator.spool.intake.forget", self._mortal(_real_forget))

    def _mortal(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            self.step()
            return step(*args, **options)

        return do

    def step(self) -> None:
        """Come to one step."""
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise Crash
            self.left -= 1

    def survives(self, steps: int, act: Callable[[], Any]) -> bool:
        """Run `act` for so many steps; whether it came to its end."""
        self.left = steps
        try:
            act()
        except Crash:
            return False
        self.left = None
        return True


def _real_record_event(*args: Any, **options: Any) -> Any:
    from orchestrator.store.moves import record_event

    return record_event(*args, **options)


def _real_forget(*args: Any) -> Any:
    from orchestrator.spool.claim import forget

    return forget(*args)
