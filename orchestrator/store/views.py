"""What the command line shows."""

from __future__ import annotations

from peewee import JOIN, fn

from orchestrator.job import Job
from orchestrator.store.models import IS_ACTIVE, Engines, Events, Queue, dicts_of, tuples_of
from orchestrator.store.moves import jobs_where


def list_jobs(*, ended_too: bool, limit: int) -> list[Job]:
    """Give the active jobs, or the latest of all; oldest first."""
    query = Queue.select().order_by(Queue.id.desc()).limit(limit)
    if not ended_too:
        query = query.where(IS_ACTIVE)
    return [Job(**row) for row in dicts_of(query)][::-1]


def find_job(name_or_id: str) -> Job | None:
    """Give the job with this NAME (the latest, where there were several) or this id."""
    found = jobs_where(Queue.name == name_or_id)
    if not found and name_or_id.isascii() and name_or_id.isdigit():
        found = jobs_where(Queue.id == int(name_or_id))
    return found[-1] if found else None


def job_by_id(job_id: int) -> Job | None:
    """Give one job."""
    found = jobs_where(Queue.id == job_id)
    return found[0] if found else None


def events_of(job_id: int) -> list[dict[str, str | None]]:
    """Give the story of a job: `at`, `move`, `why`, `engine`, `cpu`; oldest first."""
    columns = (Events.at, Events.move, Events.why, Events.engine, Events.cpu)
    return list(dicts_of(Events.select(*columns).where(Events.job_id == job_id).order_by(Events.id)))


def count_by_status() -> dict[str, int]:
    """Count the jobs in each status."""
    rows = Queue.select(Queue.status, fn.COUNT(Queue.id)).group_by(Queue.status).order_by(Queue.status)
    return dict(tuples_of(rows))


def cpus_of_engines() -> dict[str, list[dict[str, str | None]]]:
    """Give each engine's CPUs as {cpu, status, job}, where job is the NAME of the job on it."""
    rows = (
        Engines.select(Engines.engine, Engines.cpu, Engines.status, Queue.name)
        .join(Queue, JOIN.LEFT_OUTER, on=(Queue.id == Engines.job_id))
        .order_by(Engines.engine, Engines.id)
    )
    engines: dict[str, list[dict[str, str | None]]] = {}
    for engine, cpu, status, name in tuples_of(rows):
        engines.setdefault(engine, []).append({"cpu": cpu, "status": status, "job": name})
    return engines
