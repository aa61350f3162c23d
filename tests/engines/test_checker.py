"""Step check: progress, ends, timeouts, cancels, and what is told of an engine that is silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.checkstatus import check as check_module
from orchestrator.checkstatus.check import Checker
from orchestrator.engines.base import Ended, Running
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.models import Queue
from orchestrator.store.running import intend_start, jobs_on, started
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, FakeEngine, again, me, placed

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def checker(engine: FakeEngine) -> Checker:
    return Checker(engine)


def running(engine: FakeEngine, execution: str = "E1", **fields: Any) -> Job:
    job = placed(**fields)
    intend_start(job, f"{HOST}/{me()}", f"mark of {job.id}")
    started(again(job), execution)
    engine.executions[execution] = Running()
    return again(job)


def step(checker: Checker) -> bool:
    return checker.check(jobs_on("engine1"))


def cpu1() -> str | None:
    return cpus_of_engines()["engine1"][0]["status"]


def test_progress_is_recorded(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    engine.executions["E1"] = Running(rows_masked=5, rows_total=9)
    assert not step(checker)
    assert (again(job).rows_masked, again(job).rows_total) == (5, 9)


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_an_end_is_recorded_with_all_that_the_engine_told(
    engine: FakeEngine, checker: Checker, status: JobStatus
) -> None:
    job = running(engine)
    engine.executions["E1"] = Ended(
        status=status, reason="so", exit_status=3, detail="more", rows_masked=5, rows_total=9
    )
    assert step(checker)
    over = again(job)
    assert (over.status, over.reason, over.exit, over.detail) == (status, "so", 3, "more")
    assert (over.rows_masked, over.rows_total, cpu1(), engine.forgotten) == (5, 9, "FREE", [job.id])
    assert not step(checker)


def test_a_job_that_the_engine_does_not_know_of_now_goes_on(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    engine.executions.clear()
    assert not step(checker)
    assert again(job).status == "RUNNING"


def test_all_jobs_are_asked_for_at_once_and_nothing_is_asked_where_none_runs(
    engine: FakeEngine, checker: Checker
) -> None:
    step(checker)
    assert engine.calls == []
    running(engine, "E1", name="a")
    running(engine, "E2", name="b", cpu="CPU2")
    step(checker)
    assert engine.calls == ["check"]


def test_a_failed_attempt_is_tried_again_elsewhere_and_the_end_told_only_once(
    engine: FakeEngine, checker: Checker
) -> None:
    job = running(engine, retries=1)
    engine.end("E1", JobStatus.FAILED, "rows rejected")
    assert step(checker)
    assert (again(job).status, again(job).tried, cpu1()) == ("QUEUED", "engine1", "FREE")


def test_a_cancel_reaches_the_engine_until_it_shows_the_end(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    step(checker)
    step(checker)
    assert (engine.cancelled, again(job).status) == ([job.id, job.id], "RUNNING")
    engine.end("E1", JobStatus.CANCELLED)
    step(checker)
    assert (again(job).status, again(job).reason, cpu1()) == ("CANCELLED", "by its caller", "FREE")


def test_a_job_that_finished_before_its_cancel_arrived_is_finished(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    engine.end("E1", JobStatus.FINISHED)
    step(checker)
    assert again(job).status == "FINISHED"


@pytest.mark.parametrize("engine_says", [JobStatus.CANCELLED, JobStatus.FAILED])
def test_a_job_over_its_time_is_cancelled_and_ends_as_timeout(
    engine: FakeEngine, checker: Checker, engine_says: JobStatus
) -> None:
    job = running(engine, timeout=0.001, retries=3)
    assert not checker.time_out([again(job)] if again(job).started_tick is None else [])
    Queue.update(started_tick="another-boot 0.0", started_at="1999-01-01T00:00:00.000000Z").execute()
    assert checker.time_out(jobs_on("engine1"))
    assert not checker.time_out(jobs_on("engine1"))
    step(checker)
    assert engine.cancelled == [job.id]
    engine.end("E1", engine_says)
    step(checker)
    assert (again(job).status, again(job).reason) == ("TIMEOUT", "ran longer than 0.001 s")


def test_a_job_within_its_time_or_without_a_limit_goes_on(engine: FakeEngine, checker: Checker) -> None:
    running(engine, "E1", name="a", timeout=3600)
    running(engine, "E2", name="b", cpu="CPU2")
    Queue.update(started_tick="another-boot 0.0", started_at="1999-01-01T00:00:00.000000Z").where(
        Queue.name == "b"
    ).execute()
    assert not checker.time_out(jobs_on("engine1"))


def test_a_silent_engine_is_waited_for_before_the_caller_is_told(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    down = EngineDown("no answer")
    assert not checker.tell_without_engine(jobs_on("engine1"), down)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    assert not checker.tell_without_engine(jobs_on("engine1"), down)
    assert again(job).status == "RUNNING"


def test_a_silent_engine_ends_the_callers_wait_and_keeps_the_cpu_until_it_shows_the_end(
    engine: FakeEngine, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    job = running(engine, retries=3)
    ask_end(job.id, JobStatus.TIMEOUT, "ran too long")
    down = EngineDown("no answer")
    assert checker.tell_without_engine(jobs_on("engine1"), down)
    told = again(job)
    assert (told.status, cpu1()) == ("TIMEOUT", "RUNNING")
    assert "ran too long; the engine does not answer, so the execution may still run: no answer" in str(told.reason)
    assert not checker.tell_without_engine(jobs_on("engine1"), down)
    step(checker)  # it answers again, and the execution still runs
    assert (engine.cancelled, cpu1()) == ([job.id], "RUNNING")
    engine.end("E1", JobStatus.FINISHED)
    assert step(checker)
    assert (again(job), cpu1(), engine.forgotten) == (replace(told, kept_since=None), "FREE", [job.id])


def test_nobody_is_told_of_a_silent_engine_who_did_not_ask_for_an_end(
    engine: FakeEngine, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    job = running(engine)
    assert not checker.tell_without_engine(jobs_on("engine1"), EngineDown("no answer"))
    assert again(job).status == "RUNNING"


def test_an_end_that_may_not_be_one_tells_the_caller_and_keeps_the_cpu(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine, retries=3)
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="PAUSED?", may_run_on=True)
    step(checker)
    assert (again(job).status, cpu1(), engine.forgotten) == ("FAILED", "RUNNING", [])
    step(checker)
    assert cpu1() == "RUNNING"
    engine.end("E1", JobStatus.FINISHED)
    step(checker)
    assert (again(job).status, cpu1()) == ("FAILED", "FREE")
