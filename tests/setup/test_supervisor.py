"""A real supervisord with the supervisor.conf that `orchestrator init` writes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import wait_for

BIN = Path(sys.executable).parent
CLIENT = Path(__file__).parents[2] / "orchestrator" / "orchestrator.bash"
PROGRAMS = ["watch", "schedule"]
STOPPED_WITHIN = 2.0  # seconds, as docs promise


def is_alive(pid: int) -> bool:
    """Does it run? What nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Supervised:
    """An installation under supervisord, in a folder whose path has a blank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.conf = folder / "supervisor.conf"

    def start(self) -> None:
        """Start supervisord in the background, as operators do, and wait until both programs run."""
        subprocess.run([BIN / "supervisord", "-c", self.conf], check=True, timeout=20)
        self.wait_for_running()

    def ctl(self, *words: str) -> str:
        """Ask supervisorctl."""
        done = subprocess.run(
            [BIN / "supervisorctl", "-c", self.conf, *words], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip() + done.stderr.strip()

    def pid(self, program: str) -> int:
        """The pid of one program; 0 while it has none."""
        answer = self.ctl("pid", program)
        return int(answer) if answer.isdigit() else 0

    def supervisor(self) -> int:
        """The pid of supervisord itself."""
        return int((self.folder / "run" / "supervisord.pid").read_text())

    def wait_for_running(self) -> None:
        """Wait until supervisord says so of both programs."""
        wait_for(lambda: self.ctl("status").count("RUNNING") == len(PROGRAMS), 20, lambda: self.ctl("status"))

    def wait_for_another(self, program: str, killed: int) -> None:
        """Wait until a program runs as another process than the one that was killed."""
        wait_for(lambda: self.pid(program) not in (0, killed), 20, self.logs)

    def logs(self) -> str:
        """All that was logged."""
        return "\n".join(log.read_text() for log in sorted((self.folder / "log").glob("*.log")))

    def call(self, *words: str) -> None:
        """Run one job as a bash script does; it must turn green."""
        done = subprocess.run(
            ["bash", CLIENT, "--spool", self.spool, *words], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr + self.logs()

    def close(self) -> None:
        """End supervisord, also where a test has failed on the way."""
        with contextlib.suppress(OSError, ValueError):
            pid = self.supervisor()
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not is_alive(pid))


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    # A short path: supervisord's socket must have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="super vised.") as folder:
        subprocess.run([BIN / "orchestrator", "init", folder], check=True, stdout=subprocess.DEVNULL)
        installation = Supervised(Path(folder))
        try:
            installation.start()
            yield installation
        finally:
            installation.close()


def test_jobs_run_and_a_killed_program_comes_back_and_goes_on(supervised: Supervised) -> None:
    supervised.call("greet", "command=greet", "param.who=you")
    for program in PROGRAMS:
        killed = supervised.pid(program)
        os.kill(killed, signal.SIGKILL)
        supervised.wait_for_another(program, killed)
        supervised.call("greet", "command=greet", "param.who=you again")

    supervised.wait_for_running()


def test_a_job_that_runs_while_schedule_is_killed_still_ends_green(supervised: Supervised) -> None:
    with (supervised.folder / "orchestrator.toml").open("a") as settings:
        settings.write('[commands.nap]\nrun = ["/bin/sleep", "2"]\n')
    supervised.ctl("signal", "HUP", *PROGRAMS)
    wait_for(lambda: supervised.logs().count("settings reread") == len(PROGRAMS), 20, supervised.logs)
    with subprocess.Popen(
        ["bash", CLIENT, "--spool", supervised.spool, "nap", "command=nap"], stderr=subprocess.PIPE
    ) as caller:
        wait_for(lambda: "(nap@" in supervised.logs() and " runs on local" in supervised.logs(), 20, supervised.logs)
        os.kill(supervised.pid("schedule"), signal.SIGKILL)

        assert caller.wait(30) == 0, supervised.logs()


def test_each_program_reads_its_settings_anew_on_hup_and_goes_on_as_the_same_process(supervised: Supervised) -> None:
    before = [supervised.pid(program) for program in PROGRAMS]
    with (supervised.folder / "orchestrator.toml").open("a") as settings:
        settings.write('[commands.new]\nrun = ["/bin/true"]\n')
    supervised.ctl("signal", "HUP", *PROGRAMS)
    wait_for(lambda: supervised.logs().count("settings reread") == len(PROGRAMS), 20, supervised.logs)

    supervised.call("new", "command=new")

    assert [supervised.pid(program) for program in PROGRAMS] == before


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_stops_on_term_in_under_two_seconds(supervised: Supervised, program: str) -> None:
    pid = supervised.pid(program)
    began = time.monotonic()
    supervised.ctl("stop", program)
    took = time.monotonic() - began

    assert "exit status 0" in (supervised.folder / "log" / "supervisord.log").read_text()
    assert not is_alive(pid)
    assert took < STOPPED_WITHIN + 1, "and supervisorctl takes a part of a second"


def test_a_shutdown_leaves_no_process(supervised: Supervised) -> None:
    supervised.call("greet", "command=greet", "param.who=you")
    pids = [supervised.supervisor(), *(supervised.pid(program) for program in PROGRAMS)]

    supervised.ctl("shutdown")

    wait_for(lambda: not any(map(is_alive, pids)), 10, lambda: str([pid for pid in pids if is_alive(pid)]))
    assert not (supervised.folder / "run" / "supervisor.sock").exists()
