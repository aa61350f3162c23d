"""In which order jobs wait, and how few of them are read."""

from __future__ import annotations

import random

import pytest

from orchestrator.engines.base import Knows, Lookup
from orchestrator.job import Job, JobRequest, demand_of
from orchestrator.scheduler.schedule import KnownEngine, schedule
from orchestrator.state import EngineState
from orchestrator.store.engines import seed_cpus
from orchestrator.store.placing import waiting_jobs

from .make import again, queued

pytestmark = pytest.mark.usefixtures("store")


def waiting(job: str, priority: int = 50, number: int = 0) -> Job:
    return queued(f"{job}@{number}", request=JobRequest(job=job), priority=priority)


@pytest.mark.parametrize("first", [1, 3, 20, 100])
def test_jobs_wait_by_priority_then_age_whatever_they_ask_for(first: int) -> None:
    dice = random.Random(first)
    jobs = [waiting(dice.choice("ABC"), dice.choice((10, 50, 90)), number) for number in range(40)]
    expected = sorted(jobs, key=lambda job: (-job.priority, job.id))
    assert [job.id for job in waiting_jobs(first)] == [job.id for job in expected]


def test_what_is_blocked_meanwhile_is_left_out() -> None:
    jobs = [waiting("AB"[number % 2], number=number) for number in range(40)]
    blocked: set[str] = set()
    found = []
    for job in waiting_jobs(4, blocked):
        found.append(job)
        if len(found) == 8:
            blocked.add(jobs[0].demand)
    assert [job.id for job in found[:8]] == [job.id for job in jobs[:8]]
    assert {job.job for job in found[9:]} == {"B"}
    assert len(found) in (8 + 16, 8 + 17)


def test_however_many_wait_for_one_engine_what_another_can_run_is_placed_at_once() -> None:
    seed_cpus("engine1", 1)
    seed_cpus("engine2", 1)
    for number in range(300):
        waiting("BUSY", number=number)
    late = waiting("LATE", priority=1)
    asked = []

    def known(has: str) -> KnownEngine:
        def lookup(job: Job) -> Lookup:
            asked.append(job.id)
            return Lookup(Knows.YES if job.job == has else Knows.NO)

        return KnownEngine(state=EngineState.UP, lookup=lookup, ask=lambda: None)

    schedule({"engine1": known("BUSY"), "engine2": known("LATE")})
    assert (again(late).status, again(late).engine) == ("SCHEDULED", "engine2")
    assert len(asked) < 20


def test_a_demand_is_all_that_decides_where_a_job_can_run() -> None:
    alike = JobRequest(job="a", command="one line", params={"x": "1"}, priority=3)
    other = JobRequest(job="a", command="another", params={"x": "2"})
    assert demand_of(alike, "e1", shell=True) == demand_of(other, "e1", shell=True)
    assert demand_of(alike, "e1", shell=False) != demand_of(other, "e1", shell=False)
    assert demand_of(alike, "e1", shell=True) != demand_of(alike, "e2", shell=True)
    inside = JobRequest(job="a", environment="here")
    assert demand_of(inside, "", shell=False) != demand_of(JobRequest(job="a"), "", shell=False)
