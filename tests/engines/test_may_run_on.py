"""What may still run is never run again by itself, and keeps its CPU (P4, P5)."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.checkstatus import check as check_module
from orchestrator.checkstatus.check import Checker
from orchestrator.checkstatus.start import Starter
from orchestrator.checkstatus.worker import EngineWorker
from orchestrator.clock import tick
from orchestrator.engines.base import Ended, Running, StartLost
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.models import Queue
from orchestrator.store.placing import capacities
from orchestrator.store.running import adopt, ended, executions_of_others, intend_start, jobs_on
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines, events_of

from .fake import HOST, FakeEngine, a_dead_process, again, check, me, placed

pytestmark = pytest.mark.usefixtures("store")


def test_retries_do_not_run_a_lost_start_again() -> None:
    engine = FakeEngine()
    job = placed(retries=3)
    assert intend_start(job, f"{HOST}/{me()}", "mark") is not None
    engine.fails["find_start"] = [StartLost("nobody can tell")]
    Starter(engine, HOST, me()).start(jobs_on("engine1"))

    assert again(job).status == "FAILED"
    assert again(job).retries == 3
    assert engine.started == []


def lost(**fields: Any) -> Job:
    """Place a job whose starter died in the start."""
    job = placed(**fields)
    assert intend_start(job, f"{HOST}/{a_dead_process()}", "mark") is not None
    return again(job)


def cpu1() -> str | None:
    return cpus_of_engines()["engine1"][0]["status"]


def test_a_lost_start_that_may_run_keeps_its_cpu_until_nothing_runs_that_it_may_have_started() -> None:
    engine, job = FakeEngine(), lost()
    engine.fails["find_start"] = [StartLost("E1 and E2 were both started", may_run=True)]
    worker = EngineWorker(engine, HOST, me(), lambda: None)
    worker.tick()
    assert (again(job).status, cpu1(), capacities()["engine1"].jobs) == ("FAILED", "JUST_INSERTED", 1)
    engine.executions[""] = Running()
    worker.tick()
    assert cpu1() == "JUST_INSERTED"
    engine.end("", JobStatus.FAILED)
    worker.tick()
    assert (cpu1(), capacities()["engine1"].jobs, jobs_on("engine1")) == ("FREE", 0, [])
    assert events_of(job.id)[-1]["why"] == "nothing runs that it may have started"
    assert engine.calls.count("find_start") == 1
    assert engine.cancelled == []  # it may be somebody else's


def test_the_caller_of_a_lost_start_is_told_of_its_cancel_though_the_engine_stays_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, job = FakeEngine(), lost(retries=3)
    ask_end(job.id, JobStatus.CANCELLED, "by an operator")
    engine.fails["describe"] = [EngineDown("no answer")] * 9
    worker = EngineWorker(engine, HOST, me(), lambda: None)
    worker.tick()
    assert again(job).status == "SCHEDULED"
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    worker.tick()
    assert (again(job).status, cpu1()) == ("CANCELLED", "JUST_INSERTED")
    assert "by an operator; the engine does not confirm it, so the execution may still run" in str(again(job).reason)


@pytest.mark.parametrize("found", ["E1", None])
def test_a_lost_start_whose_caller_was_told_is_cancelled_where_it_is_found_and_then_frees_its_cpu(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    engine, job = FakeEngine(), lost()
    ask_end(job.id, JobStatus.CANCELLED, "by an operator")
    engine.fails["describe"] = [EngineDown("no answer")]
    worker = EngineWorker(engine, HOST, me(), lambda: None)
    worker.tick()
    engine.found = found
    engine.executions = {"": Running(), "E1": Running()}
    for _ in range(2):
        worker._retry_due = 0.0
        worker.tick()
    assert (again(job).status, again(job).execution, cpu1()) == ("CANCELLED", found, "JUST_INSERTED")
    assert engine.cancelled == ([job.id] if found else [])
    engine.end(found or "", JobStatus.CANCELLED)
    worker.tick()
    assert (again(job).status, cpu1(), jobs_on("engine1")) == ("CANCELLED", "FREE", [])


def test_the_time_of_a_lost_start_counts_from_when_it_was_meant() -> None:
    engine, job = FakeEngine(), lost(timeout=5)
    checker = Checker(engine)
    assert not checker.time_out(jobs_on("engine1"))
    boot, now = tick().split()
    Queue.update(starting_tick=f"{boot} {float(now) - 6}").execute()
    assert checker.time_out(jobs_on("engine1"))
    assert (again(job).ending, again(job).ending_why) == ("TIMEOUT", "its start had no answer for 5 s")


def test_a_job_that_nobody_began_to_start_has_no_time_to_run_out() -> None:
    placed(timeout=0.001)
    assert not Checker(FakeEngine()).time_out(jobs_on("engine1"))


def test_an_execution_that_may_run_on_keeps_its_cpu_until_the_engine_shows_its_end() -> None:
    engine = FakeEngine()
    job = placed(retries=3)
    Starter(engine, HOST, me()).start(jobs_on("engine1"))
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="an odd status", may_run_on=True)
    checker = Checker(engine)
    check(checker)
    check(checker)

    assert (again(job).status, again(job).reason) == ("FAILED", "an odd status")
    assert cpus_of_engines()["engine1"][0]["status"] == "RUNNING"
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="it is over")
    check(checker)
    assert cpus_of_engines()["engine1"][0]["status"] == "FREE"
    assert again(job).reason == "an odd status"


def test_an_execution_that_was_found_for_an_ended_job_is_nobody_elses() -> None:
    other, job = lost(name="OTHER", cpu="CPU2"), lost()
    ended(job, JobStatus.CANCELLED, "told", cpu_is_free=False)
    assert adopt(again(job), "E1")
    assert not adopt(again(job), "E2")
    assert executions_of_others(other) == {"E1"}
    Queue.update(kept_since=None).where(Queue.id == job.id).execute()
    assert executions_of_others(other) == {"E1"}


def test_a_start_that_is_answered_after_its_caller_was_told_is_cancelled_and_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, job = FakeEngine(), placed()
    start = engine.start

    def start_slowly(intended: Job) -> str:
        execution = start(intended)
        ended(again(intended), JobStatus.CANCELLED, "told", cpu_is_free=False)
        return execution

    monkeypatch.setattr(engine, "start", start_slowly)
    Starter(engine, HOST, me()).start(jobs_on("engine1"))
    assert (engine.cancelled, again(job).execution, again(job).status) == ([job.id], "E1", "CANCELLED")
    assert [each.id for each in jobs_on("engine1")] == [job.id]
