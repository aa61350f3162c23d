"""What intake writes: a claimed job file becomes one row of QUEUE; a cancel file ends one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from peewee import SQL, fn

from orchestrator.clock import tick, utc_now
from orchestrator.job import Job, JobRequest, demand_of
from orchestrator.state import WAITING, JobStatus
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_UNRELEASED, Queue
from orchestrator.store.moves import jobs_where, move_job, record_event
from orchestrator.store.statement import Statement, param


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One claimed job file. `request` is None where it is refused, then `refused` says why."""

    host: str
    spool: str
    name: str
    claim: str  # unique for ever: the same claim seen again is the same file (P1)
    request: JobRequest | None
    refused: str | None = None
    owner: int | None = None
    owners_apart: bool = False  # a NAME is its owner's until the owner was told: nobody else's supersedes it
    max_waiting: int | None = None  # unfinished jobs that the owner may have in the spool; None: any number
    caller: str | None = None
    light: str | None = None  # which light it came with; None: there is none to change
    light_is_new: bool = False  # the light was made by us for this very file
    engines: tuple[str, ...] = ()
    priority: int = 50
    timeout: float | None = None
    shell: bool = False


class Taken(Enum):
    """What became of a claimed job file."""

    QUEUED = 1
    REFUSED = 2  # it keeps a row too: REJECTED


def take(arrivals: Sequence[Arrival]) -> list[tuple[Taken, str | None]]:
    """Make one row of QUEUE of each arrival, all in one transaction.

    For each, what became of it, and why where it was refused. An arrival that was taken before gives what it
    gave then: whoever crashed between the row and the removal of the file simply takes it again.
    """
    unfinished: dict[tuple[str, str, int | None], int] = {}
    with writing():
        return [_take(arrival, unfinished) for arrival in arrivals]


def _take(arrival: Arrival, unfinished: dict[tuple[str, str, int | None], int]) -> tuple[Taken, str | None]:
    for status, reason in _CLAIMED.rows(claim=arrival.claim):
        return (Taken.REFUSED, reason) if status == JobStatus.REJECTED else (Taken.QUEUED, None)
    same_name = {"host": arrival.host, "spool": arrival.spool, "name": arrival.name}
    refused, light = arrival.refused, arrival.light
    active = _ACTIVE.rows(**same_name)
    if active:
        refused = refused or f"the name is in use by job {active[0][0]}, which has not ended"
        if light is not None and not arrival.light_is_new:
            # The light belongs to the first job. Its second caller may have touched it: it is still the same light.
            Queue.update(light=light).where(Queue.id == active[0][0]).execute()
            light = None
    elif light is not None:
        # Whoever waited on an earlier light of this name has put a new request in its place.
        for older, owner in _UNRELEASED.rows(**same_name):
            if arrival.owners_apart and owner != arrival.owner:
                refused = refused or f"the name is in use by job {older} of uid {owner}, whose caller was not told yet"
                light = None
                continue
            Queue.update(released_at=utc_now()).where(Queue.id == older).execute()
            record_event("superseded", "its caller has dropped a new job of this name", job_id=older)
    refused = refused or _too_many(arrival, unfinished)
    row = _insert_refused(arrival, refused, light) if refused else _insert(arrival)
    record_event(f"-> {JobStatus.REJECTED if refused else JobStatus.QUEUED}", refused, job_id=row)
    return (Taken.REFUSED, refused) if refused else (Taken.QUEUED, None)


def _too_many(arrival: Arrival, unfinished: dict[tuple[str, str, int | None], int]) -> str | None:
    """Tell why one more job of this owner is too many; `unfinished` counts them, each owner's once a transaction."""
    if arrival.max_waiting is None:
        return None
    whose = (arrival.host, arrival.spool, arrival.owner)
    if whose not in unfinished:
        [(unfinished[whose],)] = _UNFINISHED.rows(host=arrival.host, spool=arrival.spool, owner=arrival.owner)
    if unfinished[whose] >= arrival.max_waiting:
        return (
            f"max_waiting: uid {arrival.owner} has {unfinished[whose]} unfinished jobs in spool {arrival.spool}, "
            f"and {arrival.max_waiting} are the limit"
        )
    unfinished[whose] += 1
    return None


def _insert(arrival: Arrival) -> int:
    request = arrival.request
    if request is None:
        raise AssertionError("an arrival without a request must be refused")
    engines = ",".join(arrival.engines)
    return _INSERT.insert(
        host=arrival.host,
        spool=arrival.spool,
        name=arrival.name,
        claim=arrival.claim,
        status=JobStatus.QUEUED.value,
        job=request.job,
        environment=request.environment,
        engines=engines,
        command=request.command,
        shell=arrival.shell,
        params=json.dumps(dict(request.params)) if request.params else "{}",
        source_connector=request.source_connector,
        target_connector=request.target_connector,
        demand=demand_of(request, engines, shell=arrival.shell),
        priority=arrival.priority,
        timeout=arrival.timeout,
        retries=request.retries,
        on_caller_exit=request.on_caller_exit,
        on_unknown=request.on_unknown,
        on_warning=request.on_warning,
        owner=arrival.owner,
        caller=arrival.caller,
        light=arrival.light,
        attempts=0,
        tried="",
        submitted_at=utc_now(),
    )


def _insert_refused(arrival: Arrival, reason: str, light: str | None) -> int:
    now = utc_now()
    return int(
        Queue.insert(
            host=arrival.host,
            spool=arrival.spool,
            name=arrival.name,
            claim=arrival.claim,
            status=JobStatus.REJECTED.value,
            job=arrival.request.job if arrival.request else None,
            owner=arrival.owner,
            light=light,
            submitted_at=now,
            ended_at=now,
            released_at=None if light else now,
            reason=reason,
        ).execute()
    )


def _of_name(*columns: object) -> Any:
    name = (Queue.host == param("host"), Queue.spool == param("spool"), Queue.name == param("name"))
    return Queue.select(*columns).where(*name)


_INSERT_COLUMNS = (
    "host", "spool", "name", "claim", "status", "job", "environment", "engines", "command", "shell", "params",
    "source_connector", "target_connector", "demand", "priority", "timeout", "retries", "on_caller_exit", "on_unknown",
    "on_warning", "owner", "caller", "light", "attempts", "tried", "submitted_at",
)  # fmt: skip
_INSERT = Statement(lambda: Queue.insert({name: param(name) for name in _INSERT_COLUMNS}))
_CLAIMED = Statement(lambda: Queue.select(Queue.status, Queue.reason).where(Queue.claim == param("claim")))
_ACTIVE = Statement(lambda: _of_name(Queue.id).where(IS_ACTIVE))
_UNRELEASED = Statement(lambda: _of_name(Queue.id, Queue.owner).where(IS_UNRELEASED))
_UNFINISHED = Statement(
    lambda: Queue.select(fn.COUNT(SQL("*"))).where(
        Queue.host == param("host"), Queue.spool == param("spool"), Queue.owner == param("owner"), IS_ACTIVE
    )
)


def active_job(host: str, spool: str, name: str) -> Job | None:
    """Give the job called `name` that has not ended; there is at most one."""
    found = jobs_where(Queue.host == host, Queue.spool == spool, Queue.name == name, IS_ACTIVE)
    return found[0] if found else None


def ask_end(job_id: int, ending: JobStatus, why: str) -> bool:
    """Ask that a job ends as CANCELLED or TIMEOUT: at once where it waits, by way of its engine where it runs.

    False where it has ended already, or was asked before.
    """
    with writing():
        for waiting in WAITING:
            if ending is JobStatus.CANCELLED and move_job(job_id, waiting, ending, why, reason=why):
                return True
        asked = (
            Queue.update(ending=ending.value, ending_why=why, ending_tick=tick())
            .where(Queue.id == job_id, IS_ACTIVE, Queue.ending.is_null())
            .execute()
        )
        if asked:
            record_event(f"{ending} asked", why, job_id=job_id)
        return bool(asked)
