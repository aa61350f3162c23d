"""What start and check write: intent, execution, progress, end, another try; the CPU goes with the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.job import Job, JobRequest
from orchestrator.state import JobStatus
from orchestrator.store.engines import seed_cpus
from orchestrator.store.models import Engines
from orchestrator.store.placing import capacities, place
from orchestrator.store.running import ended, free_cpu, intend_start, is_over, jobs_on, not_started, progress, started
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines, events_of

from .make import again, placed

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(autouse=True)
def _cpus(store: Path) -> None:
    seed_cpus("engine1", 2)


def running(execution: str = "4711", **fields: Any) -> Job:
    job = placed(**fields)
    assert intend_start(job, "host/me", "1:0")
    assert started(again(job), execution)
    return again(job)


def cpu1() -> dict[str, str | None]:
    return cpus_of_engines()["engine1"][0]


FREE = {"cpu": "CPU1", "status": "FREE", "job": None}


def test_the_intent_to_start_is_recorded_once() -> None:
    job = placed()
    assert intend_start(job, "host/me", "1:5")
    assert not intend_start(job, "host/another", "1:6")
    intended = again(job)
    assert (intended.starter, intended.start_mark, intended.attempts) == ("host/me", "1:5", 1)
    assert intended.starting_tick is not None


def test_only_a_scheduled_job_can_be_about_to_start() -> None:
    job = running()
    assert not intend_start(job, "host/another", "1:6")


def test_a_job_and_its_cpu_begin_to_run_together() -> None:
    job = running("4711")
    assert (job.status, job.execution) == ("RUNNING", "4711")
    assert job.started_at is not None
    assert job.started_tick is not None
    assert cpu1() == {"cpu": "CPU1", "status": "RUNNING", "job": "MASK_CRM"}
    assert not started(job, "4712")
    assert again(job).execution == "4711"


def test_a_start_that_did_not_arrive_gives_job_and_cpu_back() -> None:
    job = placed()
    intend_start(job, "host/me", "1:5")
    assert not_started(again(job), "engine1 could not be reached")
    back = again(job)
    assert (back.status, back.engine, back.cpu, back.starter) == ("QUEUED", None, None, None)
    assert (back.start_mark, back.starting_tick) == (None, None)
    assert cpu1() == FREE
    assert not not_started(job, "twice")


def test_a_start_that_did_not_arrive_of_a_job_asked_to_end_ends_it() -> None:
    job = placed()
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    assert not_started(again(job), "engine1 could not be reached")
    assert (again(job).status, again(job).reason) == ("CANCELLED", "by its caller")
    assert cpu1() == FREE


@pytest.mark.parametrize("end", [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT])
def test_an_end_is_recorded_once_and_frees_the_cpu_with_it(end: JobStatus) -> None:
    job = running()
    assert ended(job, end, "because", exit_status=3, detail="more", rows_masked=5, rows_total=6)
    assert not ended(job, end, "twice")
    over = again(job)
    assert (over.status, over.reason, over.exit, over.detail) == (end, "because", 3, "more")
    assert (over.rows_masked, over.rows_total, over.execution) == (5, 6, "4711")
    assert cpu1() == FREE
    assert jobs_on("engine1") == []


def test_a_refused_start_frees_the_cpu_too() -> None:
    job = placed()
    intend_start(job, "host/me", "1:5")
    assert ended(again(job), JobStatus.FAILED, "refused")
    assert cpu1() == FREE


def test_a_failed_attempt_with_retries_left_waits_again_and_remembers_where_it_failed() -> None:
    job = running(request=JobRequest(job="MASK_CRM", retries=1))
    assert ended(job, JobStatus.FAILED, "rows rejected", exit_status=1)
    back = again(job)
    assert (back.status, back.retries, back.tried, back.ended_at) == ("QUEUED", 0, "engine1", None)
    assert (back.engine, back.cpu, back.execution, back.starter, back.started_tick) == (None,) * 5
    assert cpu1() == FREE
    assert "tried again: rows rejected" in str(events_of(job.id)[-1]["why"])


def test_the_last_attempt_fails_for_good() -> None:
    job = running(request=JobRequest(job="MASK_CRM", retries=0))
    assert ended(job, JobStatus.FAILED, "rows rejected")
    assert again(job).status == "FAILED"


@pytest.mark.parametrize("end", [JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.TIMEOUT])
def test_only_a_failure_is_tried_again(end: JobStatus) -> None:
    job = running(request=JobRequest(job="MASK_CRM", retries=5))
    assert ended(job, end, "because")
    assert again(job).status == end


def test_a_job_that_was_asked_to_end_is_not_tried_again() -> None:
    job = running(request=JobRequest(job="MASK_CRM", retries=5))
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")  # the caller of ended() has not seen it yet
    assert ended(job, JobStatus.FAILED, "killed")
    assert again(job).status == "FAILED"


def test_an_end_that_keeps_the_cpu_keeps_it_busy_until_it_is_freed() -> None:
    job = running()
    assert ended(job, JobStatus.CANCELLED, "the engine is silent", cpu_is_free=False)
    assert cpu1()["status"] == "RUNNING"
    held = jobs_on("engine1")
    assert [(each.id, is_over(each)) for each in held] == [(job.id, True)]
    free_cpu(held[0], "its execution has ended")
    assert cpu1() == FREE
    assert jobs_on("engine1") == []
    assert events_of(job.id)[-1]["move"] == "CPU free"


def retried_as(execution: str) -> tuple[Job, Job]:
    """Have an attempt fail and the next one run on the same CPU; the job as it was read in each."""
    first = running("E1", request=JobRequest(job="MASK_CRM", retries=3))
    assert ended(first, JobStatus.FAILED, "boom")
    assert place([(again(first), ("engine1", "CPU1"))]) == 1
    assert intend_start(again(first), "host/me", "1:1")
    assert started(again(first), execution)
    return first, again(first)


def test_what_is_learnt_late_of_an_attempt_says_nothing_of_the_next_one() -> None:
    first, second = retried_as("E2")
    assert not ended(first, JobStatus.FAILED, "boom")
    progress(first, 10, 20)
    assert again(first) == second
    assert cpu1()["status"] == "RUNNING"


def test_a_job_that_another_one_has_begun_to_start_is_not_put_back_or_ended_by_who_had_not_seen_that() -> None:
    seen = placed()
    assert intend_start(seen, "host/another", "1:5")
    assert not not_started(seen, "engine1 is down")
    ask_end(seen.id, JobStatus.CANCELLED, "by its caller")
    assert not ended(seen, JobStatus.CANCELLED, "by its caller")
    assert (again(seen).status, again(seen).starter) == ("SCHEDULED", "host/another")
    assert cpu1()["status"] == "JUST_INSERTED"


def test_the_start_of_an_attempt_that_was_given_up_is_not_the_start_of_the_next_one() -> None:
    job = placed()
    first = intend_start(job, "host/me", "1:5")
    assert first is not None
    assert not_started(first, "it did not arrive")
    assert place([(again(job), ("engine1", "CPU1"))]) == 1
    assert not started(first, "E1")
    assert intend_start(again(job), "host/me", "1:5")
    assert not started(first, "E1")
    assert again(job).status == "SCHEDULED"


def test_a_job_that_was_placed_elsewhere_meanwhile_is_left_there() -> None:
    seed_cpus("engine2", 1)
    seen = placed()
    assert not_started(seen, "engine1 is down")
    assert place([(again(seen), ("engine2", "CPU1"))]) == 1
    assert not not_started(seen, "engine1 is down")
    assert not ended(seen, JobStatus.FAILED, "refused")
    assert intend_start(seen, "host/me", "1:5") is None
    assert (again(seen).status, again(seen).engine, again(seen).starter) == ("SCHEDULED", "engine2", None)


def test_a_cpu_is_freed_once() -> None:
    job = running()
    ended(job, JobStatus.CANCELLED, "the engine is silent", cpu_is_free=False)
    assert free_cpu(again(job), "its execution has ended")
    assert not free_cpu(again(job), "its execution has ended")
    assert [event["move"] for event in events_of(job.id)].count("CPU free") == 1


def test_a_cpu_that_an_ended_job_still_holds_is_not_given_away_where_its_row_was_made_anew() -> None:
    job = running()
    ended(job, JobStatus.TIMEOUT, "the engine is silent", cpu_is_free=False)
    Engines.delete().where(Engines.job_id == job.id).execute()
    Engines.insert(engine="engine1", cpu="CPU1").execute()
    assert [each.id for each in jobs_on("engine1")] == [job.id]
    assert (capacities()["engine1"].cpus, capacities()["engine1"].jobs) == (2, 1)
    assert free_cpu(jobs_on("engine1")[0], "its execution has ended")
    assert (jobs_on("engine1"), capacities()["engine1"].jobs) == ([], 0)


def test_a_cpu_that_an_ended_job_still_holds_counts_once() -> None:
    job = running()
    ended(job, JobStatus.TIMEOUT, "the engine is silent", cpu_is_free=False)
    assert (capacities()["engine1"].jobs, capacities()["engine1"].free) == (1, ["CPU2"])
    assert [each.id for each in jobs_on("engine1")] == [job.id]


def test_progress_is_of_running_jobs_only() -> None:
    job = running()
    progress(job, 10, 20)
    assert (again(job).rows_masked, again(job).rows_total) == (10, 20)
    ended(job, JobStatus.FINISHED, None, rows_masked=20, rows_total=20)
    progress(job, 11, 20)
    assert again(job).rows_masked == 20


def test_a_job_whose_cpu_row_was_deleted_is_watched_and_ends_all_the_same() -> None:
    job = running()
    Engines.delete().where(Engines.job_id == job.id).execute()
    assert [each.id for each in jobs_on("engine1")] == [job.id]
    assert ended(job, JobStatus.FINISHED, None)
    assert again(job).status == "FINISHED"
    assert jobs_on("engine1") == []


def test_the_end_of_one_job_never_frees_the_cpu_of_another() -> None:
    first = running()
    Engines.delete().where(Engines.job_id == first.id).execute()
    Engines.insert(engine="engine1", cpu="CPU1").execute()
    second = placed("OTHER")
    assert ended(first, JobStatus.FINISHED, None)
    assert [(each["cpu"], each["status"], each["job"]) for each in cpus_of_engines()["engine1"]][-1] == (
        "CPU1", "JUST_INSERTED", "OTHER",
    )  # fmt: skip
    assert again(second).status == "SCHEDULED"


def test_each_engine_sees_only_its_own_jobs() -> None:
    running()
    assert jobs_on("engine2") == []
