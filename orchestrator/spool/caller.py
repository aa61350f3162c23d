"""A caller in Python: drops a job file and waits on its light, as docs/protocol.md says. For the command line."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX, LIGHT_SUFFIX
from orchestrator.spool.directory import HEARTBEAT
from orchestrator.state import JobStatus

HEARTBEAT_STALE = 180.0  # seconds after which nobody serves the spool (docs/protocol.md)
FIRST_LOOK, LAST_LOOK = 0.02, 1.0  # seconds between two looks at the light

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]", re.ASCII)
_STATUS = {JobStatus.REJECTED: 65, JobStatus.CANCELLED: 66, JobStatus.TIMEOUT: 124}
NOT_SERVED = 69


class SpoolNotServed(OrchestratorError):  # noqa: N818 - named for what it tells
    """The spool cannot be written, or nothing takes from it."""

    exit_status = NOT_SERVED


def drop(spool: Path, job: str, pairs: Sequence[str]) -> str:
    """Drop a job file with these `key=value` lines; its NAME. Raises UsageError or SpoolNotServed."""
    lines = (f"job={job}", *pairs)
    for line in lines:
        # What is not UTF-8 on the command line comes as surrogates.
        if "=" not in line or "\n" in line or any("\ud800" <= char <= "\udfff" for char in line):
            raise UsageError(f"not key=value, or not one line of UTF-8: {line!r}")
    stem = _UNSAFE.sub("_", job)
    if not stem[:1].isalnum():
        stem = f"_{stem}"
    name = f"{stem[:150]}@{time.strftime('%Y%m%dT%H%M%S')}.{os.getpid()}.{secrets.token_hex(3)}"
    light, draft = spool / f"{name}{LIGHT_SUFFIX}", spool / f".{name}.tmp"
    try:
        light.touch(exist_ok=False)
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        draft.rename(spool / f"{name}{JOB_SUFFIX}")
    except OSError as exc:
        with contextlib.suppress(OSError):
            light.unlink(missing_ok=True)
            draft.unlink(missing_ok=True)
        raise SpoolNotServed(f"{spool}: cannot be written: {exc.strerror}") from exc
    return name


def withdraw(spool: Path, name: str) -> None:
    """Cancel a job that nobody waits for any more: its job file goes; where it is taken, NAME.cancel comes."""
    withdrawn = spool / f".{name}.withdrawn"
    try:
        (spool / f"{name}{JOB_SUFFIX}").rename(withdrawn)  # so that it cannot be taken at the same time
        withdrawn.unlink()
    except FileNotFoundError:
        (spool / f"{name}{CANCEL_SUFFIX}").touch()
    (spool / f"{name}{LIGHT_SUFFIX}").unlink(missing_ok=True)


def wait_for_light(spool: Path, name: str) -> tuple[int, str]:
    """Wait until the light is gone or says something; the exit status of docs/protocol.md, and what it says.

    Raises SpoolNotServed where nobody has taken the job file and nothing serves the spool.
    """
    light = spool / f"{name}{LIGHT_SUFFIX}"
    wait = FIRST_LOOK
    while True:
        try:
            text = light.read_text(encoding="ascii", errors="backslashreplace")
        except FileNotFoundError:
            return 0, ""
        if text:
            light.unlink(missing_ok=True)
            return exit_status_of(text.partition("\n")[0]), text
        if wait >= LAST_LOOK and not _is_served(spool) and (spool / f"{name}{JOB_SUFFIX}").exists():
            raise SpoolNotServed(f"{spool}: no heartbeat: start `orchestrator up`; {name} waits there until then")
        time.sleep(wait)
        wait = min(LAST_LOOK, wait * 1.2)


def exit_status_of(line: str) -> int:
    """Read the exit status out of a light's first line."""
    words = line.partition(" reason=")[0].split()
    status = _STATUS.get(JobStatus(words[0])) if words and words[0] in list(JobStatus) else None
    if status is not None:
        return status
    given = next((word.removeprefix("exit=") for word in words if word.startswith("exit=")), "")
    return int(given) if given.isascii() and given.isdigit() and 1 <= int(given) <= 63 else 1


def _is_served(spool: Path) -> bool:
    try:
        return time.time() - (spool / HEARTBEAT).stat().st_mtime < HEARTBEAT_STALE
    except OSError:
        return False
