"""The engine of kind `command`: local processes, which outlive the daemons, and whose exit status still arrives.

Each CPU has a file run_dir/commands/ENGINE.CPU. It tells of the attempt that was started there last: which one, as
which process it runs, how it ended. It is locked until then. A runner, which outlives the daemon, starts the commands.
See docs/decisions/0004-command-supervision.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pwd
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from urllib.parse import quote

from orchestrator.clock import seconds_since
from orchestrator.engines.base import Ended, Engine, Knows, Lookup, Running
from orchestrator.engines.command_record import Attempt, last_of, lock, open_record, read_attempt
from orchestrator.engines.command_runner import Command, Runner, is_readable
from orchestrator.errors import EngineDown, JobRefused, StartRefused
from orchestrator.job import Job
from orchestrator.process import ProcessIdentity, processes_writing_to, session_members
from orchestrator.settings import EngineSettings, Settings, SettingsTable, read_options
from orchestrator.spool.policy import fill_in
from orchestrator.state import JobStatus

log = logging.getLogger(__name__)

LINGER = 0.001  # seconds
MAX_RECORD = 65536  # bytes of the file of a CPU: to begin anew each time would cost more than all else in it
RECORD_PATIENCE = 0.05  # seconds between the end of a command and the record of it, at most
PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class _Process:
    """One command that an earlier daemon's runner runs, and a descriptor that tells its end (pidfd_open(2))."""

    identity: ProcessIdentity
    fd: int


class CommandEngine(Engine):
    """Runs configured commands, and shell lines where policy allowed them at intake."""

    mark_asks = False

    def __init__(self, settings: EngineSettings, everything: Settings) -> None:
        """Check the settings. Raises SettingsError."""
        super().__init__(settings, everything)
        self.poll = read_options(settings, _read_poll)
        self._commands = everything.commands
        self._states = everything.run_dir / "commands"
        self._logs = everything.log_dir / "jobs"
        self._runner: Runner | None = None
        self._adopted: dict[str, _Process] = {}
        self._ended: set[str] = set()  # of the adopted ones, what had ended when this was last waited for

    def close(self) -> None:
        """Let go of all commands; they run on."""
        if self._runner is not None:
            self._runner.close()
        for execution in list(self._adopted):
            self._let_go(execution)

    def describe(self) -> str:
        """Make the folders for state and output; a command engine is always there where they are."""
        try:
            self._states.mkdir(mode=0o700, exist_ok=True)
            self._logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise EngineDown(f"{exc.filename}: {exc.strerror}") from exc
        return "commands on this host"

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
        """Nothing to ask: the attempt's file tells."""
        return None

    def start(self, job: Job) -> str:
        """Have the command started, in a session of its own."""
        execution = _execution(job)
        try:
            command = Command(execution, self._words(job), *_user(job))
            output = self._open_output(job)
        except (OSError, JobRefused, KeyError) as exc:
            raise StartRefused(f"the command cannot be started: {exc}") from exc
        try:
            runner = self._living_runner()
            with self._begin(job, execution) as record:
                runner.run(command, record.fileno(), output)
        except (TimeoutError, BrokenPipeError) as exc:
            raise EngineDown("the process that runs commands takes none") from exc
        except OSError as exc:
            raise StartRefused(f"the command cannot be started: {exc}") from exc
        finally:
            os.close(output)
        return execution

    def warm_up(self) -> None:
        """Start the process that runs commands: the first one need not wait for it."""
        with contextlib.suppress(EngineDown):
            self._living_runner()

    def _living_runner(self) -> Runner:
        """Give the process that runs commands; one that has died is replaced. Raises EngineDown."""
        if self._runner is not None:
            self._listen(self._runner)
        if self._runner is None or not self._runner.is_alive:
            try:
                self._runner = Runner(self._states)
            except OSError as exc:
                raise EngineDown(f"the process that runs commands cannot be started: {exc}") from exc
        return self._runner

    def _listen(self, runner: Runner, patience: float = 0.0) -> None:
        had = len(runner.running)
        was_alive = runner.is_alive
        runner.listen(patience)
        if was_alive and not runner.is_alive:
            log.error("engine %s: the process that runs commands is gone; %d had not ended", self.name, had)

    def _begin(self, job: Job, execution: str) -> FileIO:
        """Open and lock the file of a job's CPU, for a new attempt. Raises OSError."""
        path = self._cpu_file(job)
        record = open_record(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if record is None or not lock(record, fcntl.LOCK_EX):
            # An attempt runs there, whose row of ENGINES was deleted and made again; or a command put something there.
            if record is not None:
                record.close()
            record = FileIO(f"{path}~{execution}", "x+")
            lock(record, fcntl.LOCK_EX)
        if os.fstat(record.fileno()).st_size > MAX_RECORD:
            record.truncate(0)
        record.write(f"attempt {execution}\n".encode())
        return record

    def _words(self, job: Job) -> list[str]:
        command = job.command or ""
        if job.shell:
            return ["/bin/sh", "-c", command]
        run = self._commands.get(command)
        if run is None:
            raise JobRefused(f"no command {command} is configured")
        return fill_in(run, json.loads(job.params))

    def _open_output(self, job: Job) -> int:
        """Open the file for a job's output, all attempts in one; locked for as long as anybody can write to it."""
        path = self._output_of(job)
        if not os.path.lexists(path):
            with contextlib.suppress(OSError):  # there is none: it is made
                os.rename(self._spare_output_of(job), path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.suppress(OSError):  # what an earlier attempt left running holds it
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def _spare_empty_output(self, job: Job) -> bool:
        """Keep the file of a job that has put nothing out for the next one on its CPU; whether there was output.

        To make and remove an inode for each job would cost more than all else here.
        """
        path = self._output_of(job)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size > 0:
                return True
            os.rename(path, self._spare_output_of(job))
        except OSError:  # what it left running may still put something out
            return True
        finally:
            os.close(fd)
        return False

    def _output_of(self, job: Job) -> str:
        return f"{self._logs}/{job.id}-{job.name}.log"

    def _spare_output_of(self, job: Job) -> str:
        return f"{self._logs}/.{_file_of_cpu(job)}"

    def find_start(self, job: Job, others: Iterable[str]) -> str | None:
        """Look whether the attempt runs, or ran. Whoever was about to start it has died, so that nobody does now."""
        execution = _execution(job)
        attempt = self._attempt(job, execution)
        return execution if attempt is not None and (attempt.runs or attempt.has_run) else None

    def check(self, jobs: Sequence[Job]) -> Mapping[int, Running | Ended]:
        """Tell of those that have ended how; what another daemon started is looked up in the file of its CPU."""
        if self._runner is not None:
            self._listen(self._runner)
            for execution in self._runner.ended.keys() - {_execution(job) for job in jobs}:
                del self._runner.ended[execution]  # another program recorded its end
        return {job.id: self._check(job) for job in jobs}

    def _check(self, job: Job) -> Running | Ended:
        execution = _execution(job)
        runner = self._runner
        if runner is not None and execution in runner.running:
            return Running()
        if runner is not None and execution in runner.ended:
            status = runner.ended[execution]
            lost = "the file of its CPU cannot be written, so the command was not run"
        else:
            attempt = self._settled_attempt(job, execution)
            if attempt is not None and attempt.runs:
                self._adopt(execution, attempt)
                return Running()
            self._let_go(execution)
            status = None if attempt is None else attempt.exit_status
            lost = "the command was killed together with the process that watches it, or the host went down"
            if attempt is not None and attempt.has_run and status is None:
                self._kill_left(job, attempt)
        output = f"output: {self._output_of(job) if self._spare_empty_output(job) else 'none'}"
        if job.ending is not None:
            return Ended(status=JobStatus.CANCELLED, reason=job.ending_why, exit_status=status, detail=output)
        if status == 0:
            return Ended(status=JobStatus.FINISHED, exit_status=0, detail=output)
        if status is None:
            return Ended(status=JobStatus.FAILED, reason=lost, detail=output)
        signalled = f" (signal {status - 128})" if status > 128 else ""
        return Ended(
            status=JobStatus.FAILED, reason=f"exit status {status}{signalled}", exit_status=status, detail=output
        )

    def _settled_attempt(self, job: Job, execution: str) -> Attempt | None:
        """Read what is known of an attempt; between a command's end and its record there may be a moment."""
        adopted = self._adopted.get(execution)
        attempt = self._attempt(job, execution)
        deadline = time.monotonic() + RECORD_PATIENCE
        while adopted and attempt and attempt.runs and is_readable(adopted.fd) and time.monotonic() < deadline:
            time.sleep(0.001)
            attempt = self._attempt(job, execution)
        return attempt

    def _attempt(self, job: Job, execution: str) -> Attempt | None:
        """Read what is known of an attempt; None where nothing is. Raises EngineDown."""
        path = self._cpu_file(job)
        for each in (f"{path}~{execution}", path):
            try:
                record = open_record(each, os.O_RDONLY)
                if record is None:
                    continue
                with record:
                    runs = not lock(record, fcntl.LOCK_SH)  # before it is read: else it could end between the two
                    attempt = read_attempt(last_of(record), runs=runs)
            except OSError as exc:
                raise EngineDown(f"{each}: {exc.strerror}") from exc
            if attempt.execution == execution:
                return attempt
        return None

    def _cpu_file(self, job: Job) -> str:
        return f"{self._states}/{_file_of_cpu(job)}"

    def _adopt(self, execution: str, attempt: Attempt) -> None:
        """Watch the process of a command that an earlier daemon started."""
        process = attempt.process
        if process is None or execution in self._adopted:
            return
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(process.pid)
            if process.is_alive():
                self._adopted[execution] = _Process(process, fd)
            else:
                os.close(fd)

    def cancel(self, job: Job) -> None:
        """SIGTERM to the command and all its children, and SIGKILL to those that stay."""
        attempt = self._attempt(job, _execution(job))
        if attempt is not None and attempt.runs and attempt.process is not None:
            patient = seconds_since(job.ending_tick or "", job.submitted_at) < PATIENCE
            _kill_session(attempt.process, _owner(job), signal.SIGTERM if patient else signal.SIGKILL)

    def _kill_left(self, job: Job, attempt: Attempt) -> None:
        """Kill what is left of a command whose runner has died; it may have died before it told the process."""
        owner = _owner(job)
        if attempt.process is not None:
            _kill_session(attempt.process, owner, signal.SIGKILL)
        else:
            _kill(processes_writing_to(self._output_of(job), owner), signal.SIGKILL)

    def forget(self, job: Job) -> None:
        """Stop watching the attempt. The file of its CPU stays for the next one."""
        execution = _execution(job)
        self._let_go(execution)
        if self._runner is not None:
            self._runner.ended.pop(execution, None)
        with contextlib.suppress(OSError):
            os.unlink(f"{self._cpu_file(job)}~{execution}")

    def wait_fds(self) -> Iterable[int]:
        """Give descriptors that tell of an end. One that is readable after the tick it caused is nobody's."""
        ended = {execution for execution, process in self._adopted.items() if is_readable(process.fd)}
        for execution in ended & self._ended:  # another program recorded its end, or the database cannot be asked
            self._let_go(execution)
        self._ended = ended
        fds = [process.fd for process in self._adopted.values()]
        if self._runner is not None and self._runner.is_alive:
            fds.append(self._runner.socket.fileno())
        return fds

    def linger(self) -> None:
        """Take in what is told of ends; where one has ended and others run, see for a moment whether they do."""
        runner = self._runner
        if runner is not None and runner.is_alive:
            known = len(runner.ended)
            self._listen(runner)
            if len(runner.ended) > known and runner.running:
                self._listen(runner, LINGER)

    def _let_go(self, execution: str) -> None:
        process = self._adopted.pop(execution, None)
        if process is not None:
            os.close(process.fd)


def _read_poll(table: SettingsTable) -> float:
    return table.take_seconds("poll", 2.0)


def _user(job: Job) -> tuple[dict[str, str], tuple[int, int, list[int]] | None]:
    """Give a job's environment, and as whom its command runs: as root, its job file's owner; else as ourselves: None.

    Nothing of the daemon's own environment goes in: it may hold the engines' passwords.
    """
    uid = os.geteuid()
    user = _passwd(_owner(job))
    environment = {
        "PATH": PATH, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": "/bin/sh",
        "LANG": "C.UTF-8", "ORCHESTRATOR_JOB": job.job, "ORCHESTRATOR_NAME": job.name, "ORCHESTRATOR_ID": str(job.id),
    }  # fmt: skip
    if uid != 0 or user.pw_uid == 0:
        return environment, None
    return environment, (user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid))


def _owner(job: Job) -> int:
    uid = os.geteuid()
    return job.owner if uid == 0 and job.owner is not None else uid


@lru_cache(maxsize=256)
def _passwd(uid: int) -> pwd.struct_passwd:
    return pwd.getpwuid(uid)


def _file_of_cpu(job: Job) -> str:
    """Name the file of a job's CPU; what an operator called the CPU may hold anything."""
    return f"{job.engine}.{quote(job.cpu or '', safe='')[:100]}"


def _execution(job: Job) -> str:
    return job.execution or f"{job.id}.{job.attempts}"


def _kill_session(leader: ProcessIdentity, owner: int, number: signal.Signals) -> None:
    """Signal all processes of a session, also those that are born meanwhile."""
    known: set[int] = set()
    while new := set(session_members(leader, owner)) - known:
        _kill(new, number)
        known |= new


def _kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
