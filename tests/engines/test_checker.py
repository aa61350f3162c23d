"""Step check: progress, ends, timeouts, cancels, and what is told of an engine that is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.checkstatus import check as check_module
from orchestrator.checkstatus import trouble as trouble_module
from orchestrator.checkstatus.check import Checker
from orchestrator.clock import tick
from orchestrator.engines.base import Ended, Running, State, Unsure
from orchestrator.errors import EngineDown
from orchestrator.job import Job
from orchestrator.state import JobStatus
from orchestrator.store.models import Queue
from orchestrator.store.running import intend_start, jobs_on, started
from orchestrator.store.taking import ask_end
from orchestrator.store.views import cpus_of_engines

from .fake import HOST, Clock, FakeEngine, again, check, me, placed

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


def cpu1() -> str | None:
    return cpus_of_engines()["engine1"][0]["status"]


def test_progress_is_recorded(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    engine.executions["E1"] = Running(rows_masked=5, rows_total=9)
    assert not check(checker)
    assert (again(job).rows_masked, again(job).rows_total) == (5, 9)


@pytest.mark.parametrize("status", [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_an_end_is_recorded_with_all_that_the_engine_told(
    engine: FakeEngine, checker: Checker, status: JobStatus
) -> None:
    job = running(engine)
    engine.executions["E1"] = Ended(
        status=status, reason="so", exit_status=3, detail="more", rows_masked=5, rows_total=9
    )
    assert check(checker)
    over = again(job)
    assert (over.status, over.reason, over.exit, over.detail) == (status, "so", 3, "more")
    assert (over.rows_masked, over.rows_total, cpu1(), engine.forgotten) == (5, 9, "FREE", [job.id])
    assert not check(checker)


def test_a_job_that_the_engine_does_not_know_of_now_goes_on(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    engine.executions.clear()
    assert not check(checker)
    assert again(job).status == "RUNNING"


def test_all_jobs_are_asked_for_at_once_and_nothing_is_asked_where_none_runs(
    engine: FakeEngine, checker: Checker
) -> None:
    check(checker)
    assert engine.calls == []
    running(engine, "E1", name="a")
    running(engine, "E2", name="b", cpu="CPU2")
    check(checker)
    assert engine.calls == ["check"]


def test_a_failed_attempt_is_tried_again_elsewhere_and_the_end_told_only_once(
    engine: FakeEngine, checker: Checker
) -> None:
    job = running(engine, retries=1)
    engine.end("E1", JobStatus.FAILED, "rows rejected")
    assert check(checker)
    assert (again(job).status, again(job).tried, cpu1()) == ("QUEUED", "engine1", "FREE")


def test_a_cancel_reaches_the_engine_until_it_shows_the_end(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    check(checker)
    check(checker)
    assert (engine.cancelled, again(job).status) == ([job.id, job.id], "RUNNING")
    engine.end("E1", JobStatus.CANCELLED)
    check(checker)
    assert (again(job).status, again(job).reason, cpu1()) == ("CANCELLED", "by its caller", "FREE")


def test_a_job_that_finished_before_its_cancel_arrived_is_finished(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    engine.end("E1", JobStatus.FINISHED)
    check(checker)
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
    check(checker)
    assert engine.cancelled == [job.id]
    engine.end("E1", engine_says)
    check(checker)
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
    down = "no answer"
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
    down = "no answer"
    assert checker.tell_without_engine(jobs_on("engine1"), down)
    told = again(job)
    assert (told.status, cpu1()) == ("TIMEOUT", "RUNNING")
    assert "ran too long; the engine does not confirm it, so the execution may still run: no answer" in str(told.reason)
    assert not checker.tell_without_engine(jobs_on("engine1"), down)
    check(checker)  # it answers again, and the execution still runs
    assert (engine.cancelled, cpu1()) == ([job.id], "RUNNING")
    engine.end("E1", JobStatus.FINISHED)
    assert check(checker)
    assert (again(job), cpu1(), engine.forgotten) == (replace(told, kept_since=None), "FREE", [job.id])


def test_nobody_is_told_of_a_silent_engine_who_did_not_ask_for_an_end(
    engine: FakeEngine, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "SILENT_ENGINE", -1.0)
    job = running(engine)
    assert not checker.tell_without_engine(jobs_on("engine1"), "no answer")
    assert again(job).status == "RUNNING"


def test_an_end_that_may_not_be_one_tells_the_caller_and_keeps_the_cpu(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine, retries=3)
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, reason="PAUSED?", may_run_on=True)
    check(checker)
    assert (again(job).status, cpu1(), engine.forgotten) == ("FAILED", "RUNNING", [])
    check(checker)
    assert cpu1() == "RUNNING"
    engine.end("E1", JobStatus.FINISHED)
    check(checker)
    assert (again(job).status, cpu1()) == ("FAILED", "FREE")


def test_a_cancel_that_fails_keeps_no_other_job_from_ending(engine: FakeEngine, checker: Checker) -> None:
    first, second = running(engine, "E1", name="a"), running(engine, "E2", name="b", cpu="CPU2")
    ask_end(first.id, JobStatus.CANCELLED, "by its caller")
    engine.end("E2", JobStatus.FINISHED)
    engine.fails["cancel"] = [EngineDown("POST /executions/1/cancel: status 500")] * 9
    assert check(checker)
    assert (again(first).status, again(second).status) == ("RUNNING", "FINISHED")


def test_a_cancel_that_fails_is_an_engine_that_is_down_where_it_answers_nothing_else(
    engine: FakeEngine, checker: Checker
) -> None:
    job = running(engine)
    ask_end(job.id, JobStatus.CANCELLED, "by its caller")
    engine.fails = {"cancel": [EngineDown("no answer")], "describe": [EngineDown("no answer")]}
    with pytest.raises(EngineDown):
        check(checker)


def test_what_the_engine_cannot_tell_of_one_job_keeps_no_other_from_ending(
    engine: FakeEngine, checker: Checker, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = running(engine, "E1", name="a"), running(engine, "E2", name="b", cpu="CPU2")
    engine.executions["E1"] = EngineDown("its events cannot be read: status 404")
    engine.end("E2", JobStatus.FINISHED)
    assert check(checker)
    assert not check(checker)
    assert (again(first).status, again(second).status) == ("RUNNING", "FINISHED")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"job {first.id} (a): check on engine1: its events cannot be read: status 404; trying again"]


def test_what_the_engine_cannot_tell_of_a_job_is_asked_ever_later(
    engine: FakeEngine, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(trouble_module, "time", clock)
    job = running(engine)
    engine.executions["E1"] = EngineDown("its events cannot be read")
    asked = []
    for _ in range(200):
        before = engine.calls.count("check")
        check(checker)
        asked += [clock.now] * (engine.calls.count("check") - before)
        clock.now += 0.5
    assert [later - earlier for earlier, later in pairwise(asked)][:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
    engine.end("E1", JobStatus.FINISHED)
    clock.now += 15
    assert check(checker)
    assert again(job).status == "FINISHED"


@pytest.mark.parametrize("word", ["cancelled", "FINISHED", "stop it"])
def test_an_end_that_an_operator_asked_for_in_words_of_his_own_is_a_cancel(
    engine: FakeEngine, checker: Checker, word: str
) -> None:
    first, second = running(engine, "E1", name="a"), running(engine, "E2", name="b", cpu="CPU2")
    Queue.update(ending=word).where(Queue.name == "a").execute()
    engine.end("E1", JobStatus.FAILED)
    engine.end("E2", JobStatus.FINISHED)
    check(checker)
    assert (again(first).status, again(second).status) == ("CANCELLED", "FINISHED")


def test_a_row_that_makes_no_sense_keeps_no_other_job_from_ending(
    engine: FakeEngine, checker: Checker, caplog: pytest.LogCaptureFixture
) -> None:
    running(engine, "E1", name="a", timeout=5)
    second = running(engine, "E2", name="b", cpu="CPU2")
    boot = tick().split()[0]
    Queue.update(started_tick=f"{boot} soon").where(Queue.name == "a").execute()
    engine.end("E2", JobStatus.FINISHED)
    for _ in range(3):
        checker.time_out(jobs_on("engine1"))
        check(checker)
    assert again(second).status == "FINISHED"
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


def test_a_fault_of_the_engines_code_with_one_job_keeps_no_other_from_ending(
    engine: FakeEngine, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = running(engine, "E1", name="a"), running(engine, "E2", name="b", cpu="CPU2")
    engine.end("E2", JobStatus.FINISHED)
    look = engine.check

    def check_all_but_a(jobs: Sequence[Job]) -> Mapping[int, State]:
        if any(job.id == first.id for job in jobs):
            raise OverflowError("int too large")
        return look(jobs)

    monkeypatch.setattr(engine, "check", check_all_but_a)
    assert check(checker)
    assert (again(first).status, again(second).status) == ("RUNNING", "FINISHED")


def test_what_cannot_be_recorded_of_one_job_keeps_no_other_from_ending(engine: FakeEngine, checker: Checker) -> None:
    first, second = running(engine, "E1", name="a"), running(engine, "E2", name="b", cpu="CPU2")
    engine.executions["E1"] = Ended(status=JobStatus.FAILED, exit_status=10**30)
    engine.end("E2", JobStatus.FINISHED)
    assert check(checker)
    assert (again(first).status, again(second).status) == ("RUNNING", "FINISHED")


def test_what_nothing_can_be_concluded_from_is_remembered_for_whoever_looks_next(
    engine: FakeEngine, checker: Checker
) -> None:
    job = running(engine)
    engine.executions["E1"] = Unsure()
    assert not check(checker)
    first = again(job).unsure_tick
    assert first is not None
    check(Checker(engine))  # cron's next process
    assert again(job).unsure_tick == first
    engine.executions["E1"] = EngineDown("no answer about it")
    check(checker)
    assert again(job).unsure_tick == first
    engine.executions["E1"] = Running()
    check(Checker(engine))
    assert (again(job).unsure_tick, again(job).status) == (None, "RUNNING")


def test_a_new_attempt_begins_without_the_doubts_about_the_last_one(engine: FakeEngine, checker: Checker) -> None:
    job = running(engine, retries=1)
    engine.executions["E1"] = Unsure()
    check(checker)
    engine.end("E1", JobStatus.FAILED, "vanished")
    check(checker)
    assert (again(job).status, again(job).unsure_tick) == ("QUEUED", None)
