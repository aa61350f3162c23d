"""What the programs would mend at their next start. Recovery is their normal loop: this only foretells it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.job import CANCEL_SUFFIX, JOB_SUFFIX, Job
from orchestrator.process import ProcessIdentity
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.claim import TOKEN
from orchestrator.spool.directory import PRIVATE
from orchestrator.state import JobStatus
from orchestrator.store.database import file_of
from orchestrator.store.looking import Rows, check_schema, looking, read_rows

UNSEEN = "unseen"  # what may hold something to mend, and cannot be looked at


@dataclass(frozen=True)
class Mend:
    """One thing: what it is, which job or file has it, and what will be done."""

    what: str
    which: str
    then: str


def mends(settings: Settings) -> list[Mend]:
    """List all that a start would mend, in the order in which it comes to it. Raises StoreError."""
    host = socket.gethostname()
    found: list[Mend] = []
    rows: Rows | None = None
    version = known = 0
    if file_of(settings.database).exists():
        with looking(settings.database):
            version, known = check_schema()
            rows = read_rows("") if version == known else None
    for key, path in (("run_dir", settings.run_dir), ("log_dir", settings.log_dir)):
        if not path.exists():
            found.append(Mend("directory", f"{key} {path}", "is made"))
    if rows is None:
        then = f"are brought from version {version} to {known}" if version else "are made"
        found.append(Mend("database", str(file_of(settings.database)), f"its tables {then}; look again after that"))
    for spool in settings.spools.values():
        found += _in_spool(spool, rows, host)
    if rows is not None:
        found += _jobs(settings, rows, host)
        found += _cpus(settings, rows)
    return found


def _in_spool(spool: SpoolSettings, rows: Rows | None, host: str) -> Iterator[Mend]:
    try:
        yield from _claims(spool, rows, host)
    except FileNotFoundError:  # no program ever ran there
        pass
    except OSError as exc:
        yield Mend(UNSEEN, f"{spool.path / PRIVATE}", f"{exc.strerror}: what lies in it is not known")
    try:
        files = sorted(os.listdir(spool.path))
    except OSError as exc:
        yield Mend(UNSEEN, f"{spool.path}", f"{exc.strerror}: what lies in it is not known")
        return
    for file in files:
        if file.startswith("."):
            continue
        if file.endswith(JOB_SUFFIX):
            yield Mend("job file", f"{spool.path / file}", "is taken into QUEUE, or refused")
        elif file.endswith(CANCEL_SUFFIX):
            yield Mend("cancel file", f"{spool.path / file}", "its job is asked to end, where it has not, and it goes")


def _claims(spool: SpoolSettings, rows: Rows | None, host: str) -> Iterator[Mend]:
    """List what a program that was killed has left in the private folder."""
    due = {job.id: job for job in rows.unreleased if (job.host, job.spool) == (host, spool.name)} if rows else {}
    taken = {job.claim for job in (*rows.active, *rows.unreleased)} if rows else set()
    for file in sorted(os.listdir(spool.path / PRIVATE)):
        stem, dot, suffix = file.rpartition(".")
        which = f"{spool.path / PRIVATE / file}"
        if dot and len(suffix) == TOKEN:
            then = f"becomes a row of QUEUE, job {stem}, or is refused"
            if suffix in taken:
                then = "goes: its row is there"
            yield Mend("claim", which, then)
        elif suffix in ("green", "red") and stem.isdigit():
            job = due.get(int(stem))
            if job is None:
                then = f"is left alone: job {stem} waits for no light; remove it"
            elif suffix == "green":
                then = f"goes for good where it is the light of job {job.id} ({job.name}), else it is put back"
            else:
                then = f"is written anew, and becomes the light of job {job.id} ({job.name})"
            yield Mend("half-done light", which, then)


def _jobs(settings: Settings, rows: Rows, host: str) -> Iterator[Mend]:
    for job in rows.unreleased:
        if job.host != host:
            yield Mend("light", _of(job), f"is left alone: it is of host {job.host}")
        elif job.spool not in settings.spools:
            yield Mend("light", _of(job), f"is left alone: the settings have no spool {job.spool}")
        else:
            red = f"says {job.status}, and its caller is signalled"
            yield Mend("light", _of(job), "is removed" if job.status == JobStatus.FINISHED else red)
    for job in rows.active:
        if job.status == JobStatus.SCHEDULED:
            yield Mend("start", _of(job), _start(settings, job, host))
        elif job.status == JobStatus.RUNNING:
            yield Mend("execution", _of(job), _watched(settings, job))
        if job.on_caller_exit == "cancel" and job.ending is None and job.host == host and not _lives(job.caller):
            yield Mend("caller", _of(job), "is gone: the job is cancelled")
    for job in rows.kept:
        yield Mend("CPU", _of(job), f"{job.engine} {job.cpu} is freed once {job.engine} shows that nothing of it runs")


def _start(settings: Settings, job: Job, host: str) -> str:
    if job.starter is None:
        if job.engine not in settings.engines:
            return f"goes back into the queue: the settings have no engine {job.engine}"
        return f"is started on {job.engine} {job.cpu}" if job.ending is None else f"ends as {job.ending}"
    of, _, process = job.starter.rpartition("/")
    if of != host:
        return f"is left alone: host {of} was starting it"
    if _lives(process):
        return f"pid {process.partition(':')[0]} is starting it: left to that"
    return f"its starter is dead: {job.engine} is asked whether the start arrived; it is not simply sent again"


def _watched(settings: Settings, job: Job) -> str:
    if job.engine not in settings.engines:
        return f"stays RUNNING until the settings have engine {job.engine} again"
    if job.ending is not None:
        return f"execution {job.execution} is cancelled on {job.engine}, and watched until it has ended"
    return f"execution {job.execution} on {job.engine} is watched on"


def _lives(process: str | None) -> bool:
    try:
        return process is not None and ProcessIdentity.parse(process).is_alive()
    except ValueError:
        return False


def _cpus(settings: Settings, rows: Rows) -> Iterator[Mend]:
    for name, cpu, job in rows.deserted:
        yield Mend("CPU", f"{name} {cpu}", f"becomes FREE: its job {job} has no row")
    for engine in settings.engines.values():
        if engine.cpus and engine.name not in rows.capacities:
            yield Mend("CPU", engine.name, f"gets CPU1 to CPU{engine.cpus}")


def _of(job: Job) -> str:
    return f"job {job.id} ({job.name})"
