"""The engine of kind `command`: local processes, which outlive the daemons, and whose exit status still arrives.

Each attempt has a file run_dir/commands/UID/ID.ATTEMPT, its claim. Made by command_run.sh it names the process that
runs the command, and later its exit status; made by a daemon it says `never`: the command never runs.
See docs/decisions/0004-command-supervision.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import select
import signal
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from orchestrator.clock import seconds_since
from orchestrator.engines.base import Ended, Engine, Knows, Lookup, Running, StartLost
from orchestrator.errors import EngineDown, JobRefused, StartRefused
from orchestrator.job import Job
from orchestrator.process import ProcessIdentity, boot_id, session_members, uid_of
from orchestrator.settings import EngineSettings, Settings, SettingsTable, read_options
from orchestrator.spool.policy import fill_in
from orchestrator.state import JobStatus

log = logging.getLogger(__name__)

RUN = str(Path(__file__).with_name("command_run.sh"))
PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
_NEVER = "never"  # in the claim of a daemon, before the boot's id
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class _Process:
    """One running command: its supervising shell, which leads its session, and a descriptor that tells its end."""

    identity: ProcessIdentity
    fd: int
    child: subprocess.Popen[bytes] | None  # None after a restart of the daemon


class CommandEngine(Engine):
    """Runs configured commands, and shell lines where policy allowed them at intake."""

    def __init__(self, settings: EngineSettings, everything: Settings) -> None:
        """Check the settings. Raises SettingsError."""
        super().__init__(settings, everything)
        self.poll = read_options(settings, _read_poll)
        self._commands = everything.commands
        self._states = everything.run_dir / "commands"
        self._logs = everything.log_dir / "jobs"
        self._processes: dict[str, _Process] = {}
        self._ended: set[str] = set()  # what had ended when this was last waited for
        self._folders: set[Path] = set()  # those for claims that are known to be there

    def close(self) -> None:
        """Let go of all commands; they run on."""
        for execution in list(self._processes):
            self._let_go(execution)

    def describe(self) -> str:
        """Make the folders for state and output; a command engine is always there where they are."""
        try:
            self._states.mkdir(mode=0o711, exist_ok=True)
            self._logs.mkdir(mode=0o750, exist_ok=True)
        except OSError as exc:
            raise EngineDown(f"{exc.filename}: {exc.strerror}") from exc
        self._folders.clear()
        self._remove_old_claims()
        return "commands on this host"

    def _remove_old_claims(self) -> None:
        """Remove what daemons claimed before this boot: nobody is left who could be kept from running."""
        for claim in self._states.glob("*/*"):
            with contextlib.suppress(OSError, ValueError):
                text = _read_small(claim)
                if text.startswith(_NEVER) and text != f"{_NEVER} {boot_id()}\n":
                    claim.unlink()

    def lookup(self, job: Job) -> Lookup:
        """Tell whether the job is a command that is configured, or a shell line."""
        if job.command is None:
            return Lookup(Knows.NO, "runs commands only")
        if job.shell or job.command in self._commands:
            return Lookup(Knows.YES)
        return Lookup(Knows.NO, f"no command {job.command} is configured")

    def refresh(self) -> None:
        """Nothing to ask: the settings tell."""

    def mark(self, job: Job) -> str | None:
        """Nothing to ask: the claim tells."""
        return None

    def start(self, job: Job) -> str:
        """Start the command in a session of its own."""
        execution = f"{job.id}.{job.attempts}"
        try:
            words = self._words(job)
            uid, gid, groups, environment = _user(job)
            claim = self._folder(job) / execution
            output = self._open_output(job)
        except (OSError, JobRefused, KeyError) as exc:
            raise StartRefused(f"the command cannot be started: {exc}") from exc
        told, tell = os.pipe()
        try:
            child = subprocess.Popen(
                ["/bin/sh", RUN, str(claim), boot_id(), *words],
                stdin=told, stdout=output, stderr=output, cwd="/", env=environment,
                start_new_session=True, user=uid, group=gid, extra_groups=groups,
            )  # fmt: skip
            identity = ProcessIdentity.of_child(child.pid)
            with contextlib.suppress(BrokenPipeError):  # it was killed already
                os.write(tell, b"%d\n" % identity.start)
        except (OSError, subprocess.SubprocessError) as exc:
            raise StartRefused(f"the command cannot be started: {exc}") from exc
        finally:
            for fd in (told, tell, output):
                os.close(fd)
        self._processes[execution] = _Process(identity, os.pidfd_open(child.pid), child)
        return execution

    def _folder(self, job: Job) -> Path:
        """Give the folder for claims of the user as whom a job runs; it is made where it is not known to be there."""
        uid = _owner(job)
        folder = self._states / str(uid)
        if folder not in self._folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if uid != os.geteuid():
                os.chown(folder, uid, -1)
            self._folders.add(folder)
        return folder

    def _claim_of(self, job: Job) -> Path:
        return self._states / str(_owner(job)) / (job.execution or f"{job.id}.{job.attempts}")

    def _words(self, job: Job) -> list[str]:
        command = job.command or ""
        if job.shell:
            return ["/bin/sh", "-c", command]
        run = self._commands.get(command)
        if run is None:
            raise JobRefused(f"no command {command} is configured")
        return fill_in(run, json.loads(job.params))

    def _open_output(self, job: Job) -> int:
        path = self._logs / f"{job.id}-{job.name}.log"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def find_start(self, job: Job, others: Iterable[str]) -> str | None:
        """Claim the attempt: where that works, it never ran and never will; else it runs, or ran."""
        claim = self._claim_of(job)
        try:
            self._folder(job)
            with open(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(f"{_NEVER} {boot_id()}\n")
        except FileExistsError:
            return claim.name
        except OSError as exc:
            raise StartLost(f"{claim}: {exc.strerror}") from exc
        return None

    def check(self, jobs: Sequence[Job]) -> Mapping[int, Running | Ended]:
        """Read the exit status of those whose supervising shell has ended."""
        return {job.id: self._check(job) for job in jobs}

    def _check(self, job: Job) -> Running | Ended:
        execution = job.execution or ""
        process = self._processes.get(execution) or self._adopt(job)
        if process is not None:
            if process.identity.is_alive():
                return Running()
            self._let_go(execution)
        status = self._exit_status(job)
        if status is None:
            leader = process.identity if process is not None else self._claimant(job)
            if leader is not None:
                _kill_session(leader, job, signal.SIGKILL)
        output = f"output: {self._logs / f'{job.id}-{job.name}.log'}"
        if job.ending is not None:
            return Ended(status=JobStatus.CANCELLED, reason=job.ending_why, exit_status=status, detail=output)
        if status == 0:
            return Ended(status=JobStatus.FINISHED, exit_status=0, detail=output)
        if status is None:
            return Ended(
                status=JobStatus.FAILED,
                reason="the command was killed together with the shell that watches it, or the host went down",
                detail=output,
            )
        signalled = f" (signal {status - 128})" if status > 128 else ""
        return Ended(
            status=JobStatus.FAILED, reason=f"exit status {status}{signalled}", exit_status=status, detail=output
        )

    def _adopt(self, job: Job) -> _Process | None:
        """Find the process of a command that an earlier daemon started."""
        identity = self._claimant(job)
        if identity is None:
            return None
        try:
            fd = os.pidfd_open(identity.pid)
        except OSError:
            return None
        if not identity.is_alive():
            os.close(fd)
            return None
        process = _Process(identity, fd, None)
        self._processes[job.execution or ""] = process
        return process

    def _claimant(self, job: Job) -> ProcessIdentity | None:
        """Name the supervising shell that claimed the attempt, alive or not."""
        try:
            identity = ProcessIdentity.parse(_read_small(self._claim_of(job)).partition("\n")[0])
        except (OSError, ValueError):
            return None
        # The user of the command could have put another's process there.
        return identity if uid_of(identity.pid) in (None, _owner(job)) else None

    def _exit_status(self, job: Job) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            _, status, end = _read_small(self._claim_of(job)).split("\n")
            if not end and 0 <= int(status) <= 255:
                return int(status)
        return None

    def cancel(self, job: Job) -> None:
        """SIGTERM to the command and all its children, and SIGKILL to those that stay."""
        process = self._processes.get(job.execution or "") or self._adopt(job)
        if process is None:
            return
        patient = seconds_since(job.ending_tick or "", job.submitted_at) < PATIENCE
        _kill_session(process.identity, job, signal.SIGTERM if patient else signal.SIGKILL)

    def forget(self, job: Job) -> None:
        """Remove the attempt's claim. A daemon's own stays: without it, a start that comes late would run."""
        claim = self._claim_of(job)
        self._let_go(claim.name)
        with contextlib.suppress(OSError):
            if not _is_never(claim):
                claim.unlink()

    def wait_fds(self) -> Iterable[int]:
        """Give a descriptor for each running command. One that is readable after the tick it caused is nobody's."""
        fds = {process.fd: execution for execution, process in self._processes.items()}
        readable = select.poll()
        for fd in fds:
            readable.register(fd, select.POLLIN)
        ended = {fds[fd] for fd, _ in readable.poll(0)} if fds else set()
        for execution in ended & self._ended:  # another program recorded its end, or the database cannot be asked
            self._let_go(execution)
        self._ended = ended
        return [process.fd for process in self._processes.values()]

    def _let_go(self, execution: str) -> None:
        process = self._processes.pop(execution, None)
        if process is not None:
            os.close(process.fd)
            if process.child is not None and process.child.poll() is None:
                process.child.returncode = 0  # it runs on: Popen must not complain


def _read_poll(table: SettingsTable) -> float:
    return table.take_seconds("poll", 2.0)


def _user(job: Job) -> tuple[int | None, int | None, list[int] | None, dict[str, str]]:
    """As whom a job's command runs: as root, its job file's owner; else as ourselves. And its environment.

    Nothing of the daemon's own environment goes in: it may hold the engines' passwords.
    """
    uid = os.geteuid()
    user = _passwd(_owner(job))
    environment = {
        "PATH": PATH, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": "/bin/sh",
        "LANG": "C.UTF-8", "ORCHESTRATOR_JOB": job.job, "ORCHESTRATOR_NAME": job.name, "ORCHESTRATOR_ID": str(job.id),
    }  # fmt: skip
    if uid != 0 or user.pw_uid == 0:
        return None, None, None, environment
    return user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid), environment


def _owner(job: Job) -> int:
    uid = os.geteuid()
    return job.owner if uid == 0 and job.owner is not None else uid


@lru_cache(maxsize=256)
def _passwd(uid: int) -> pwd.struct_passwd:
    return pwd.getpwuid(uid)


def _is_never(claim: Path) -> bool:
    """Tell whether a daemon made the claim, or was about to; the user of the command may have put anything there."""
    try:
        text = _read_small(claim)
    except (OSError, ValueError):
        return False
    return not text or text.startswith(_NEVER)


def _read_small(path: Path) -> str:
    """Read a file of a folder that belongs to the user of the command: it may have become a FIFO, a link, a giant."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(fd, 4096).decode("utf-8") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    finally:
        os.close(fd)


def _kill_session(leader: ProcessIdentity, job: Job, number: signal.Signals) -> None:
    for pid in session_members(leader, _owner(job)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
