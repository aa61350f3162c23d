"""One line about the CPUs and the queue as they are now."""

from __future__ import annotations

from orchestrator.demo.stage import ENGINES
from orchestrator.state import JobStatus

_WIDTH = 12
_WAITING = (JobStatus.QUEUED, JobStatus.SCHEDULING, JobStatus.SCHEDULED)


def heads() -> str:
    """The columns' heads."""
    engines = "".join(engine.name.ljust((_WIDTH + 1) * engine.cpus + 1) for engine in ENGINES)
    return f"        {engines}waiting for a CPU"


def line() -> str:
    """What runs where and what waits, out of the database that is open."""
    from orchestrator.store.views import cpus_of_engines, list_jobs

    jobs = {job.name: job for job in list_jobs(ended_too=False, limit=100)}
    text = ""
    busy = set()
    cpus = cpus_of_engines()
    for engine in ENGINES:
        for cpu in cpus.get(engine.name, []):
            name = cpu["job"] or ""
            busy.add(name)
            text += f"{jobs[name].job if name in jobs else '-':{_WIDTH}} "
        text += " "
    waiting = [job.job for job in jobs.values() if job.status in _WAITING and job.name not in busy]
    return (text + " ".join(waiting)).rstrip()
