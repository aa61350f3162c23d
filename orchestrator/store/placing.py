"""What the scheduler reads and writes: jobs that wait, CPUs that are free, and a job put on a CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.clock import tick
from orchestrator.job import Job
from orchestrator.state import CpuStatus, JobStatus
from orchestrator.store.database import writing
from orchestrator.store.models import IS_ACTIVE, IS_KEPT, IS_PLACED, IS_QUEUED, IS_TIED_TO_CALLER, Engines, Queue
from orchestrator.store.moves import CpuRow, move_cpu, move_job
from orchestrator.store.statement import ALL_COLUMNS, Statement, jobs_of, param


def waiting_jobs(first: int) -> Iterator[Job]:
    """Give the jobs that wait for a CPU: highest priority first, then oldest.

    Read only as far as is asked: the `first` so many, which usually take all the room there is, then ever more.
    """
    size, done = first, 0
    while True:
        jobs = jobs_of(_WAITING_JOBS.rows(size=size, done=done))
        yield from jobs
        if len(jobs) < size:
            return
        done += size
        size *= 2


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
_WAITING_JOBS = Statement(
    lambda: (
        Queue.select(*ALL_COLUMNS)
        .where(IS_QUEUED)
        .order_by(Queue.priority.desc(), Queue.id)
        .limit(param("size"))
        .offset(param("done"))
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
