"""Jobs and rows, as tests need them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from orchestrator.clock import utc_now
from orchestrator.job import Job, JobRequest
from orchestrator.store.models import Queue
from orchestrator.store.placing import place
from orchestrator.store.taking import Arrival, Taken, take
from orchestrator.store.views import job_by_id


def a_job(**fields: Any) -> Job:
    """Give a QUEUED job that is in no database."""
    row: dict[str, Any] = {field.name: field.default for field in Queue._meta.sorted_fields}
    row |= {"id": 1, "host": "host", "spool": "default", "name": "MASK_CRM", "job": "MASK_CRM", "status": "QUEUED"}
    return Job(**row | {"submitted_at": utc_now()} | fields)


def an_arrival(name: str = "MASK_CRM", **fields: Any) -> Arrival:
    """Give a claimed job file; what it asks for stands in `request`."""
    known: dict[str, Any] = {"host": "host", "spool": "default", "claim": uuid4().hex, "request": JobRequest(job=name)}
    return Arrival(name=name, **known | fields)


def queued(name: str = "MASK_CRM", **fields: Any) -> Job:
    """Take a job file; its row."""
    arrival = an_arrival(name, **fields)
    assert take([arrival]) == [(Taken.QUEUED, None)]
    found = Queue.get(Queue.claim == arrival.claim)
    return again(found.id)


def placed(name: str = "MASK_CRM", engine: str = "engine1", cpu: str = "CPU1", **fields: Any) -> Job:
    """Take a job file and put it on a CPU; its row."""
    job = queued(name, **fields)
    assert place([(job, (engine, cpu))]) == 1
    return again(job.id)


def again(job: Job | int) -> Job:
    """Read a job's row anew."""
    found = job_by_id(job if isinstance(job, int) else job.id)
    assert found is not None
    return found
