"""Runs the commands of one daemon, and keeps how each ended, whatever becomes of the daemon meanwhile.

A small process of its own, at the other end of a socket. The daemon sends a message for each command, and with it two
descriptors: the file of the command's CPU, locked, and the file for its output. The lock lasts until the exit status is
written. When the daemon goes, the runner stays until its last command has ended.
See docs/decisions/0004-command-supervision.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from orchestrator.process import ProcessIdentity

UMASK = 0o022  # of commands: the daemon's own would keep all that they make from others
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell exits
SEND_PATIENCE = 5.0  # seconds that a runner which takes nothing is waited for

_MESSAGE = 1 << 18  # bytes that a message may have; the socket takes less, whatever the host's default (socket(7))
_NEWS = 4096  # bytes of a message about an end
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from orchestrator.engines.command_runner import main; main()"
_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Command:
    """One attempt to run a command. `user` is uid, gid and groups to run it as; None: as ourselves."""

    execution: str
    words: list[str]
    environment: dict[str, str]
    user: tuple[int, int, list[int]] | None


class Runner:
    """The daemon's side of one runner process."""

    def __init__(self, files: Path) -> None:
        """Start it; `files`, where those of the CPUs are, tells it from others in `ps`.

        Raises OSError where that cannot be.
        """
        self.running: set[str] = set()  # executions that it was given, and has not told the end of
        self.ended: dict[str, int | None] = {}  # exit statuses; None where the command was not let run
        self.is_alive = True
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(SEND_PATIENCE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE // 2)  # the kernel doubles it
        with its:
            status = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _MAIN, _ROOT, str(files)],
                stdin=its.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", env={"LANG": "C.UTF-8"}, start_new_session=True, check=False,
            ).returncode  # fmt: skip
        if status:
            self.socket.close()
            raise OSError(errno.ECHILD, f"{sys.executable} ends with status {status}")

    def run(self, command: Command, record: int, output: int) -> None:
        """Have a command run. Raises OSError where it surely does not."""
        message = json.dumps(vars(command), ensure_ascii=False).encode(errors="surrogateescape")
        socket.send_fds(self.socket, [message], [record, output])
        self.running.add(command.execution)

    def listen(self, patience: float = 0.0) -> None:
        """Take in what it tells of ends; the first is waited for, for `patience` seconds."""
        while self.is_alive and is_readable(self.socket.fileno(), patience):
            patience = 0.0
            message = b""
            with contextlib.suppress(OSError):
                message = self.socket.recv(_NEWS)
            if message:
                execution, status = json.loads(message)
                self.running.discard(execution)
                self.ended[execution] = status
            else:
                self.close()

    def close(self) -> None:
        """Let go of it, also where it has died. It goes on until its commands have ended."""
        self.is_alive = False
        self.running.clear()
        self.socket.close()


def is_readable(fd: int, patience: float = 0.0) -> bool:
    """Tell whether a descriptor is readable, or becomes so within `patience` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


@dataclass(frozen=True)
class _Running:
    execution: str
    record: FileIO
    child: subprocess.Popen[bytes]
    pidfd: int


def main() -> None:
    """Run what comes by the socket that is stdin, until nothing can come any more and nothing runs."""
    if os.fork():
        os._exit(0)  # whoever starts it has no child to wait for
    os.umask(UMASK)
    # Commands get what is usual, and not what the daemon's threads have blocked, or ignore.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # this one stays to tell how they ended; `exec` gives the default back
    daemon = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    running: dict[int, _Running] = {}  # by pidfd
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    listening = True
    while listening or running:
        for fd, _ in poll.poll():
            if fd in running:
                poll.unregister(fd)
                _end(running.pop(fd), daemon)
                continue
            try:
                message, fds, _, _ = socket.recv_fds(daemon, _MESSAGE, 2, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:  # it has gone, and did not hear the last ends; what it sent is still there
                continue
            if message:
                command = Command(**json.loads(message.decode(errors="surrogateescape")))
                found = _run(command, fds)
                if isinstance(found, _Running):
                    poll.register(found.pidfd, select.POLLIN)
                    running[found.pidfd] = found
                else:
                    _tell(daemon, command.execution, found)
            else:
                poll.unregister(daemon)
                listening = False


def _run(command: Command, fds: list[int]) -> _Running | int | None:
    """Run a command; its exit status where there is nothing that can be run, None where it must not be."""
    if len(fds) < 2:  # there are too many open already
        for fd in fds:
            os.close(fd)
        return None
    record, output = FileIO(fds[0], "r+"), FileIO(fds[1], "w")
    with contextlib.ExitStack() as undo, output:
        undo.callback(record.close)
        try:
            record.write(b"ran\n")  # without this line it has not run
        except OSError:
            return None
        try:
            running = _begin(command, record, output)
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            with contextlib.suppress(OSError):
                output.write(f"orchestrator: {command.words[0]}: {why}\n".encode(errors="backslashreplace"))
            missing = isinstance(exc, FileNotFoundError | NotADirectoryError)
            status = NOT_FOUND if missing else NOT_EXECUTABLE
            _write_end(record, status)
            return status
        undo.pop_all()
        return running


def _begin(command: Command, record: FileIO, output: FileIO) -> _Running:
    """Start a command. Raises OSError, ValueError or SubprocessError: then it does not run."""
    uid, gid, groups = command.user or (None, None, None)

    def execute(words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words, stdout=output, stderr=output, env=command.environment, start_new_session=True,
            user=uid, group=gid, extra_groups=groups,
        )  # fmt: skip

    try:
        child = execute(command.words)
    except OSError as exc:
        if exc.errno != errno.ENOEXEC:
            raise
        child = execute(["/bin/sh", *command.words])  # a script without `#!`: as a shell does
    try:
        pidfd = os.pidfd_open(child.pid)
    except OSError:
        child.kill()
        child.wait()
        raise
    with contextlib.suppress(OSError):
        record.write(f"process {ProcessIdentity.of_child(child.pid)}\n".encode())
    return _Running(command.execution, record, child, pidfd)


def _end(ended: _Running, daemon: socket.socket) -> None:
    os.close(ended.pidfd)
    status = ended.child.wait()
    status = 128 - status if status < 0 else status  # killed by a signal: as a shell tells it
    _write_end(ended.record, status)
    ended.record.close()
    _tell(daemon, ended.execution, status)


def _write_end(record: FileIO, status: int) -> None:
    with contextlib.suppress(OSError):  # the daemon is told too
        record.write(f"exit {status}\n".encode())


def _tell(daemon: socket.socket, execution: str, status: int | None) -> None:
    try:
        daemon.send(json.dumps([execution, status]).encode())
    except OSError:  # it has gone; if it has not, it must not go on to wait for what it was not told
        with contextlib.suppress(OSError):
            daemon.shutdown(socket.SHUT_RDWR)
