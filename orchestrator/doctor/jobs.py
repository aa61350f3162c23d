"""Jobs that are stuck, and lights that nobody will change."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.doctor.engines import Answer
from orchestrator.doctor.finding import Finding, fail, lasting, listed, ok, shell, warn
from orchestrator.job import JOB_SUFFIX, LIGHT_SUFFIX, Job, ascii_line, is_name
from orchestrator.settings import Settings, SpoolSettings
from orchestrator.spool.claim import TOKEN
from orchestrator.spool.directory import PRIVATE
from orchestrator.state import EngineState, JobStatus
from orchestrator.store.looking import Rows

STUCK = 120.0  # seconds that a job may take for what usually takes under one; cron comes every 60
UNRELEASED = 60.0  # seconds from a job's end to its light; cron comes every 60
LOST = 60.0  # seconds that a light may be there before its job file is
ASKED = 300.0  # seconds from the wish that a job ends to its end


@dataclass(frozen=True)
class Light:
    """An empty light that had no job file beside it when the spool was looked through."""

    name: str
    inode: int
    age: float  # seconds


def red_lights(spool: Path) -> list[Light]:
    """Give the empty lights that belong to no job file, waiting or claimed. Raises OSError."""
    with os.scandir(spool) as entries:
        found = {entry.name: entry for entry in entries}
    try:
        claimed = {file[: -TOKEN - 1] for file in os.listdir(spool / PRIVATE) if file[-TOKEN - 1 : -TOKEN] == "."}
    except OSError:  # another user's, and closed to us
        claimed = set()
    lights = []
    for file, entry in found.items():
        name = file.removesuffix(LIGHT_SUFFIX)
        if name == file or not is_name(name) or name + JOB_SUFFIX in found or name in claimed:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if status.st_size == 0 and entry.is_file(follow_symlinks=False):
            age = time.time() - max(status.st_mtime, status.st_ctime)
            lights.append(Light(name, status.st_ino, age))
    return lights


def check_lights(spool: SpoolSettings, lights: Iterable[Light], rows: Rows, host: str) -> Iterator[Finding]:
    """Find lights that no row will ever change; `lights` were listed before the rows were read."""
    known = {job.name for job in (*rows.active, *rows.unreleased) if (job.host, job.spool) == (host, spool.name)}
    lost = [
        light.name
        for light in lights
        if light.age > LOST and light.name not in known and _still_stands(spool.path, light)
    ]
    if lost:
        found = f"no job belongs to {listed(sorted(name + LIGHT_SUFFIX for name in lost))}: the caller waits in vain"
        light = shell(spool.path / (min(lost) + LIGHT_SUFFIX))
        yield warn(f"spool {spool.name}", found, f"tell each caller: echo 'FAILED reason=\"lost\"' > {light}")


def _still_stands(spool: Path, light: Light) -> bool:
    """Tell whether it is still that light: the rows were read later, and its job may have ended in between."""
    try:
        status = os.stat(spool / (light.name + LIGHT_SUFFIX), follow_symlinks=False)
    except OSError:
        return False
    return status.st_ino == light.inode and status.st_size == 0 and not (spool / (light.name + JOB_SUFFIX)).exists()


def check_jobs(settings: Settings, rows: Rows, answers: Mapping[str, Answer], host: str) -> Iterator[Finding]:
    """Find jobs that do not get on."""
    bad = [*_unreleased(settings, rows, host), *_of_other_hosts(rows, host)]
    bad += _scheduled(rows)
    bad += _queued(rows, answers)
    bad += _running(settings, rows)
    bad += _asked_to_end(rows)
    yield from bad
    if not bad:
        yield ok("jobs", f"{len(rows.active)} have not ended; none is stuck")


def _unreleased(settings: Settings, rows: Rows, host: str) -> Iterator[Finding]:
    late: dict[str, list[Job]] = defaultdict(list)
    for job in rows.unreleased:
        if job.host == host and age_of(job.ended_at) > UNRELEASED:
            late[job.spool].append(job)
    for spool, jobs in late.items():
        found = f"spool {ascii_line(spool)}: ended, and the light is not changed: {_told(jobs)}"
        if spool in settings.spools:
            advice = "does `orchestrator schedule` run, and can it write the spool? Its log: `cannot be changed now`"
        else:
            advice = f"put [spools.{ascii_line(spool)}] back into the settings"
        yield fail("jobs", found, advice)


def _of_other_hosts(rows: Rows, host: str) -> Iterator[Finding]:
    strange: dict[str, list[Job]] = defaultdict(list)
    for job in (*rows.active, *rows.unreleased):
        if job.host != host:
            strange[job.host].append(job)
    for other, jobs in strange.items():
        found = f"of host {ascii_line(other)}, and this is {ascii_line(host)}: nobody releases {_told(jobs)}"
        yield fail("jobs", found, "was the host renamed? Give it its old name until they have ended")


def _scheduled(rows: Rows) -> Iterator[Finding]:
    for job in rows.active:
        since = age_of(rows.moved.get(job.id))
        if job.status == JobStatus.SCHEDULED and since > STUCK:
            looked_for = " and its start is being looked for" if job.starter is not None else ""
            found = f"{_told([job])} is SCHEDULED on {ascii_line(job.engine)} for {lasting(since)}{looked_for}"
            advice = "see whether the engine is UP and `orchestrator schedule` runs; do not start it by hand"
            yield warn("jobs", found, advice)


def _queued(rows: Rows, answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Find jobs that wait although an engine has them, is UP, and has had room for long."""
    room = {name for name in answers if _has_had_room(name, rows)}
    for name in sorted(room):
        late = [
            job
            for job in rows.active
            if job.status == JobStatus.QUEUED and age_of(rows.moved.get(job.id)) > STUCK and _may_go(job, name, answers)
        ]
        if late:
            since = lasting(min(age_of(rows.moved[job.id]) for job in late))
            found = f"QUEUED for {since} and longer, though {name} is UP and has FREE CPUs: {_told(late)}"
            yield warn("jobs", found, "see whether `orchestrator schedule` runs and what its log says; restart it")


def _may_go(job: Job, engine: str, answers: Mapping[str, Answer]) -> bool:
    """Tell whether a job could run on an engine. One that failed there waits for another one that has it."""
    if job.id not in answers[engine].has or (job.allowed_engines and engine not in job.allowed_engines):
        return False
    elsewhere = any(job.id in answer.has for name, answer in answers.items() if name not in job.tried_engines)
    return engine not in job.tried_engines or not elsewhere


def _has_had_room(name: str, rows: Rows) -> bool:
    capacity, health = rows.capacities.get(name), rows.health.get(name)
    if capacity is None or health is None or health.state is not EngineState.UP or age_of(health.since) < STUCK:
        return False
    return capacity.jobs < capacity.cpus and any((name, cpu) not in rows.busy for cpu in capacity.free)


def _running(settings: Settings, rows: Rows) -> Iterator[Finding]:
    on: dict[str, list[Job]] = defaultdict(list)
    for job in rows.active:
        if job.status == JobStatus.RUNNING:
            on[job.engine or ""].append(job)
    for engine, jobs in on.items():
        health = rows.health.get(engine)
        name = ascii_line(engine)
        if engine not in settings.engines:
            found = f"RUNNING on {name}, which the settings no longer have: {_told(jobs)}"
            yield fail("jobs", found, f"put [engines.{name}] back until they have ended")
        elif health is None or health.state in (EngineState.DOWN, EngineState.UNKNOWN):
            state = "UNKNOWN" if health is None else health.state
            found = f"RUNNING on {name}, which is {state}: {_told(jobs)}"
            yield warn("jobs", found, "bring the engine back; to give a caller up: orchestrator cancel NAME")


def _asked_to_end(rows: Rows) -> Iterator[Finding]:
    late = [job for job in rows.active if job.ending is not None and age_of(rows.moved.get(job.id)) > ASKED]
    if late:
        found = f"asked to end {lasting(ASKED)} ago and more, and not ended: {_told(late)}"
        yield warn("jobs", found, "see whether `orchestrator schedule` runs, and look on the engine what runs there")


def _told(jobs: Iterable[Job]) -> str:
    return listed(f"job {job.id} ({ascii_line(job.name)})" for job in jobs)


def age_of(at: str | None) -> float:
    """Give the seconds since a moment in a record; 0 where it is not known."""
    try:
        return 0.0 if at is None else (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    except (ValueError, TypeError):  # written by hand
        return 0.0
