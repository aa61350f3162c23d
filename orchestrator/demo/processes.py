"""Processes of ours: each is started in a session of its own, and stopped by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from orchestrator.errors import OrchestratorError

LOOK = 0.1  # seconds between two looks at whatever is waited for
STOP_PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(OrchestratorError):
    """Something that the demo needs did not come about."""


class Interrupted(OrchestratorError):  # noqa: N818 - named for what it tells
    """Somebody ended us by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number
        self.exit_status = 128 + number


class Ending:
    """Notes the signals that are to end us. Only `sleep` acts on them, so none cuts a start or a clean-up in two."""

    def __init__(self) -> None:
        self._got = 0
        for number in _ENDS:
            signal.signal(number, self._note)
        # A shell that starts us in the background may have it ignored; then no caller could trap it.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._got = self._got or number

    def sleep(self) -> None:
        """Sleep until it is time for another look. Raises Interrupted."""
        if not self._got:
            time.sleep(LOOK)
        if self._got:
            raise Interrupted(self._got)


class Processes:
    """All that we started; leaving the context stops what still runs, last come first."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            self.stop(process)

    def start(
        self, command: Sequence[str], log: Path | None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one process; its output goes to `log`, or where ours goes."""
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=None if output is None else subprocess.STDOUT,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop one process with all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:  # so its pid, which is its group's too, is still its own
                os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_PATIENCE)

    def wait_until(
        self,
        ready: Callable[[], object],
        what: str,
        process: subprocess.Popen[bytes],
        log: Path | None,
        patience: float,
    ) -> None:
        """Wait until `ready`. Raises DemoError where `process` ends first or the time is up, and Interrupted."""
        give_up = time.monotonic() + patience
        while not ready():
            if process.poll() is not None or time.monotonic() > give_up:
                raise DemoError(f"{what}: not there{'' if log is None else f': {last_line(log)}'}")
            self._ending.sleep()


def last_line(log: Path) -> str:
    """Give the last line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
