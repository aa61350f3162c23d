"""Intake's side of the store: a claimed job file becomes one row, and what is asked of it afterwards."""

from __future__ import annotations

import pytest

from orchestrator.errors import JobRefused
from orchestrator.job import JobRequest
from orchestrator.state import JobStatus
from orchestrator.store.models import Queue
from orchestrator.store.moves import jobs_where, move_job
from orchestrator.store.placing import fail_waiting, hold, unhold
from orchestrator.store.releasing import jobs_to_release, record_released
from orchestrator.store.taking import Taken, active_job, ask_end, take
from orchestrator.store.views import count_by_status, events_of, find_job, list_jobs

from .make import again, an_arrival, placed, queued

pytestmark = pytest.mark.usefixtures("store")


def test_a_row_holds_all_that_the_job_file_said() -> None:
    request = JobRequest(
        job="MASK_HR", environment="PROD", source_connector=3, target_connector=4, retries=2,
        on_caller_exit="cancel", on_unknown="retry", on_warning="finish", params={"who": "o'neil"},
    )  # fmt: skip
    job = queued(
        "N@1", request=request, owner=1000, caller="7:8:b", light="L", engines=("e1", "e2"), priority=7, timeout=9.5
    )
    assert (job.name, job.job, job.environment, job.status) == ("N@1", "MASK_HR", "PROD", "QUEUED")
    assert (job.source_connector, job.target_connector, job.retries) == (3, 4, 2)
    assert (job.on_caller_exit, job.on_unknown, job.on_warning) == ("cancel", "retry", "finish")
    assert (job.params, job.owner, job.caller, job.light) == ('{"who": "o\'neil"}', 1000, "7:8:b", "L")
    assert (sorted(job.allowed_engines), job.priority, job.timeout) == (["e1", "e2"], 7, 9.5)
    assert (job.attempts, job.tried_engines, job.ended_at, job.ending) == (0, frozenset(), None, None)


def test_the_same_claim_taken_again_is_the_same_row() -> None:
    arrival = an_arrival()
    assert take([arrival, arrival]) == [(Taken.QUEUED, None)] * 2
    assert take([arrival]) == [(Taken.QUEUED, None)]
    assert count_by_status() == {"QUEUED": 1}


def test_a_refused_claim_taken_again_is_refused_again_for_the_same_reason() -> None:
    arrival = an_arrival(request=None, refused=str(JobRefused("unknown key", 3)))
    assert take([arrival]) == [(Taken.REFUSED, "line 3: unknown key")]
    assert take([arrival]) == [(Taken.REFUSED, "line 3: unknown key")]
    assert count_by_status() == {"REJECTED": 1}


def test_a_claim_whose_job_has_ended_meanwhile_is_not_taken_anew() -> None:
    arrival = an_arrival()
    take([arrival])
    assert fail_waiting(jobs_where(Queue.claim == arrival.claim)[0], "no engine")
    assert take([arrival]) == [(Taken.QUEUED, None)]
    assert count_by_status() == {"FAILED": 1}


def test_a_second_job_of_a_name_in_use_is_refused_and_the_first_goes_on() -> None:
    first = queued(light="its light")
    refused = take([an_arrival(light="another", light_is_new=True)])
    assert refused == [(Taken.REFUSED, f"the name is in use by job {first.id}, which has not ended")]
    assert (again(first).status, again(first).light) == ("QUEUED", "its light")


def test_the_light_of_the_first_job_is_never_changed_for_the_second() -> None:
    first = queued(light="its light")
    take([an_arrival(light="its light, touched")])
    second = list_jobs(ended_too=True, limit=9)[-1]
    assert (second.status, second.light, second.released_at is not None) == ("REJECTED", None, True)
    assert again(first).light == "its light, touched"


def test_the_same_name_in_another_spool_or_on_another_host_is_another_job() -> None:
    queued()
    assert queued(spool="b").id != queued(host="c").id
    assert count_by_status() == {"QUEUED": 3}


def test_a_name_is_free_again_when_its_job_has_ended() -> None:
    first = queued()
    assert ask_end(first.id, JobStatus.CANCELLED, "by its caller")
    assert queued().id > first.id


def test_two_of_a_name_in_one_go_give_one_job() -> None:
    told = [what for what, _ in take([an_arrival(), an_arrival()])]
    assert told == [Taken.QUEUED, Taken.REFUSED]


def test_a_new_request_on_the_same_light_releases_whoever_waited_before() -> None:
    first = queued(light="old")
    fail_waiting(first, "no engine")
    queued(light="new")
    assert again(first).released_at is not None
    assert jobs_to_release("host") == []
    assert events_of(first.id)[-1]["move"] == "superseded"


def test_an_arrival_without_a_request_must_be_refused() -> None:
    with pytest.raises(AssertionError):
        take([an_arrival(), an_arrival("OTHER", request=None)])
    assert count_by_status() == {}


def test_the_active_job_of_a_name_is_found_until_it_has_ended() -> None:
    job = queued()
    assert active_job("host", "default", "MASK_CRM") == job
    assert active_job("host", "default", "OTHER") is None
    fail_waiting(job, "no engine")
    assert active_job("host", "default", "MASK_CRM") is None


def test_a_waiting_job_is_cancelled_at_once() -> None:
    job = queued()
    assert ask_end(job.id, JobStatus.CANCELLED, "by an operator")
    assert (again(job).status, again(job).reason) == ("CANCELLED", "by an operator")
    assert not ask_end(job.id, JobStatus.CANCELLED, "twice")
    assert again(job).reason == "by an operator"


def test_a_held_job_is_cancelled_at_once() -> None:
    job = queued()
    assert hold(job.id)
    assert ask_end(job.id, JobStatus.CANCELLED, "by an operator")
    assert again(job).status == "CANCELLED"


def test_a_placed_job_is_only_asked_to_end_and_the_first_to_ask_counts() -> None:
    from orchestrator.store.engines import seed_cpus

    seed_cpus("engine1", 1)
    job = placed()
    assert ask_end(job.id, JobStatus.TIMEOUT, "ran too long")
    assert not ask_end(job.id, JobStatus.CANCELLED, "too late")
    asked = again(job)
    assert (asked.status, asked.ending, asked.ending_why) == ("SCHEDULED", "TIMEOUT", "ran too long")
    assert asked.ending_tick is not None


def test_a_job_that_is_not_there_cannot_be_asked_to_end() -> None:
    assert not ask_end(4711, JobStatus.CANCELLED, "x")


def test_a_job_is_held_and_let_go_once() -> None:
    job = queued()
    assert (hold(job.id), hold(job.id), again(job).status) == (True, False, "HELD")
    assert (unhold(job.id), unhold(job.id), again(job).status) == (True, False, "QUEUED")


def test_an_ended_job_waits_for_its_release_on_its_own_host_and_is_released_once() -> None:
    job, other = queued(light="L"), queued(host="other")
    fail_waiting(job, "no engine")
    fail_waiting(other, "no engine")
    assert [each.id for each in jobs_to_release("host")] == [job.id]
    record_released([(job.id, "light rewritten")])
    first = again(job).released_at
    record_released([(job.id, "light rewritten")])
    assert first is not None
    assert again(job).released_at == first
    assert [each["move"] for each in events_of(job.id)].count("released") == 1
    assert jobs_to_release("host") == []


def test_an_active_job_is_never_recorded_as_released() -> None:
    job = queued()
    record_released([(job.id, "by mistake")])
    assert again(job).released_at is None


def test_a_job_is_found_by_its_name_or_by_its_id() -> None:
    first = queued()
    fail_waiting(first, "no engine")
    second = queued()
    assert find_job("MASK_CRM") == second
    assert find_job(str(first.id)) == again(first)
    assert find_job("nothing") is None
    assert find_job("٣") is None


def test_the_latest_jobs_are_listed_oldest_first() -> None:
    jobs = [queued(f"N{number}") for number in range(4)]
    fail_waiting(jobs[3], "no engine")
    assert [job.name for job in list_jobs(ended_too=True, limit=3)] == ["N1", "N2", "N3"]
    assert [job.name for job in list_jobs(ended_too=False, limit=9)] == ["N0", "N1", "N2"]


def test_a_job_that_was_taken_up_by_a_scheduler_that_died_is_never_seen_so() -> None:
    """SCHEDULING stands only inside a transaction: one that is cut off leaves QUEUED."""
    job = queued()
    assert move_job(job.id, JobStatus.QUEUED, JobStatus.SCHEDULING)
    assert ask_end(job.id, JobStatus.CANCELLED, "x")  # even where it is seen, nobody is forgotten
    assert again(job).ending == "CANCELLED"
