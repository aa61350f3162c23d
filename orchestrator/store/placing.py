"""What the scheduler reads and writes: jobs that wait, CPUs that are free, and a job put on a CPU."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peewee import fn

from orchestrator.clock import tick
from orchestrator.job import Job
from orchestrator.state import CpuStatus, JobStatus
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_KEPT, IS_PLACED, IS_QUEUED, IS_TIED_TO_CALLER, Engines, Queue
from orchestrator.store.moves import CpuRow, move_cpu, move_job
from orchestrator.store.statement import ALL_COLUMNS, Statement, jobs_of, param


def waiting_jobs(first: int, blocked: Container[str] = ()) -> Iterator[Job]:
    """Give the jobs that wait for a CPU: highest priority first, then oldest.

    Read only as far as is asked: the `first` so many, which usually take all the room there is, then those of each
    demand (job.demand_of) by themselves. The rest of one that comes to be `blocked` meanwhile is left out, unread:
    however many wait for one engine, what another one can run is found at once.
    """
    jobs = jobs_of(_WAITING_JOBS.rows(size=first))
    yield from jobs
    if len(jobs) < first:
        return
    queues = [_of_demand(demand, jobs[-1], blocked) for demand in _waiting_demands(blocked)]
    yield from heapq.merge(*queues, key=_place_in_queue)


def _place_in_queue(job: Job) -> tuple[int, int]:
    return -job.priority, job.id


def _waiting_demands(blocked: Container[str]) -> Iterator[str]:
    [(demand,)] = _FIRST_DEMAND.rows()
    while demand is not None:
        if demand not in blocked:
            yield demand
        [(demand,)] = _NEXT_DEMAND.rows(after=demand)


def _of_demand(demand: str, last: Job, blocked: Container[str]) -> Iterator[Job]:
    """Give the jobs of one demand that come after `last`, until it is blocked."""
    size = 2
    while demand not in blocked:
        jobs = jobs_of(_OF_DEMAND.rows(demand=demand, priority=last.priority, id=last.id, size=size))
        for job in jobs:
            if demand in blocked:
                return
            yield job
        if len(jobs) < size:
            return
        last, size = jobs[-1], min(2 * size, 1000)


def has_waiting_jobs() -> bool:
    """Tell whether any job waits for a CPU."""
    return bool(_WAITING.rows())


@dataclass
class Capacity:
    """What one engine has room for."""

    cpus: int = 0  # rows of ENGINES
    jobs: int = 0  # jobs that hold one, also where somebody deleted the row under it
    free: list[str] = field(default_factory=list)  # names of the FREE rows


def capacities() -> dict[str, Capacity]:
    """Give the capacity of each engine that ENGINES has rows of."""
    found: dict[str, Capacity] = defaultdict(Capacity)
    held: set[int] = set()
    for engine, cpu, status, job_id in _CPUS.rows():
        found[engine].cpus += 1
        if job_id is not None:
            held.add(job_id)
            found[engine].jobs += 1
        elif status == CpuStatus.FREE:
            found[engine].free.append(cpu)
    for job_id, engine in [*_PLACED.rows(), *_KEPT.rows()]:
        if job_id not in held:
            found[engine].jobs += 1
    return dict(found)


@dataclass(frozen=True)
class Intent:
    """Who starts what is placed on an engine, where the engine need not be asked anything before a start.

    Then the intent to start (P4) is recorded together with the placing. `note` is called with each job before both are
    durable: it is to be started once a row says so.
    """

    starter: str
    note: Callable[[Job], None]


_NO_INTENTS: Mapping[str, Intent] = {}


def place(placings: Sequence[tuple[Job, CpuRow]], intents: Mapping[str, Intent] = _NO_INTENTS) -> int:
    """Put each job on its CPU, in one transaction; how many were placed. `intents` by the engine's name.

    A job or a CPU that somebody else has taken meanwhile is passed over: both changes happen, or neither.
    """
    placed = 0
    with writing():
        for job, cpu in placings:
            if not move_job(job.id, JobStatus.QUEUED, JobStatus.SCHEDULING, still={"attempts": job.attempts}):
                continue
            if move_cpu(cpu, CpuStatus.FREE, CpuStatus.JUST_INSERTED, was=None, holds=job.id):
                columns: dict[str, Any] = {"engine": cpu[0], "cpu": cpu[1]}
                intent = intents.get(cpu[0])
                if intent is not None:
                    columns |= {"starter": intent.starter, "starting_tick": tick(), "attempts": job.attempts + 1}
                    intent.note(job.but(status=JobStatus.SCHEDULED.value, **columns))
                move_job(job.id, JobStatus.SCHEDULING, JobStatus.SCHEDULED, **columns)
                placed += 1
            else:
                move_job(job.id, JobStatus.SCHEDULING, JobStatus.QUEUED, "the CPU was taken meanwhile")
    return placed


def fail_waiting(job: Job, reason: str) -> bool:
    """End a job that no engine can ever run as FAILED."""
    with writing():
        return move_job(job.id, JobStatus.QUEUED, JobStatus.FAILED, reason, reason=reason)


def jobs_to_cancel_with_caller(host: str) -> list[Job]:
    """Give the active jobs of this host that are to be cancelled once their caller is gone."""
    return jobs_of(_TIED_TO_CALLER.rows(host=host))


def hold(job_id: int) -> bool:
    """Set a waiting job aside; False where it does not wait."""
    with writing():
        return move_job(job_id, JobStatus.QUEUED, JobStatus.HELD, "held by an operator")


def unhold(job_id: int) -> bool:
    """Let a job that was set aside wait again; False where it was not."""
    with writing():
        return move_job(job_id, JobStatus.HELD, JobStatus.QUEUED, "released by an operator")


_WAITING = Statement(lambda: Queue.select(Queue.id).where(IS_QUEUED).limit(1))
_IN_ORDER = (Queue.priority.desc(), Queue.id)
_WAITING_JOBS = Statement(lambda: Queue.select(*ALL_COLUMNS).where(IS_QUEUED).order_by(*_IN_ORDER).limit(param("size")))
_FIRST_DEMAND = Statement(lambda: Queue.select(fn.MIN(Queue.demand)).where(IS_QUEUED))
_NEXT_DEMAND = Statement(lambda: Queue.select(fn.MIN(Queue.demand)).where(IS_QUEUED, Queue.demand > param("after")))
_OF_DEMAND = Statement(
    lambda: (
        Queue.select(*ALL_COLUMNS)
        .where(
            IS_QUEUED,
            Queue.demand == param("demand"),
            Queue.priority <= param("priority"),
            (Queue.priority < param("priority")) | (Queue.id > param("id")),
        )
        .order_by(*_IN_ORDER)
        .limit(param("size"))
    )
)
_CPUS = Statement(
    lambda: Engines.select(Engines.engine, Engines.cpu, Engines.status, Engines.job_id).order_by(Engines.id)
)
_PLACED = Statement(
    lambda: Queue.select(Queue.id, Queue.engine).where(IS_ACTIVE, Queue.engine.is_null(False), IS_PLACED)
)
_KEPT = Statement(lambda: Queue.select(Queue.id, Queue.engine).where(IS_KEPT, Queue.engine.is_null(False)))
_TIED_TO_CALLER = Statement(
    lambda: Queue.select(*ALL_COLUMNS).where(Queue.host == param("host"), IS_TIED_TO_CALLER, Queue.ending.is_null())
)
